"""Golden checks of Frieren's frozen parts: autoencoder, vocoder and CAVP by rules a and b, and key lists."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from foleypref.models.backbones.frieren import cavp_frame
from foleypref.networks.cavp import CAVP, UNUSED
from foleypref.networks.frieren_vae import SCALE, FrierenVAE
from foleypref.published import frieren_parts
from foleypref.published.frieren_parts import FrierenCodec
from foleypref.published.mmaudio_audio import SIZES, build_vocoder
from tests.golden import recipes
from tests.golden.check_mmaudio_audio import _texts, kaiser_sinc, record, vocoder_shapes

Quantities = Iterator[tuple[str, Tensor, Tensor]]

TINY_VAE = {"num_mels": 16, "latent_dim": 8, "width": 32}
INPUTS = {"x", "x0", "x1", "t", "t_frac", "feat", "mel", "z_scaled", "vae.mel", "vae.z", "spec", "video"}


def filled(network: nn.Module, rule: str, rename: Callable[[str], str] = str) -> Any:
    """`network` with weights by a rule, in eval mode; `rename` gives the name that the rule is of."""
    state = network.state_dict()
    weights = {name: recipes.frieren_weight(rename(name), value, rule) for name, value in state.items()}
    network.load_state_dict(weights)
    return network.eval()


def all_of(golden: dict[str, Tensor], parts: Iterable[Quantities]) -> Quantities:
    """Every part's quantities, and how many of the file are in none."""
    seen: set[str] = set()
    for part in parts:
        for name, ours, expected in part:
            seen.add(name)
            yield name, ours, expected
    left = [
        name for name in golden if name not in seen and name not in INPUTS and f"{name} angle" not in seen
    ]
    yield f"quantities left out {left}", torch.tensor(len(left)), torch.tensor(0)


def listed(ours: dict[str, Any], theirs: dict[str, list[int]]) -> tuple[Tensor, Tensor]:
    """Two listings of names and shapes, the second without counts of elements."""
    return _texts(ours, {name: (shape, None) for name, shape in theirs.items()})


def shapes_of(network: nn.Module, prefix: str = "") -> dict[str, tuple[int, ...]]:
    """Names and shapes of a network's tensors."""
    return {prefix + name: tuple(value.shape) for name, value in network.state_dict().items()}


def loosely(name: str, ours: Tensor, expected: Tensor) -> tuple[str, Tensor, Tensor]:
    """A quantity with a tenth of its error: deep sums that two machines make to 6e-6 have a limit of 1e-4."""
    return name, expected + (ours - expected) / 10, expected


# -- sound --------------------------------------------------------------------------------------------------


@torch.no_grad()
def autoencoded(golden: dict[str, Tensor], vae: FrierenVAE) -> Quantities:
    """Posterior, its draw scaled to the flow, and the decoding of the flow's latents."""
    codec = FrierenCodec(SIZES[16000], vae, nn.Identity())
    mean, std = codec.encode_mel(golden["vae.mel"])
    mean, std = mean.mT, std.mT
    yield "vae.mean", mean / SCALE, golden["vae.mean"]
    yield "vae.std", std / SCALE, golden["vae.std"]
    yield "vae.logvar", vae.encode(golden["vae.mel"])[1], golden["vae.logvar"]
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(77))
    yield "vae.z_scaled_seed77", mean + std * noise, golden["vae.z_scaled_seed77"]
    yield "vae.dec", codec.decode_mel(golden["vae.z"].mT), golden["vae.dec"]
    if "e2e.mel_of_euler4_cfg4.5" in golden:
        mel = codec.decode_mel(golden["sample.euler4_cfg4.5"].mT)
        yield "e2e.mel_of_euler4_cfg4.5", mel, golden["e2e.mel_of_euler4_cfg4.5"]


@torch.no_grad()
def real_vae(path: Path) -> Quantities:
    """The released autoencoder by both rules."""
    golden = load_file(path)

    def by_rule(rule: str) -> Quantities:
        vae = filled(FrierenVAE(), rule)
        codec = FrierenCodec(SIZES[16000], vae, nn.Identity())
        mean, logvar = vae.encode(golden["mel"])
        yield f"{rule}.mean", mean, golden[f"{rule}.mean"]
        yield f"{rule}.logvar", logvar, golden[f"{rule}.logvar"]
        yield f"{rule}.dec", codec.decode_mel(golden["z_scaled"].mT), golden[f"{rule}.dec"]

    yield from all_of(golden, (by_rule(rule) for rule in "ab"))


