"""Golden checks of MMAudio's sound side: mel front ends, VAE, BigVGAN, resampler, and Frieren's mel.

Vectors at real size have the form of the tiny ones; sizes come from a file's metadata, else from its name.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from foleypref.networks.mel import LogMelSpectrogram
from foleypref.networks.resample import resample
from foleypref.published.mmaudio_audio import (
    SIZES,
    AudioSizes,
    MMAudioCodec,
    build_vae,
    build_vocoder,
    empty_vae,
    empty_vocoder,
)
from tests.golden import recipes

HERE = Path(__file__).parent
Quantities = Iterator[tuple[str, Tensor, Tensor]]


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors of a safetensors file, and its metadata's `config` ({} without one)."""
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return tensors, json.loads((file.metadata() or {}).get("config", "{}"))


def sizes_of(path: Path) -> AudioSizes:
    """The rate in a file's name."""
    match = re.search(r"_(16|44)k", path.stem)
    assert match, f"{path.name} names no rate"
    return SIZES[{"16": 16000, "44": 44100}[match[1]]]


def vae_state(sizes: AudioSizes) -> dict[str, Tensor]:
    """Raw weights by rule W1 under the official keys, with the published mel statistics."""
    stats = json.loads((HERE / "mmaudio_vae_data_stats.json").read_text())
    shapes = {key: value.shape for key, value in empty_vae(sizes).state_dict().items()}
    state = {key: recipes.mmaudio_weight(key, shape) for key, shape in shapes.items()}
    for name in ("mean", "std"):
        state[f"data_{name}"] = torch.tensor(stats[f"{name}_{sizes.num_mels}"]).reshape(1, -1, 1)
    return state


@lru_cache
def vocoder_shapes(sizes: AudioSizes) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of the official file, in the `weight_g` / `weight_v` spelling."""
    shapes: dict[str, tuple[int, ...]] = {}
    for key, value in empty_vocoder(sizes).state_dict().items():
        if key.endswith(".weight"):
            shapes[key + "_g"] = (value.shape[0], 1, 1)
            shapes[key + "_v"] = tuple(value.shape)
        else:
            shapes[key] = tuple(value.shape)
    return shapes


def vocoder_state(sizes: AudioSizes) -> dict[str, Tensor]:
    """Rule W1 on the weight-normed keys; the filters are BigVGAN's own."""
    return {
        key: kaiser_sinc() if key.endswith(".filter") else recipes.mmaudio_weight(key, shape)
        for key, shape in vocoder_shapes(sizes).items()
    }


def kaiser_sinc() -> Tensor:
    """BigVGAN's half-band filter: 12 taps at n + 1/2, cut-off 0.25, half-width 0.3, sum 1: (1, 1, 12)."""
    beta = 0.1102 * (2.285 * 5 * math.pi * 1.2 + 7.95 - 8.7)
    window = torch.kaiser_window(12, periodic=False, beta=beta, dtype=torch.float64)
    taps = window * torch.sinc(0.5 * (torch.arange(-6, 6, dtype=torch.float64) + 0.5))
    return (taps / taps.sum()).float().reshape(1, 1, 12)


