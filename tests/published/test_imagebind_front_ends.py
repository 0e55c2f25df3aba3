"""ImageBind's front ends: Kaldi's features, clips of sound, crops of the picture; every trap."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from foleypref.networks.mel import kaldi_fbank
from foleypref.networks.mel_basis import kaldi_basis, kaldi_basis_float32
from foleypref.networks.resample import HANN, HANN_FLOAT32, resample
from foleypref.published.imagebind import (
    MEL_MEAN,
    MEL_STD,
    PIXEL_MEAN,
    PIXEL_STD,
    SAMPLE_RATE,
    clip_times,
    crops,
    imagebind_clips,
    imagebind_mels,
    num_frames,
)
from tests.golden import recipes

# -- Kaldi's features ------------------------------------------------------------------------------------


def test_features_are_what_their_definition_says() -> None:
    """In float64 and step by step, frame by frame."""
    wave = recipes.wave(0.2, SAMPLE_RATE, 5, 900.0) + 0.3
    ours = kaldi_fbank(wave, SAMPLE_RATE, 128, 20.0, 8000.0)
    assert ours.shape == (128, (3200 - 400) // 160 + 1)
    n, k = np.arange(512), np.arange(257)
    dft = np.exp(-2j * np.pi * k[:, None] * n / 512)
    basis = kaldi_basis(SAMPLE_RATE, 512, 128, 20.0, 8000.0).numpy()
    for index in range(ours.shape[1]):
        frame = wave[160 * index : 160 * index + 400].double().numpy()
        frame = frame - frame.mean()
        frame = frame - 0.97 * np.concatenate([frame[:1], frame[:-1]])
        frame = frame * (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399))  # symmetric
        power = np.abs(dft[:, :400] @ frame) ** 2
        expected = np.log(np.maximum(basis @ power, 2.0**-23))
        np.testing.assert_allclose(ours[:, index].numpy(), expected, atol=2e-3)


def test_silence_is_the_floor_and_a_constant_is_silence() -> None:
    floor = math.log(2.0**-23)
    for wave in (torch.zeros(2, 800), torch.full((2, 800), 0.5)):
        mel = kaldi_fbank(wave, SAMPLE_RATE, 128, 20.0, 8000.0)
        assert mel.shape == (2, 128, 3)
        assert mel.unique().tolist() == pytest.approx([floor])


def test_frames_lie_inside_the_sound() -> None:
    assert kaldi_fbank(torch.randn(400), SAMPLE_RATE, 128, 20.0, 8000.0).shape == (128, 1)
    assert kaldi_fbank(torch.randn(32000), SAMPLE_RATE, 128, 20.0, 8000.0).shape == (128, 198)
    with pytest.raises(ValueError, match=r"399 samples are no frame of 25 ms; give 400 or more at 16000 Hz"):
        kaldi_fbank(torch.randn(399), SAMPLE_RATE, 128, 20.0, 8000.0)


def test_the_bank_is_kaldis_but_for_rounding() -> None:
    ours, exact = (
        kaldi_basis_float32(16000, 512, 128, 20.0, 8000.0),
        kaldi_basis(16000, 512, 128, 20.0, 8000.0),
    )
    assert ours.dtype == torch.float32
    assert 0 < (ours - exact).abs().max() < 3e-5
    assert (ours[:, 256] == 0).all()


# -- sound -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "starts"),
    [(8.0, [0, 3, 6]), (10.0, [0, 4, 8]), (3.0, [0, 0.5, 1]), (2.0, [0, 0, 0]), (1.5, [0, 0, 0])],
)
def test_clips_are_spread_from_the_first_to_the_last_sample(seconds: float, starts: list[float]) -> None:
    assert clip_times(seconds) == [(start, start + 2) for start in starts]  # not 0, 2, 4 of 8 s


def test_every_clip_has_its_32000_samples() -> None:
    for samples in range(32000, 200000, 37):
        for begin, end in clip_times(samples / SAMPLE_RATE):
            first, last = int(begin * SAMPLE_RATE), int(end * SAMPLE_RATE)
            assert last - first == 32000
            assert first >= 0
            assert last <= samples


def test_pictures_are_padded_with_zero_before_they_are_normalised() -> None:
    mels = imagebind_mels(recipes.wave(8, SAMPLE_RATE, 1)[None])
    assert mels.shape == (3, 1, 128, 204)
    assert mels[..., 198:].unique().tolist() == pytest.approx([4.268 / 9.138])
    assert (mels[..., :198] != mels[0, 0, 0, 198]).any(-1).all()


def test_each_picture_shows_its_own_two_seconds() -> None:
    wave = recipes.wave(8, SAMPLE_RATE, 1)
    mels = imagebind_mels(wave[None])
    for index, start in enumerate((0, 48000, 96000)):
        alone = kaldi_fbank(wave[start : start + 32000], SAMPLE_RATE, 128, 20.0, 8000.0)
        assert torch.allclose(mels[index, 0, :, :198], (alone - MEL_MEAN) / MEL_STD, atol=1e-3)


def test_only_the_first_channel_is_heard() -> None:
    left, right = recipes.wave(8, SAMPLE_RATE, 1), recipes.wave(8, SAMPLE_RATE, 2, 600.0)
    mono, stereo, other = (imagebind_mels(torch.stack(c)) for c in ([left], [left, right], [right, left]))
    assert torch.allclose(mono, stereo, atol=1e-3)
    assert (mono - other).abs().max() > 0.1
    assert (mono - imagebind_mels((left + right)[None] / 2)).abs().max() > 0.1  # what a mix would show


def test_overlapping_clips_see_what_the_one_before_has_subtracted() -> None:
    """The second clip has a step where the first one ended, as large as the mean of all its channels."""
    sound = torch.stack([recipes.wave(3, SAMPLE_RATE, 1) + 0.2, recipes.wave(3, SAMPLE_RATE, 2) + 1])
    before = sound.clone()
    mels = imagebind_mels(sound)
    assert torch.equal(sound, before)
    stepped = sound[0].clone()
    stepped[:32000] -= sound[:, :32000].mean()
    expected = (kaldi_fbank(stepped[8000:40000], SAMPLE_RATE, 128, 20.0, 8000.0) - MEL_MEAN) / MEL_STD
    assert torch.allclose(mels[1, 0, :, :198], expected, atol=1e-3)
    smooth = (kaldi_fbank(sound[0, 8000:40000], SAMPLE_RATE, 128, 20.0, 8000.0) - MEL_MEAN) / MEL_STD
    assert (mels[1, 0, :, 148:150] - smooth[:, 148:150]).abs().max() > 0.3  # 1.5 s into the clip


def test_of_a_short_sound_all_three_clips_are_the_whole() -> None:
    mels = imagebind_mels(recipes.wave(1.5, SAMPLE_RATE, 1)[None])
    assert torch.allclose(mels[0], mels[1], atol=1e-4)
    assert torch.allclose(mels[0], mels[2], atol=1e-4)
    assert mels[..., 148:].unique().tolist() == pytest.approx([4.268 / 9.138])


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_resampling_differs_from_the_houses_by_rounding_alone(rate: int) -> None:
    sound = torch.stack([recipes.wave(1, rate, seed) for seed in (1, 2)])
    ours, exact = (resample(sound, rate, SAMPLE_RATE, sinc) for sinc in (HANN_FLOAT32, HANN))
    assert ours.shape == exact.shape == (2, 16000)
    assert (ours - exact).abs().max() < 1e-5
    assert resample(ours, SAMPLE_RATE, SAMPLE_RATE, HANN_FLOAT32) is ours


def test_a_rate_without_a_common_divisor_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot resample at the ratio 16000/44101"):
        resample(torch.zeros(1, 100), 44101, SAMPLE_RATE, HANN_FLOAT32)


# -- picture ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("long", "starts"), [(224, [0, 0, 0]), (225, [0, 1, 1]), (229, [0, 3, 5]), (398, [0, 87, 174])]
)
@pytest.mark.parametrize("portrait", [False, True])
def test_crops_are_begin_middle_and_end_of_the_long_side(
    long: int, starts: list[int], *, portrait: bool
) -> None:
    frames = (torch.arange(long) % 256).to(torch.uint8)[None, None, :, None].expand(1, 224, long, 3)
    frames = frames.transpose(1, 2) if portrait else frames
    cropped = crops(frames)
    assert cropped.shape == (3, 1, 3, 224, 224)
    first = cropped[:, 0, 0, 0, 0] * PIXEL_STD[0] + PIXEL_MEAN[0]
    assert (255 * first).round().tolist() == starts


def test_pixels_are_normalised_by_channel() -> None:
    frames = torch.tensor([0, 255], dtype=torch.uint8)[:, None, None, None].expand(2, 224, 224, 3)
    cropped = crops(frames)[0, :, :, 0, 0]
    expected = [
        [-m / s for m, s in zip(PIXEL_MEAN, PIXEL_STD)],
        [(1 - m) / s for m, s in zip(PIXEL_MEAN, PIXEL_STD)],
    ]
    assert torch.allclose(cropped, torch.tensor(expected))


def test_clips_are_pairs_of_neighbours_in_every_crop() -> None:
    time = torch.arange(4, dtype=torch.uint8)[:, None, None, None].expand(4, 224, 300, 3) * 50
    column = (torch.arange(300) * 4 // 25).to(torch.uint8)[None, None, :, None]  # below 50
    clips = imagebind_clips(time + column)
    assert clips.shape == (9, 3, 2, 224, 224)
    corner = (255 * (clips[:, 0, :, 0, 0] * PIXEL_STD[0] + PIXEL_MEAN[0])).round().int()
    assert (corner // 50).tolist() == [[0, 1], [1, 2], [2, 3]] * 3
    assert (corner % 50).tolist() == [[0, 0]] * 3 + [[6, 6]] * 3 + [[12, 12]] * 3


def test_half_a_frame_a_second_rounded_down() -> None:
    assert [num_frames(s) for s in (8.0, 10.0, 7.0, 5.0, 4.0, 3.9)] == [4, 5, 3, 2, 2, 1]