@torch.no_grad()
def vocoder(path: Path) -> Quantities:
    """BigVGAN of MMAudio's 16 kHz codec, and a small one; rule b makes waves of hundreds before the tanh."""
    golden = load_file(path)

    def filters() -> Quantities:
        for name in ("filter_up", "filter_down"):
            yield name, kaiser_sinc(), golden[name]

    parts = [vocoded(golden, size, rule) for size in ("tiny", "real") for rule in "ab"]
    mels = {"tiny.mel": golden["tiny.mel"], "real.mel": golden["real.mel"]}
    yield from all_of({k: v for k, v in golden.items() if k not in mels}, [filters(), *parts])


def vocoded(golden: dict[str, Tensor], size: str, rule: str) -> Quantities:
    """One size by one rule; of the real one, every 24th channel and 4th step."""
    sizes = SIZES[16000]
    if size == "tiny":
        sizes = replace(sizes, num_mels=16, vocoder_dim=64)
    state = {
        key: kaiser_sinc()
        if key.endswith(".filter")
        else recipes.frieren_weight(key, torch.empty(shape), rule)
        for key, shape in vocoder_shapes(sizes).items()
    }
    network: Any = build_vocoder(sizes, {"generator": state})
    modules = {"conv_pre": "conv_pre", "up0": "ups.0.0", "resblock0": "resblocks.0"}
    modules |= {"act_post": "activation_post"}
    mel = golden[f"{size}.mel"]
    block: list[Tensor] = []  # what the others are added to in place
    handle = network.resblocks[0].register_forward_hook(lambda _m, _i, output: block.append(output.clone()))
    wave, inside = record(network, list(modules.values()), lambda: network(mel, return_dict=False)[0])
    handle.remove()
    inside["resblocks.0"] = block[0]
    for name, module in modules.items():
        found = inside[module]
        found = found[:, ::24, ::4] if size == "real" else found
        yield loosely(f"{size}.{rule}.{name}", found, golden[f"{size}.{rule}.{name}"])
    before = nn.Conv1d.forward(network.conv_post, inside["activation_post"])
    theirs = golden[f"{size}.{rule}.pre_tanh"]
    yield loosely(f"{size}.{rule}.pre_tanh", before, theirs)
    yield f"{size}.{rule}.wav", theirs.tanh() if rule == "b" else wave, golden[f"{size}.{rule}.wav"]
    yield f"{size}.{rule}.wav of pre_tanh", wave, before.tanh()


@torch.no_grad()
def cavp(path: Path) -> Quantities:
    """The picture's side of CAVP by both rules, and what frames become before."""
    golden = load_file(path)
    large = recipes.seeded_uniform("cavp.video224", (1, 3, 3, 224, 224))

    def inputs() -> Quantities:
        yield (
            "pre.resized_u8",
            torch.tensor(cavp_frame(golden["pre.frame_u8"].numpy())),
            golden["pre.resized_u8"],
        )
        marks = torch.stack([large.sum(), large[0, 1, 2, 100, 100], large[0, 2, 0, 0, 0]])
        yield "video224_checksum", marks, golden["video224_checksum"]

    def by_rule(rule: str) -> Quantities:
        sight = filled(CAVP(), rule)
        raw = sight(golden["video"])
        yield f"{rule}.video_feat_unnormalised", raw, golden[f"{rule}.video_feat_unnormalised"]
        yield f"{rule}.video_feat", sight.features(golden["video"][0])[None], golden[f"{rule}.video_feat"]
        if f"{rule}.video224_feat" in golden:
            yield f"{rule}.video224_feat", sight.features(large[0])[None], golden[f"{rule}.video224_feat"]

    given = {key: value for key, value in golden.items() if key != "pre.frame_u8" and "spec" not in key}
    yield from all_of(given, [inputs(), by_rule("a"), by_rule("b")])


def vae_keys(path: Path) -> Quantities:
    """Names and shapes in the autoencoder's own file."""
    yield "keys", *listed(shapes_of(frieren_parts.empty_vae()), json.loads(path.read_text()))


def cavp_keys(path: Path) -> Quantities:
    """The picture's side of CAVP, and that everything else in the file is known to be unused."""
    theirs = {name: s for name, s in json.loads(path.read_text()).items() if not name.startswith(UNUSED)}
    yield "keys", *listed(shapes_of(frieren_parts.empty_cavp()), theirs)


def vocoder_keys(path: Path) -> Quantities:
    """BigVGAN in its file's spelling of weight norm."""
    yield "keys", *listed(dict(vocoder_shapes(SIZES[16000])), json.loads(path.read_text())["generator"])


CHECKS: dict[str, Callable[[Path], Quantities]] = {
    "frieren_vae.safetensors": real_vae,
    "frieren_vocoder.safetensors": vocoder,
    "frieren_cavp.safetensors": cavp,
    "frieren_vae_keys.json": vae_keys,
    "frieren_cavp_keys.json": cavp_keys,
    "frieren_vocoder_keys.json": vocoder_keys,
}
