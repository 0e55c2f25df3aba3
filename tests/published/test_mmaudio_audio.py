"""MMAudio's sound side against golden vectors of the official code, closed forms and its files' traps."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from foleypref.networks import vocoder_activation
from foleypref.networks.vocoder_activation import SlicedActivation
from foleypref.published import mmaudio_audio
from foleypref.published.mmaudio_audio import (
    SIZES,
    MMAudioCodec,
    build_codec,
    build_vae,
    build_vocoder,
    empty_vae,
    empty_vocoder,
    fold_weight_norm,
    normalise_convolutions,
)
from tests.golden import check_mmaudio_audio as check
from tests.golden import recipes
from tests.golden.compare import LIMIT, relative_error

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = [(path, run) for pattern, run in check.CHECKS.items() for path in sorted(GOLDEN.glob(pattern))]
TINY = {
    rate: replace(sizes, hidden_dim=16, latent_dim=6, vocoder_dim=64, upsample_rates=(4, 4, 4))
    for rate, sizes in SIZES.items()
}


@pytest.fixture(scope="module")
def vocoder_state() -> dict[str, Tensor]:
    """A small 16 kHz vocoder's official file."""
    return check.vocoder_state(TINY[16000])


@pytest.fixture(scope="module")
def vae_state() -> dict[str, Tensor]:
    """A small 16 kHz VAE's official file."""
    return check.vae_state(TINY[16000])


@pytest.fixture(scope="module")
def codec(vae_state: dict[str, Tensor], vocoder_state: dict[str, Tensor]) -> MMAudioCodec:
    """A small codec at 16 kHz, whose hop is 64 samples on the vocoder's side."""
    sizes = TINY[16000]
    return MMAudioCodec(sizes, build_vae(sizes, vae_state), build_vocoder(sizes, vocoder_state))


def worst(quantities: check.Quantities) -> tuple[float, str]:
    """The largest relative error and whose it is."""
    return max((relative_error(ours, expected), name) for name, ours, expected in quantities)


@pytest.mark.parametrize(("path", "run"), CASES, ids=[path.name for path, _ in CASES])
def test_golden(path: Path, run: Callable[[Path], check.Quantities]) -> None:
    error, name = worst(run(path))
    assert error <= LIMIT, name


def test_every_check_has_its_golden_file() -> None:
    assert all(list(GOLDEN.glob(pattern)) for pattern in check.CHECKS)


def test_a_golden_file_of_real_form_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No configuration, no blocks, sizes from the name; and a wrong number is seen."""
    tiny = TINY[16000]
    monkeypatch.setitem(SIZES, 16000, tiny)
    generator = torch.Generator().manual_seed(0)
    mel, z = torch.randn(1, 80, 8, generator=generator), torch.randn(1, 6, 4, generator=generator)
    vae: Any = build_vae(tiny, check.vae_state(tiny))
    mean, logvar = vae.encode(mel).chunk(2, dim=1)
    encoded = {
        "in.mel": mel,
        "in.z": z,
        "enc.mean": mean,
        "enc.logvar": logvar,
        "enc.std": (logvar / 2).exp(),
    }
    decoded = {"dec.mel": vae.decode(z), "dec.mel_raw": vae.decoder(z), "rec.mel": vae.decode(mean)}
    vocoder = build_vocoder(tiny, check.vocoder_state(tiny))
    waves = {"in.mel": mel, "out.wave": vocoder(mel, return_dict=False)[0]}
    for name, tensors, run in [
        ("mmaudio_vae_real_16k.safetensors", encoded | decoded, check.vae),
        ("mmaudio_bigvgan_16k_real.safetensors", waves, check.vocoder),
    ]:
        save_file({key: value.contiguous() for key, value in tensors.items()}, tmp_path / name)
        assert worst(run(tmp_path / name))[0] <= LIMIT
        for key in (key for key in tensors if not key.startswith("in.")):
            changed = tensors | {key: tensors[key] * 1.001}
            save_file({k: v.contiguous() for k, v in changed.items()}, tmp_path / name)
            assert worst(run(tmp_path / name))[1] == key


# --- weights -----------------------------------------------------------------------------------------------


def test_raw_weights_are_normalised_exactly_once(vae_state: dict[str, Tensor]) -> None:
    once = normalise_convolutions(vae_state)
    twice = normalise_convolutions(once)
    built = build_vae(TINY[16000], vae_state).state_dict()
    key = "encoder.mid.block_1.conv1.weight"
    assert torch.equal(built[key], once[key])
    assert relative_error(twice[key], once[key]) > 1e-4
    # the second time only because of the 1e-4: channel RMS is 1 / sqrt(fan_in), less its part
    fan_in = once[key][0].numel()
    rms = once[key].square().mean(dim=(1, 2)).sqrt() * math.sqrt(fan_in)
    raw = vae_state[key].square().mean(dim=(1, 2)).sqrt()
    torch.testing.assert_close(rms, raw / (raw + 1e-4))
    for kept in ("data_mean", "data_std", "encoder.learnable_gain"):
        assert torch.equal(built[kept], vae_state[kept])


def respelled(state: dict[str, Tensor], spelling: str) -> dict[str, Any]:
    """A `weight_g` / `weight_v` state under another spelling; folded by torch's own function."""
    if spelling == "folded":
        pairs = {k.removesuffix("_g"): (k, k[:-1] + "v") for k in state if k.endswith(".weight_g")}
        folded = {k: torch._weight_norm(state[v], state[g], 0) for k, (g, v) in pairs.items()}
        return folded | {k: v for k, v in state.items() if not k.endswith(("_g", "_v"))}
    names = {".weight_g": ".parametrizations.weight.original0"}
    names |= {".weight_v": ".parametrizations.weight.original1"}
    rename = lambda key: next((key.replace(a, b) for a, b in names.items() if key.endswith(a)), key)  # noqa: E731
    return {rename(key): value for key, value in state.items()}


