"""ImageBind and the IB-score: golden vectors, a tiny network end to end, the traps of the scorer."""

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
from foleypref.networks.resample import HANN, resample
from foleypref.published import imagebind as published
from foleypref.published.imagebind import (
    SAMPLE_RATE,
    IBScore,
    build_imagebind,
    check_length,
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
    frames = read_streams(path, scorer.streams, duration_s=8.0)
    pixels = frames[adapter.PICTURE.key]
    assert pixels.shape == ((4, 336, 224, 3) if portrait else (4, 224, 336, 3))
    assert np.abs(pixels.mean(axis=(1, 2, 3)) - [24, 74, 124, 174]).max() < 3
    item = replace(clip(1), frames=frames)
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
