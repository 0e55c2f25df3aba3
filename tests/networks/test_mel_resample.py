"""Log-mel spectrograms and resampling against closed forms and reference numbers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from foleypref.networks.mel import LogMelSpectrogram
from foleypref.networks.mel_basis import slaney_basis
from foleypref.networks.resample import HANN, KAISER_BEST, Sinc, resample
from foleypref.published.mmaudio_audio import (
    SIZES,
    MMAudioCodec,
)
from tests.golden import recipes
from tests.golden.compare import LIMIT, relative_error

HANN_GOLDEN = [
    *(-0.0130150793120265, -0.03242103382945061, 0.0011917372466996312, 0.06245584413409233),
    *(-0.16960005462169647, 0.25127676129341125, -0.2734053432941437, 0.2554977238178253),
]

# --- mel ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "silence", "frames"), [(16000, -5.0, 500), (44100, -11.5129, 690)])
def test_silence_and_frames_of_8_s(rate: int, silence: float, frames: int) -> None:
    sizes = SIZES[rate]
    mel = MMAudioCodec(sizes, nn.Identity(), nn.Identity()).mel(torch.zeros(1, frames * sizes.hop))
    assert mel.shape == (1, sizes.num_mels, frames)
    torch.testing.assert_close(mel, torch.full_like(mel, silence), rtol=0, atol=1e-4)


def test_mel_filters_have_unit_area_and_slaneys_corners() -> None:
    basis = slaney_basis(16000, 1 << 16, 80, 0.0, 8000.0)
    area = basis.sum(1) * 16000 / (1 << 16)
    torch.testing.assert_close(area, torch.ones_like(area), rtol=1e-3, atol=0)
    # 1 kHz is 15 mel, 6.4 kHz is 42 mel: 41 filters over 0 to 42 mel have their peaks at whole mels
    peaks = slaney_basis(16000, 1 << 16, 41, 0.0, 6400.0).argmax(1) * 16000 / (1 << 16)
    expected = [n * 200 / 3 if n < 15 else 1000 * 6.4 ** ((n - 15) / 27) for n in range(1, 42)]
    torch.testing.assert_close(peaks, torch.tensor(expected), rtol=0, atol=0.25)


def test_samples_beyond_one_are_cut_unless_told_otherwise() -> None:
    wave = 1.5 * recipes.wave(0.2, 16000, seed=1)[None] / 0.5
    assert wave.abs().max() > 1
    clipped, unclipped = (LogMelSpectrogram(16000, 1024, 256, 80, clip=clip) for clip in (True, False))
    assert torch.equal(clipped(wave), clipped(wave.clamp(-1, 1)))
    assert not torch.allclose(clipped(wave), unclipped(wave), atol=1e-2)


def test_mel_is_exact_under_autocast_and_refuses_sound_too_short() -> None:
    front_end = LogMelSpectrogram(16000, 1024, 256, 80)
    wave = recipes.wave(0.2, 16000, seed=1)[None]
    expected = front_end(wave)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(front_end(wave), expected)
    assert torch.equal(front_end(wave.double()), expected)
    for bad in (wave[:, :384], wave[0]):
        with pytest.raises(ValueError, match="no mel frames"):
            front_end(bad)
    assert front_end(wave[:, :385]).shape == (1, 80, 1)


# --- resampling --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sinc", [KAISER_BEST, HANN, Sinc(16, 0.9, 8.0)])
@pytest.mark.parametrize(("from_rate", "to_rate"), [(44100, 16000), (16000, 44100), (48000, 44100)])
def test_resampling_is_the_windowed_sinc_sum(from_rate: int, to_rate: int, sinc: Sinc) -> None:
    """Every output sample, written out: Σ x[i] · h(t_out − i / rate)."""
    wave = torch.randn(2, 900, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ours = resample(wave, from_rate, to_rate, sinc)
    assert ours.shape == (2, math.ceil(900 * to_rate / from_rate))
    cutoff = min(from_rate, to_rate) * sinc.rolloff  # Hz, twice the band
    samples, outputs = (torch.arange(n, dtype=torch.float64) for n in (900, ours.shape[1]))
    z = (outputs[:, None] / to_rate - samples / from_rate) * cutoff
    inside = (z / sinc.zero_crossings).clamp(-1, 1)
    if sinc.beta is None:
        window = (inside * math.pi / 2).cos() ** 2
    else:
        beta = torch.tensor(sinc.beta, dtype=torch.float64)
        window = torch.i0(beta * (1 - inside**2).sqrt()) / torch.i0(beta)
    taps = torch.where(z.abs() < sinc.zero_crossings, torch.sinc(z) * window * cutoff / from_rate, 0.0)
    torch.testing.assert_close(ours, wave @ taps.T, rtol=0, atol=1e-10)


def test_hann_resampling_agrees_with_the_scorers_audio_loader() -> None:
    """Every 32nd sample of `audiodataset_44k1_to_16000_head` in scorers_frontends: stereo, mean removed."""
    stereo = torch.stack([recipes.wave(9, 44100, seed=104), 0.5 * recipes.wave(9, 44100, seed=105)])
    mono = stereo.mean(0) - stereo.mean()
    expected = torch.tensor(HANN_GOLDEN)
    assert relative_error(resample(mono[:44100], 44100, 16000, HANN)[:256:32], expected) <= LIMIT


def test_a_tone_keeps_its_phase_and_a_tone_above_the_band_is_gone() -> None:
    time = torch.arange(44100, dtype=torch.float64) / 44100
    low, high = (torch.sin(2 * math.pi * f * time) for f in (1000.0, 12000.0))
    expected = torch.sin(2 * math.pi * 1000.0 * torch.arange(16000, dtype=torch.float64) / 16000)
    middle = slice(1000, 15000)
    torch.testing.assert_close(resample(low, 44100, 16000)[middle], expected[middle], rtol=0, atol=1e-5)
    assert resample(high, 44100, 16000)[middle].abs().max() < 1e-5


def test_resampling_keeps_shape_and_dtype_and_names_what_it_cannot_do() -> None:
    wave = torch.randn(2, 3, 441)
    ours = resample(wave, 44100, 16000)
    assert ours.shape == (2, 3, 160)
    assert ours.dtype == torch.float32
    assert relative_error(resample(wave[1, 2], 44100, 16000), ours[1, 2]) <= 1e-6
    assert resample(wave, 16000, 16000) is wave
    with pytest.raises(ValueError, match="common divisor"):
        resample(wave, 44101, 16000)
    with pytest.raises(ValueError, match="positive"):
        resample(wave, 0, 16000)
    with pytest.raises(ValueError, match="int16"):
        resample(wave.to(torch.int16), 44100, 16000)
