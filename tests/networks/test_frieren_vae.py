"""Frieren's autoencoder and vocoder against golden vectors of the official code, closed forms and traps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from foleypref.networks.frieren_vae import (
    SCALE,
    Attention,
    FrierenVAE,
    ResidualBlock,
    _Resample,
)
from foleypref.published.frieren_parts import FrierenCodec
from foleypref.published.mmaudio_audio import SIZES, build_vocoder
from tests.frieren_tiny import VOCODER, tiny_vae, vocoder_state
from tests.golden import check_frieren_parts as check
from tests.golden.check_frieren_parts import filled
from tests.golden.compare import LIMIT, relative_error

GOLDEN = Path(__file__).parents[1] / "golden"
SOUND = ("vae", "vocoder")
CASES = [
    pytest.param(path, run, id=path.name, marks=[pytest.mark.slow] if path.suffix == ".safetensors" else [])
    for pattern, run in check.CHECKS.items()
    for path in sorted(GOLDEN.glob(pattern))
    if path.name.split("_")[1].split(".")[0] in SOUND
]


@pytest.fixture(scope="module")
def codec() -> FrierenCodec:
    """A small codec whose sizes in time are the released ones."""
    vocoder = build_vocoder(VOCODER, vocoder_state())
    return FrierenCodec(VOCODER, filled(tiny_vae(), "b").requires_grad_(False), vocoder).eval()


@pytest.mark.parametrize(("path", "run"), CASES)
def test_golden(path: Path, run: Callable[[Path], check.Quantities]) -> None:
    errors = [(relative_error(ours, expected), name) for name, ours, expected in run(path)]
    assert max(errors) <= (LIMIT, ""), max(errors)


def test_the_golden_files_are_there() -> None:
    assert len(CASES) == 4
    assert all(list(GOLDEN.glob(pattern)) for pattern in check.CHECKS)


def test_half_the_steps_are_taken_with_a_zero_on_the_right_alone() -> None:
    down = _Resample(1, down=True)
    with torch.no_grad():
        down.conv.weight.copy_(torch.tensor([[[1.0, 10.0, 100.0]]]))
        down.conv.bias.zero_()  # type: ignore[union-attr]
        out = down(torch.arange(1.0, 7.0)[None, None])
    assert out.tolist() == [[[321.0, 543.0, 65.0]]]


def test_twice_the_steps_are_repetitions_under_a_convolution() -> None:
    up = _Resample(1, down=False)
    with torch.no_grad():
        up.conv.weight.copy_(torch.tensor([[[1.0, 10.0, 100.0]]]))
        up.conv.bias.zero_()  # type: ignore[union-attr]
        out = up(torch.tensor([[[1.0, 2.0]]]))
    assert out.tolist() == [[[110.0, 211.0, 221.0, 22.0]]]


def test_kernels_and_norms_are_as_released() -> None:
    with torch.device("meta"):
        vae = FrierenVAE()
    kernels: dict[str, set[int]] = {"encoder": set(), "decoder": set()}
    for name, module in vae.named_modules():
        if isinstance(module, ResidualBlock):
            kernels[name.split(".")[0]] |= {module.conv1.kernel_size[0], module.conv2.kernel_size[0]}
        if isinstance(module, nn.GroupNorm):
            assert (module.num_groups, module.eps) == (32, 1e-6)
    assert kernels == {"encoder": {5}, "decoder": {3}}
    ends = [getattr(half, f"conv_{end}") for half in (vae.encoder, vae.decoder) for end in ("in", "out")]
    assert [conv.kernel_size for conv in ends] == [(5,)] * 4
    assert [len(level.block) for level in vae.encoder.down] == [2, 2, 2]  # type: ignore[arg-type]
    assert [len(level.block) for level in vae.decoder.up] == [3, 3, 3]  # type: ignore[arg-type]
    resampled = [n for n, m in vae.named_modules() if isinstance(m, _Resample)]
    assert resampled == ["encoder.down.0.downsample", "decoder.up.1.upsample"]


@torch.no_grad()
def test_attention_is_one_head_with_the_widths_scale() -> None:
    torch.manual_seed(0)
    attention, x = Attention(64), torch.randn(2, 64, 7)
    y = attention.norm(x)
    weights = (attention.q(y).mT @ attention.k(y) * 64**-0.5).softmax(-1)  # (B, N, N)
    expected = x + attention.proj_out(attention.v(y) @ weights.mT)
    torch.testing.assert_close(attention(x), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_clip_is_256_latents_and_131072_samples(codec: FrierenCodec) -> None:
    wave = 0.3 * torch.sin(torch.arange(131072) * 0.05)[None]
    latents = codec.encode(wave)
    assert latents.shape == (1, 256, 20)
    mel = codec.decode_mel(latents)
    assert mel.shape == (1, 80, 512)
    assert codec.decode(latents[:, :8]).shape == (1, 8 * 512)
    assert codec.sizes.sample_rate == 16000


@torch.no_grad()
def test_latents_are_scaled_both_ways(codec: FrierenCodec) -> None:
    vae: Any = codec.vae
    mel = torch.randn(1, 80, 32, generator=torch.Generator().manual_seed(0))
    mean, logvar = vae.encode(mel)
    found = codec.encode_mel(mel)
    torch.testing.assert_close(found.mean, 0.18215 * mean.mT)
    torch.testing.assert_close(found.std, 0.18215 * (logvar / 2).exp().mT)
    torch.testing.assert_close(codec.decode_mel(found.mean), vae.decode(mean), rtol=1e-4, atol=1e-4)
    assert SCALE == 0.18215


@torch.no_grad()
def test_the_log_variance_is_kept_in_bounds(codec: FrierenCodec) -> None:
    vae: Any = codec.vae
    bias = vae.quant_conv.bias.clone()
    for value, bound in ((1e3, 20.0), (-1e3, -30.0)):
        vae.quant_conv.bias[20:] = value
        mean, logvar = vae.encode(torch.zeros(1, 80, 4))
        assert set(logvar.flatten().tolist()) == {bound}
        assert mean.abs().max() < 100
    vae.quant_conv.bias.copy_(bias)


def test_half_a_latent_is_refused(codec: FrierenCodec) -> None:
    with pytest.raises(ValueError, match="5 mel frames make no whole latents"):
        codec.encode_mel(torch.zeros(1, 80, 5))


def test_encoding_draws_from_the_posterior_only_when_asked(codec: FrierenCodec) -> None:
    wave: Tensor = 0.1 * torch.randn(1, 4096, generator=torch.Generator().manual_seed(0))
    mean, std = codec.encode_mean_std(wave)
    drawn = codec.encode(wave, torch.Generator().manual_seed(77))
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(77))
    torch.testing.assert_close(codec.encode(wave), mean)
    torch.testing.assert_close(drawn, mean + std * noise)


def test_the_mel_front_end_is_mmaudios() -> None:
    codec = FrierenCodec(SIZES[16000], nn.Identity(), nn.Identity())
    assert codec.mel(torch.zeros(1, 131072)).shape == (1, 80, 512)
    assert codec.mel(torch.zeros(1, 160000)).shape == (1, 80, 625)
    assert float(codec.mel(torch.zeros(1, 4096)).max()) == -5.0  # log10