def record(
    module: nn.Module, names: list[str], run: Callable[[], Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the result of `run` and the outputs of the named submodules while it ran."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda _module, _inputs, output: outputs.__setitem__(name, output)

    handles = [module.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    try:
        return run(), outputs
    finally:
        for handle in handles:
            handle.remove()


def mel(path: Path) -> Quantities:
    """Spectrogram of a wave partly beyond [-1, 1], filters, window and the value of silence."""
    golden, _ = read(path)
    front_end = MMAudioCodec(sizes_of(path), nn.Identity(), nn.Identity()).mel
    yield "mel_basis", front_end.basis, golden["mel_basis"]
    yield "hann_window", front_end.window, golden["hann_window"]
    yield "out.mel", front_end(golden["in.wave"]), golden["out.mel"]
    silence = front_end(torch.zeros(1, 4 * front_end.n_fft))
    yield "out.silence_frame", silence[0, :, 3], golden["out.silence_frame"]


def mel_shapes(path: Path) -> Quantities:
    """Mel frames of an 8 s clip, whose samples are those of a whole number of latent frames."""
    for name, shape in json.loads(path.read_text()).items():
        sizes = SIZES[{"16k": 16000, "44k": 44100}[name]]
        step = 2 * sizes.hop
        wave = torch.zeros(1, math.ceil(8 * sizes.sample_rate / step) * step)
        ours = MMAudioCodec(sizes, nn.Identity(), nn.Identity()).mel(wave)
        yield name, torch.tensor(ours.shape), torch.tensor(shape)


def frieren_mel(path: Path) -> Quantities:
    """Frieren's front end is MMAudio's at 16 kHz."""
    golden, _ = read(path)
    front_end = LogMelSpectrogram(16000, 1024, 256, 80, f_max=8000.0)
    yield "mel_basis", front_end.basis, golden["mel_basis"]
    yield "mel", front_end(golden["wav"]), golden["mel"]
    yield "silence_value", front_end(torch.zeros(1, 4096))[0, :, 3], golden["silence_value"]
    for length in (131072, 160000):
        frames = torch.tensor([front_end(torch.zeros(1, length)).shape[2]])
        yield f"wav_len_{length}_frames", frames, golden[f"wav_len_{length}_frames"]
    clipped = (golden["wav"].abs() > 1).float().mean()[None]
    yield "clipped_fraction", clipped, golden["clipped_fraction"]


def frieren_evalmel(path: Path) -> Quantities:
    """Diff-Foley's alignment classifier: centred, no clipping, no eps, decibels mapped to [0, 1]."""
    golden, _ = read(path)
    front_end = LogMelSpectrogram(
        16000, 1024, 256, 128, f_min=125.0, f_max=7600.0, eps=0.0, padding=512, clip=False
    ).double()
    decibels = 20 * front_end(golden["wav"][:, :-1])[0]
    yield "mel_basis128", front_end.basis, golden["mel_basis128"]
    yield "mel128", ((decibels - 20 + 100) / 100).clamp(0, 1), golden["mel128"]


def vae(path: Path) -> Quantities:
    """Posterior, decoder, reconstruction, blocks and the normalisation of raw weights."""
    golden, config = read(path)
    sizes = sizes_of(path)
    if config:
        dims = {"num_mels": "data_dim", "latent_dim": "embed_dim", "hidden_dim": "hidden_dim"}
        sizes = replace(sizes, **{ours: config[theirs] for ours, theirs in dims.items()})
    state = vae_state(sizes)
    network: Any = build_vae(sizes, state)
    codec = MMAudioCodec(sizes, network, nn.Identity())
    blocks = [key.removeprefix("mid.") for key in golden if key.startswith("mid.")]

    posterior = codec.encode_mel(golden["in.mel"])
    yield "enc.mean", posterior.mean.transpose(1, 2), golden["enc.mean"]
    yield "enc.std", posterior.std.transpose(1, 2), golden["enc.std"]
    yield "enc.logvar", 2 * posterior.std.log().transpose(1, 2), golden["enc.logvar"]
    yield "dec.mel", codec.decode_mel(golden["in.z"].transpose(1, 2)), golden["dec.mel"]
    yield "dec.mel_raw", network.decoder(golden["in.z"]), golden["dec.mel_raw"]
    # the blocks were recorded during a reconstruction: encode, take the mean, decode
    rebuilt, inside = record(
        network, blocks, lambda: codec.decode_mel(codec.encode_mel(golden["in.mel"]).mean)
    )
    yield "rec.mel", rebuilt, golden["rec.mel"]
    for name in blocks:
        yield f"mid.{name}", inside[name], golden[f"mid.{name}"]
    for key in (key for key in golden if key.startswith("raw.")):
        name = key.removeprefix("raw.")
        yield key, state[name], golden[key]
        yield f"removed.{name}", network.state_dict()[name], golden[f"removed.{name}"]


def vocoder(path: Path) -> Quantities:
    """Wave, the layer before the last non-linearity, stages (their first steps) and filters."""
    golden, config = read(path)
    sizes = sizes_of(path)
    if config:
        tanh = config.get("use_tanh_at_final", True)
        rates, width = tuple(config["upsample_rates"]), config["upsample_initial_channel"]
        sizes = replace(
            sizes, num_mels=config["num_mels"], upsample_rates=rates, tanh=tanh, vocoder_dim=width
        )
    network: Any = build_vocoder(sizes, {"generator": vocoder_state(sizes)})
    codec = MMAudioCodec(sizes, nn.Identity(), network)
    modules = {f"mid.ups{i}": f"ups.{i}.0" for i in range(len(sizes.upsample_rates))}
    modules |= {"mid.resblock0.act0": "resblocks.0.activations.0"}
    modules |= {f"block {i}": f"resblocks.{i}" for i in range(3)}
    modules |= {f"mid.{name}": name for name in ("conv_pre", "activation_post")}
    wave, inside = record(network, list(modules.values()), lambda: codec.vocode(golden["in.mel"]))
    yield "out.wave", wave[:, None], golden["out.wave"]
    before = nn.Conv1d.forward(network.conv_post, inside["activation_post"])
    computed = {name: inside[module] for name, module in modules.items()} | {"mid.conv_post": before}
    # summed in place after it was recorded
    computed["mid.resblock0"] = computed["block 0"] + computed["block 1"] + computed["block 2"]
    for key in (key for key in golden if key.startswith("mid.")):
        yield key, computed[key][..., : golden[key].shape[-1]], golden[key]
    if "filter" in golden:
        yield "filter", network.activation_post.upsample.filter, golden["filter"]
        yield "filter_down", network.activation_post.downsample.lowpass.filter, golden["filter_down"]


def keys(path: Path) -> Quantities:
    """Names and shapes of the official files, in every spelling listed, and element counts."""
    listed = json.loads(path.read_text())
    sizes = sizes_of(path)
    if "vae" in path.stem:
        state = empty_vae(sizes).state_dict()
        ours = {key: tuple(value.shape) for key, value in state.items()}
        yield "keys", *_texts(ours, listed["keys"])
        count = listed["n_elements"]
    else:
        network = empty_vocoder(sizes)
        ours = vocoder_shapes(sizes)
        yield "keys", *_texts(ours, listed["keys"])
        state = network.state_dict()
        yield "folded", *_texts({key: tuple(v.shape) for key, v in state.items()}, listed["folded"])
        count = listed["n_elements_folded"]
        buffers = {key for key, _ in network.named_buffers()}
        yield "buffers", *_texts(dict.fromkeys(buffers, ()), {key: [()] for key in listed["buffers"]})
    yield "n_keys", torch.tensor(len(ours)), torch.tensor(listed["n_keys"])
    yield "n_elements", torch.tensor(sum(v.numel() for v in state.values())), torch.tensor(count)


def _texts(ours: dict[str, tuple[int, ...]], listed: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Two listings of keys and shapes as bytes, so that they compare as integers do: exactly."""
    left = sorted(f"{key} {list(shape)}" for key, shape in ours.items())
    right = sorted(f"{key} {list(value[0])}" for key, value in listed.items())
    first, second = (torch.tensor(list("\n".join(lines).encode())) for lines in (left, right))
    return first, second


def resampled(path: Path) -> Quantities:
    """Sound resampled between four pairs of rates."""
    golden, _ = read(path)
    for key in (key for key in golden if key.endswith(".in")):
        pair = key.removesuffix(".in")
        from_rate, to_rate = map(int, pair.split("_"))
        yield pair, resample(golden[key], from_rate, to_rate), golden[f"{pair}.out"]


CHECKS: dict[str, Callable[[Path], Quantities]] = {
    "mmaudio_mel_??k.safetensors": mel,
    "mmaudio_mel_shapes.json": mel_shapes,
    "mmaudio_vae_*.safetensors": vae,
    "mmaudio_bigvgan_*.safetensors": vocoder,
    "mmaudio_keys_vae_*.json": keys,
    "mmaudio_keys_bigvgan_*.json": keys,
    "mmaudio_resample.safetensors": resampled,
    "frieren_mel.safetensors": frieren_mel,
    "frieren_evalmel.safetensors": frieren_evalmel,
}
