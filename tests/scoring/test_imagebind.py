"""ImageBind and the IB-score: golden vectors, closed forms, a tiny network end to end, every trap."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from foleypref.media.clip import write_video
from foleypref.media.streams import read_streams
from foleypref.networks.imagebind import OTHER_HALVES, ImageBind, ImageBindSizes
from foleypref.networks.kaldi import kaldi_basis_float32, kaldi_fbank
from foleypref.networks.mel_basis import kaldi_basis
from foleypref.networks.resample import HANN, HANN_FLOAT32, resample
from foleypref.published import imagebind as published
from foleypref.published.imagebind import (
    MEL_MEAN,
    MEL_STD,
    PIXEL_MEAN,
    PIXEL_STD,
    SAMPLE_RATE,
    IBScore,
    build_imagebind,
    check_length,
    clip_times,
    crops,
    imagebind_clips,
    imagebind_mels,
    num_frames,
    similarity,
)
from foleypref.scoring.scorers import ScoreItem
from foleypref.scoring.scorers import imagebind as adapter
from tests.golden import check_imagebind as checks
from tests.golden import recipes
from tests.golden.compare import LIMIT, relative_error
from tests.judged import judged, scores_of

GOLDEN = Path(__file__).parents[1] / "golden"
SIZES = ImageBindSizes(16, 1, 2, 16, 1, 2, 12)


def tiny() -> ImageBind:
    return checks.network("B", SIZES)


# -- golden vectors --------------------------------------------------------------------------------------


def assert_agrees(name: str) -> None:
    errors = {
        key: relative_error(ours, expected) for key, ours, expected in checks.CHECKS[name](GOLDEN / name)
    }
    assert errors
    assert max(errors.values()) <= LIMIT, errors


@pytest.mark.parametrize("name", ["scorers_imagebind_keys.json", "scorers_frontends.safetensors"])
def test_golden_numbers(name: str) -> None:
    assert_agrees(name)


@pytest.mark.parametrize("rule", ["A", "B"])  # A for the epsilons, B for the structure
def test_golden_numbers_of_the_tiny_network(rule: str) -> None:
    golden = load_file(GOLDEN / "scorers_imagebind.safetensors")
    about = json.loads((GOLDEN / "scorers_imagebind.json").read_text())
    for name, ours, expected in (*checks.shapes_and_scale(about), *checks.tiny(rule, golden, about)):
        assert relative_error(ours, expected) <= LIMIT, name


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_golden_numbers_of_the_full_network() -> None:
    assert_agrees("scorers_imagebind.safetensors")


def test_pictures_of_sounds_agree_with_this_machines_fft_too() -> None:
    golden = load_file(GOLDEN / "scorers_frontends.safetensors")
    mels = imagebind_mels(checks.sound("mono"))[:, 0]
    assert relative_error(mels, golden["imagebind_mel_mono"]) < 1e-4


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
    found = crops(frames)
    assert found.shape == (3, 1, 3, 224, 224)
    first = found[:, 0, 0, 0, 0] * PIXEL_STD[0] + PIXEL_MEAN[0]
    assert (255 * first).round().tolist() == starts


def test_pixels_are_normalised_by_channel() -> None:
    frames = torch.tensor([0, 255], dtype=torch.uint8)[:, None, None, None].expand(2, 224, 224, 3)
    found = crops(frames)[0, :, :, 0, 0]
    expected = [
        [-m / s for m, s in zip(PIXEL_MEAN, PIXEL_STD)],
        [(1 - m) / s for m, s in zip(PIXEL_MEAN, PIXEL_STD)],
    ]
    assert torch.allclose(found, torch.tensor(expected))


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


# -- the network -----------------------------------------------------------------------------------------


@torch.inference_mode()
def test_an_embedding_is_the_mean_of_clips_and_is_not_normalised_again() -> None:
    model = tiny()
    audio, video = torch.randn(2, 3, 1, 128, 204), torch.randn(2, 3, 3, 2, 224, 224)
    for embed, clips, length in ((model.embed_audio, audio, 20), (model.embed_video, video, 1)):
        whole = embed(clips)
        alone = torch.stack([embed(clips[:, i : i + 1]) for i in range(3)], 1)
        assert torch.allclose(alone.norm(dim=-1), torch.tensor(float(length)), rtol=1e-5)
        assert torch.allclose(whole, alone.mean(1), atol=1e-5 * length)
        assert (whole.norm(dim=-1) < (1 - 1e-4) * length).all()
        assert torch.allclose(whole, embed(clips, 1), atol=1e-5 * length)  # how many go at once is no matter


def test_the_score_does_not_see_lengths() -> None:
    video, audio = torch.randn(5, 12), torch.randn(5, 12)
    expected = (video * audio).sum(-1) / (video.norm(dim=-1) * audio.norm(dim=-1))
    assert torch.allclose(similarity(0.5 * video, 20 * audio), expected, atol=1e-6)


def test_weights_of_other_halves_are_dropped_and_others_refused() -> None:
    listed = json.loads((GOLDEN / "scorers_imagebind_keys.json").read_text())["shapes"]
    official = {name: torch.empty(shape, device="meta") for name, shape in listed.items()}
    model = build_imagebind(official)
    assert not any(half in name.split(".") for name in model.state_dict() for half in OTHER_HALVES)
    assert sum(p.numel() for p in model.parameters()) == 632829440 + 86235649 - 1  # the scale is none
    lacking = {k: v for k, v in official.items() if k != "modality_trunks.audio.blocks.3.attn.bias_k"}
    with pytest.raises(
        ValueError, match=r"missing modality_trunks\.audio\.blocks\.3\.attn\.bias_k.*huge\.pth"
    ):
        build_imagebind(lacking)
    with pytest.raises(ValueError, match=r"unexpected modality_trunks\.smell\.cls_token"):
        build_imagebind(official | {"modality_trunks.smell.cls_token": torch.empty(1, device="meta")})
    with pytest.raises(ValueError, match=r"not the weights of ImageBind huge.*is \(3, 1280\), expected"):
        build_imagebind(official | {"modality_heads.vision.2.weight": torch.empty(3, 1280, device="meta")})


# -- the scorer ------------------------------------------------------------------------------------------


def clip(seed: int = 1, seconds: float = 8.0, rate: int = SAMPLE_RATE) -> ScoreItem:
    frames = recipes.video_u8(num_frames(seconds), 224, 260, seed).movedim(1, -1).numpy()
    wave = recipes.wave(seconds, rate, seed, 200.0 + 90 * seed).numpy()
    name = f"clip{seed}"
    return ScoreItem(name, wave, rate, frames={adapter.PICTURE.key: frames}, seconds=seconds, clip_id=name)


Load = Callable[[ImageBind], adapter.ImageBind]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """The scorer around any network, as if its file were there."""

    def load(network: ImageBind) -> adapter.ImageBind:
        monkeypatch.setattr(adapter, "load_imagebind", lambda _folder: network)
        monkeypatch.setattr(adapter, "locate", lambda name, _folder: Path(name))
        monkeypatch.setattr(adapter, "weights_version", lambda _path: "01234567-1")
        return adapter.ImageBind().load()

    return load


def test_a_score_is_the_cosine_of_its_embeddings(load: Load) -> None:
    model, item = tiny(), clip()
    scores, rows = judged(load(model), [item])
    with torch.inference_mode():
        audio = model.embed_audio(imagebind_mels(torch.from_numpy(item.wave)[None])[None])
        video = model.embed_video(imagebind_clips(torch.from_numpy(item.frames[adapter.PICTURE.key]))[None])
    assert torch.allclose(rows["audio"], audio, atol=1e-4)
    assert torch.allclose(rows["video"], video, atol=1e-5)
    cosine = float((audio @ video.T) / (audio.norm() * video.norm()))
    (score,) = scores
    assert score.value == pytest.approx(cosine, abs=1e-5)  # raw, not times 100
    assert (score.scorer, score.dimension, score.version) == ("imagebind", "similarity", "01234567-1")


def test_the_picture_is_seen_once_a_clip_and_order_is_no_matter(load: Load) -> None:
    model = tiny()
    seen: list[int] = []
    model.modality_trunks["vision"].register_forward_hook(lambda _m, inputs, _o: seen.append(len(inputs[0])))
    scorer, first, second = load(model), clip(1), clip(2)
    items = [first, second] + [replace(first, candidate_id=f"c{n}", wave=clip(n).wave) for n in (3, 4)]
    whole = {s.candidate_id: s.value for s in scores_of(scorer, items)}
    assert sum(seen) == 2 * 9
    backwards = {s.candidate_id: s.value for s in scores_of(scorer, items[::-1])}
    alone = {item.candidate_id: scores_of(scorer, [item])[0].value for item in items}
    assert whole == pytest.approx(backwards, abs=1e-6)
    assert whole == pytest.approx(alone, abs=1e-6)
    assert len({round(v or 0, 5) for v in whole.values()}) == 4
    video = scorer.judge(items).embeddings["video"]
    assert torch.equal(video[0], video[2])
    assert not torch.allclose(video[0], video[1])


def test_of_the_picture_the_evaluated_part_is_seen_and_of_the_sound_all_is_heard(load: Load) -> None:
    scorer, item = load(tiny()), clip(1, seconds=10.0)
    evaluated = replace(item, seconds=8.0)
    key = adapter.PICTURE.key
    other_end = np.concatenate([item.frames[key][:4], 255 - item.frames[key][4:]])
    rows = [
        scorer.judge([i]).embeddings for i in (evaluated, replace(evaluated, frames={key: other_end}), item)
    ]
    assert torch.equal(rows[0]["video"], rows[1]["video"])
    assert not torch.allclose(rows[0]["video"], rows[2]["video"], atol=1e-6)
    assert torch.equal(rows[0]["audio"], rows[2]["audio"])
    quiet_end = item.wave.copy()
    quiet_end[8 * SAMPLE_RATE :] *= 0.01
    heard = scorer.judge([replace(evaluated, wave=quiet_end)]).embeddings["audio"]
    assert not torch.allclose(heard, rows[0]["audio"], atol=1e-3)


def test_the_first_channel_is_heard_at_any_rate(load: Load) -> None:
    scorer, item = load(tiny()), clip(1, rate=44100)
    channels = np.stack([item.wave, clip(5, rate=44100).wave])
    stereo = replace(item, wave=channels.mean(0), channels=channels)
    resampled = resample(torch.from_numpy(item.wave), 44100, SAMPLE_RATE, HANN).numpy()
    at_16_khz = replace(item, wave=resampled, sample_rate=SAMPLE_RATE)
    rows = scorer.judge([item, stereo, at_16_khz]).embeddings["audio"]
    assert torch.allclose(rows[0], rows[1], atol=1e-3)
    assert torch.allclose(rows[0], rows[2], atol=1e-3)


def test_what_cannot_be_judged_is_unscored_and_changes_nobody_else(load: Load) -> None:
    scorer, good = load(tiny()), clip(1)
    key = adapter.PICTURE.key
    items = {
        "good": good,
        "silent": replace(good, wave=np.zeros_like(good.wave)),
        "no picture": replace(good, frames={}),
        "3.9 s are evaluated": replace(good, seconds=3.9),
        "lasts for 3 frames of 2 s": replace(good, frames={key: good.frames[key][:3]}),
        "lasts 0.02 s": replace(good, wave=good.wave[1000:1320]),
    }
    named = [replace(item, candidate_id=name, clip_id=name) for name, item in items.items()]
    scores, rows = judged(scorer, named)
    assert [s.candidate_id for s in scores] == list(items)
    assert scores[0].value == pytest.approx(scores_of(scorer, [good])[0].value)
    for score in scores[1:]:
        assert score.value is None
        assert score.candidate_id in score.reason
    for name in adapter.ImageBind.embeddings:
        assert rows[name].shape == (6, 12)
        assert rows[name].isnan().all(1).tolist() == [False, *[True] * 5]


def test_least_lengths() -> None:
    check_length(2, 400, SAMPLE_RATE, 4.0)
    with pytest.raises(ValueError, match=r"4 s at least; 3\.5 s are evaluated"):
        check_length(2, 400, SAMPLE_RATE, 3.5)
    with pytest.raises(ValueError, match=r"0\.025 s are the least"):
        check_length(2, 399, SAMPLE_RATE, 4.0)


def test_frames_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="frames are 200x260, the short side must be 224"):
        IBScore(tiny()).see(np.zeros((4, 200, 260, 3), np.uint8), 8.0)


@pytest.mark.parametrize("portrait", [False, True])
def test_from_a_file_to_a_score(tmp_path: Path, load: Load, *, portrait: bool) -> None:
    """The frames just before 1, 3, 5 and 7 s, with a short side of 224 and the long side whole."""
    size = (96, 64) if portrait else (64, 96)
    frames = np.repeat(np.arange(200, dtype=np.uint8), math.prod(size) * 3).reshape(-1, *size, 3)
    path = write_video(tmp_path / "ramp.mp4", frames, 25)
    scorer = load(tiny())
    found = read_streams(path, scorer.streams, duration_s=8.0)
    pixels = found[adapter.PICTURE.key]
    assert pixels.shape == ((4, 336, 224, 3) if portrait else (4, 224, 336, 3))
    assert np.abs(pixels.mean(axis=(1, 2, 3)) - [24, 74, 124, 174]).max() < 3
    item = replace(clip(1), frames=found)
    (score,) = scores_of(scorer, [item])
    assert score.value is not None
    assert -1 <= score.value <= 1


def test_the_published_file_is_asked_for_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    state: dict[str, Tensor] = {}
    monkeypatch.setattr(published, "load_published", lambda *args: asked.append(args) or state)
    with pytest.raises(ValueError, match="not the weights of ImageBind huge"):
        published.load_imagebind("somewhere")
    assert asked == [("imagebind_huge.pth", "somewhere")]