@pytest.mark.parametrize("spelling", ["folded", "parametrizations", "half", "bare"])
def test_every_spelling_of_weight_norm_gives_the_same_wave(
    codec: MMAudioCodec, vocoder_state: dict[str, Tensor], spelling: str
) -> None:
    mel = recipes.mmaudio_input("spelling", (1, 80, 6))
    state: dict[str, Any] = {"generator": vocoder_state}
    if spelling in ("folded", "parametrizations"):
        state = {"generator": respelled(vocoder_state, spelling), "step": 3}
    elif spelling == "half":
        state = {key: value.half() for key, value in vocoder_state.items()}
    else:
        state = vocoder_state
    network: Any = build_vocoder(TINY[16000], state)
    ours, expected = network(mel, return_dict=False)[0], codec.vocode(mel)[:, None]
    assert ours.dtype == torch.float32
    assert relative_error(ours, expected) <= (1e-2 if spelling == "half" else 1e-6)


@pytest.mark.parametrize("numbers", [1, 5_000, 1 << 20])
def test_activations_in_slices_are_those_of_all_channels_at_once(
    vocoder_state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch, numbers: int
) -> None:
    """One channel at a time, a few, and all: diffusers' own activation, which a gradient takes too."""
    monkeypatch.setattr(vocoder_activation, "NUMBERS_AT_ONCE", numbers)
    network = build_vocoder(TINY[16000], vocoder_state)
    found = [m for m in network.modules() if isinstance(m, SlicedActivation)]
    assert len(found) == sum(".upsample.filter" in key for key in vocoder_state)
    torch.manual_seed(0)
    for module in found[:: len(found) // 4]:
        x = torch.randn(2, len(module.act.alpha), 700)
        with torch.no_grad():
            sliced = module(x)
        torch.testing.assert_close(sliced, module(x), atol=1e-6, rtol=1e-5)
        assert module(x.requires_grad_()).requires_grad


def test_weights_are_in_memory_once(vocoder_state: dict[str, Tensor]) -> None:
    folded = fold_weight_norm(vocoder_state)
    network = build_vocoder(TINY[16000], folded)
    for key, value in network.state_dict().items():
        assert value.data_ptr() == folded[key].data_ptr(), key
    assert not any(p.requires_grad for p in network.parameters())
    for sizes in SIZES.values():  # real size: nothing is allocated before the file's tensors take their place
        for empty in (empty_vae(sizes), empty_vocoder(sizes)):
            assert {value.device.type for value in empty.state_dict().values()} == {"meta"}


def damaged(state: dict[str, Tensor], how: str) -> dict[str, Any]:
    """A file that is not the one asked for."""
    broken: dict[str, Any] = dict(state)
    if how == "missing":
        del broken[next(key for key in state if key.endswith(("weight", "weight_v")))]
    elif how == "unexpected":
        broken["optimizer"] = torch.zeros(3)
    elif how == "cut":
        key = "decoder.conv_out.weight" if "data_mean" in state else "conv_post.weight_v"
        broken[key] = state[key][..., :2]
    elif how == "empty":
        broken = {}
    else:
        broken[next(key for key in state if key.endswith(("bias", "data_mean")))] = 3
    return broken


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("missing", "1 missing: (encoder.conv_in|conv_pre).weight"),
        ("unexpected", "1 unexpected: optimizer"),
        ("cut", r"of another shape: (decoder.conv_out|conv_post).weight"),
        ("empty", r"missing: .*, …"),
        ("wrong kind", "of another shape: (data_mean|conv_pre.bias) int for"),
    ],
)
@pytest.mark.parametrize("part", ["vae", "vocoder"])
def test_a_wrong_file_is_named(
    part: str, how: str, words: str, vae_state: dict[str, Tensor], vocoder_state: dict[str, Tensor]
) -> None:
    build: Callable[..., nn.Module] = build_vae if part == "vae" else build_vocoder
    with pytest.raises(ValueError, match=words):
        build(TINY[16000], damaged(vae_state if part == "vae" else vocoder_state, how))


def test_files_of_another_rate_or_kind_are_refused(
    vae_state: dict[str, Tensor], vocoder_state: dict[str, Tensor]
) -> None:
    with pytest.raises(ValueError, match=r"not MMAudio's 44100 Hz VAE: .* of another shape: data_mean"):
        build_vae(TINY[44100], vae_state)
    with pytest.raises(
        ValueError, match=r"1 unexpected: conv_post.bias; .* of another shape: conv_pre.weight"
    ):
        build_vocoder(TINY[44100], vocoder_state)
    with pytest.raises(ValueError, match="'generator' holds Tensor"):
        build_vocoder(TINY[16000], {"generator": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"conv_pre has weight norm of shape \(3, 1, 1\)"):
        build_vocoder(TINY[16000], vocoder_state | {"conv_pre.weight_g": torch.ones(3, 1, 1)})
    with pytest.raises(ValueError, match="no codec at 48000 Hz"):
        build_codec(48000, vae_state, vocoder_state)


# --- codec -------------------------------------------------------------------------------------------------


def test_build_codec_puts_the_two_files_together(
    monkeypatch: pytest.MonkeyPatch, codec: MMAudioCodec, vae_state: dict[str, Tensor], vocoder_state: Any
) -> None:
    monkeypatch.setitem(mmaudio_audio.SIZES, 16000, TINY[16000])
    built = build_codec(16000, vae_state, {"generator": vocoder_state})
    latents = recipes.mmaudio_input("codec", (2, 5, 6))
    assert torch.equal(built.decode(latents), codec.decode(latents))
    assert not any(module.training for module in built.modules())
    assert not any(parameter.requires_grad for parameter in built.parameters())


@pytest.mark.parametrize(("rate", "samples", "frames"), [(16000, 128000, 250), (44100, 353280, 345)])
def test_latents_of_8_s(rate: int, samples: int, frames: int) -> None:
    sizes = TINY[rate]
    codec = MMAudioCodec(sizes, build_vae(sizes, check.vae_state(sizes)), nn.Identity())
    mean, std = codec.encode_mean_std(recipes.wave(8.02, rate, seed=3)[None, :samples])
    assert mean.shape == std.shape == (1, frames, 6)
    assert (std > 0).all()
    assert codec.decode_mel(mean).shape == (1, sizes.num_mels, 2 * frames)


def test_encode_draws_from_the_posterior(codec: MMAudioCodec) -> None:
    wave = recipes.wave(1.0, 16000, seed=4)[None, :15872]
    mean, std = codec.encode_mean_std(wave)
    assert torch.equal(codec.encode(wave), mean)
    first, again = (codec.encode(wave, torch.Generator().manual_seed(7)) for _ in range(2))
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(7))
    assert torch.equal(first, again)
    torch.testing.assert_close(first, mean + std * noise)


def test_decoding_by_rows_changes_nothing(codec: MMAudioCodec) -> None:
    latents = recipes.mmaudio_input("rows", (3, 5, 6))
    wave = codec.decode(latents)
    assert wave.shape == (3, 5 * 2 * 64)
    assert wave.abs().max() <= 1
    for rows in (1, 2, 8):
        assert relative_error(codec.decode(latents, rows_at_once=rows), wave) <= 1e-6
    torch.testing.assert_close(codec.decode(latents.bfloat16()), codec.decode(latents.bfloat16().float()))
    with pytest.raises(ValueError, match="rows_at_once is 0"):
        codec.decode(latents, rows_at_once=0)
    with pytest.raises(ValueError, match=r"shape \(3, 6, 5\): give \(batch, frames, 6\)"):
        codec.decode(latents.transpose(1, 2))


def test_the_last_layer_is_tanh_at_16_khz_and_a_clamp_at_44(vocoder_state: dict[str, Tensor]) -> None:
    """Loud output tells them apart: tanh bends, the clamp cuts."""
    mel = recipes.mmaudio_input("loud", (1, 80, 6))
    loud = vocoder_state | {"conv_post.weight_g": torch.full((1, 1, 1), 30.0)}
    sizes = TINY[16000]
    bent: Any = build_vocoder(sizes, loud)
    unbiased = {k: v for k, v in loud.items() if k != "conv_post.bias"}
    clamped: Any = build_vocoder(replace(sizes, tanh=False), unbiased)
    x, y = (network(mel, return_dict=False)[0] for network in (bent, clamped))
    before = nn.Conv1d.forward(clamped.conv_post, _activations(clamped, mel))
    assert before.abs().max() > 1
    assert torch.equal(y, before.clamp(-1, 1))
    torch.testing.assert_close(x, torch.tanh(before + loud["conv_post.bias"]))


def _activations(network: Any, mel: Tensor) -> Tensor:
    outputs = check.record(network, ["activation_post"], lambda: network(mel, return_dict=False)[0])[1]
    return outputs["activation_post"]


def test_importing_is_cheap_and_a_missing_diffusers_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys, foleypref.published.mmaudio_audio as m; sys.exit('diffusers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120, check=False).returncode == 0
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ValueError, match=r"foleypref\[mmaudio\]"):
        empty_vae(replace(SIZES[16000], latent_dim=6, hidden_dim=16, upsample_rates=(4, 4, 4)))
