"""AV-Align: flow of known shifts, peaks and ratios by hand, jumps and clicks at known times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from foleypref.scoring.scorers import ScoreItem, av_align
from foleypref.scoring.scorers.av_align import (
    AvAlign,
    intersection_over_union,
    motion,
    motion_peaks_s,
    optical_flow,
)
from tests.judged import scores_of
from tests.scoring.test_onset_scorer import clicks, fade

KEY = AvAlign().streams[0].key
TIMES = (0.6, 1.2, 2.0, 2.8)  # on the grid of frames


# -- motion ----------------------------------------------------------------------------------------------


def texture(dx: float = 0.0, dy: float = 0.0, side: int = 64) -> torch.Tensor:
    """A smooth grey picture (1, 1, side, side), moved by (dx, dy) pixels."""
    y, x = torch.meshgrid(torch.arange(side) - dy, torch.arange(side) - dx, indexing="ij")
    wave = 0.24 * torch.sin(2 * torch.pi * x / 16) * torch.cos(2 * torch.pi * y / 20)
    return (0.5 + wave + 0.12 * torch.sin(2 * torch.pi * (x + y) / 23))[None, None]


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.3, 0.0), (0.0, -0.8), (1.5, 0.7), (-3.0, 2.0), (5.0, 3.0)])
def test_the_flow_of_a_moved_picture_is_its_shift(shift: tuple[float, float]) -> None:
    inside = optical_flow(texture(), texture(*shift))[0, :, 8:-8, 8:-8]
    assert inside.mean((1, 2)).tolist() == pytest.approx(shift, abs=0.03)
    assert (inside - torch.tensor(shift)[:, None, None]).abs().mean() < 0.05


def test_only_what_moves_has_flow() -> None:
    before, after = texture(side=96).clone(), texture(side=96).clone()
    after[..., 32:64, 32:64] = texture(1.0, side=96)[..., 32:64, 32:64]
    flow = optical_flow(before, after)[0]
    assert flow[0, 40:56, 40:56].mean().item() == pytest.approx(1.0, abs=0.1)
    assert flow[:, :16].abs().max() < 0.02


def test_motion_is_in_short_sides_whatever_the_size() -> None:
    lengths = []
    for side in (48, 96):
        still = (255 * texture(side=64)[0, 0]).round().to(torch.uint8)
        moved = (255 * texture(1.5, side=64)[0, 0]).round().to(torch.uint8)
        frames = torch.stack([still, moved])[..., None].expand(-1, -1, -1, 3).movedim(-1, 1).float()
        resized = torch.nn.functional.interpolate(frames, (side, 2 * side), mode="bilinear", antialias=True)
        lengths.append(motion(resized.round().to(torch.uint8).movedim(1, -1).numpy()))
    assert all(values.shape == (1,) for values in lengths)
    assert lengths[0][0] == pytest.approx(lengths[1][0], rel=0.1)


def test_grain_on_flat_ground_is_hardly_motion() -> None:
    grain = np.random.default_rng(0).normal(128, 0.7, (30, 48, 48, 3)).round().astype(np.uint8)
    assert motion(grain).max() < AvAlign().least_motion
    assert motion(np.full((3, 48, 48, 3), 90, np.uint8)).max() == 0


def test_many_frames_are_measured_in_parts_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = jumps(TIMES, seconds=1.0)
    whole = motion(frames)
    monkeypatch.setattr(av_align, "PAIRS_AT_ONCE", 7)
    assert motion(frames) == pytest.approx(whole, abs=1e-7)
    assert len(whole) == 24


def test_peaks_are_local_maxima_dated_by_the_frame_that_shows_the_motion() -> None:
    flow = np.array([0.5, 0.0, 0.3, 0.0, 0.05, 0.0, 0.2, 0.2, 0.0, 0.4])
    # the ends have a neighbour on one side only; 0.05 is too little; a plateau counts once, at its start
    assert motion_peaks_s(flow, 0.1).tolist() == pytest.approx([3 / 25, 7 / 25])
    assert len(motion_peaks_s(flow, 0.0)) == 3


# -- the ratio -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("heard", "seen", "expected"),
    [
        ([1.0, 2.0], [1.0, 2.0], 1.0),
        ([1.0, 2.0], [1.04, 1.96], 1.0),  # a frame away still is a match
        ([1.0, 2.0], [1.05, 1.95], 0.0),
        ([1.0], [], 0.0),
        ([], [1.0], 0.0),
        ([1.0, 1.02], [1.01], 1 / 2),  # one to one
        ([1.0, 1.04], [1.02, 1.06], 1.0),
        ([1.0, 2.0, 3.0], [1.0, 4.0], 1 / 4),
    ],
)
def test_matches_over_all_there_are(heard: list[float], seen: list[float], expected: float) -> None:
    assert intersection_over_union(np.array(heard), np.array(seen), 0.04) == pytest.approx(expected)


def test_nothing_over_nothing_is_no_number() -> None:
    assert np.isnan(intersection_over_union(np.zeros(0), np.zeros(0), 0.04))


# -- the scorer ------------------------------------------------------------------------------------------


def jumps(times_s: Sequence[float], seconds: float = 4.0, side: int = 48) -> np.ndarray:
    """A bright blob on grey that jumps by two pixels, back and forth, in the frames at the given times."""
    y, x = np.mgrid[:side, :side]
    at, frames = 22.0, []
    moments = {round(time * 25) for time in times_s}
    for index in range(round(seconds * 25)):
        if index in moments:
            at = 24.0 if at == 22.0 else 22.0
        blob = np.exp(-((x - at) ** 2 + (y - 24) ** 2) / 40)
        frames.append(np.repeat((60 + 180 * blob)[..., None], 3, axis=2).round().astype(np.uint8))
    return np.stack(frames)


def item(sound_s: Sequence[float], picture_s: Sequence[float] = TIMES, rate: int = 16000) -> ScoreItem:
    return ScoreItem(
        "a", clicks(sound_s, rate), rate, frames={KEY: jumps(picture_s)}, seconds=4.0, clip_id="c"
    )


def value(scored: ScoreItem) -> float | None:
    return scores_of(AvAlign(), [scored])[0].value


def test_jumps_are_seen_when_they_happen() -> None:
    assert motion_peaks_s(motion(jumps(TIMES)), AvAlign().least_motion).tolist() == pytest.approx(TIMES)


@pytest.mark.parametrize("rate", [16000, 44100])
def test_clicks_on_the_jumps_are_aligned_and_late_ones_are_not(rate: int) -> None:
    assert value(item(TIMES, rate=rate)) == 1.0
    assert value(item([t + 0.02 for t in TIMES], rate=rate)) == 1.0
    assert value(item([t + 0.2 for t in TIMES], rate=rate)) == 0.0


def test_extra_and_missing_clicks_cost() -> None:
    assert value(item(TIMES[:2])) == pytest.approx(2 / 4)
    assert value(item([*TIMES, 0.25, 3.5])) == pytest.approx(4 / 6)
    assert value(item(TIMES, picture_s=[])) == 0.0


def test_only_the_evaluated_length_counts() -> None:
    assert value(replace(item(TIMES[:2]), seconds=1.6)) == 1.0  # both later jumps are cut off
    assert value(replace(item(TIMES), seconds=1.6)) == 1.0


def test_what_cannot_be_judged_is_unscored() -> None:
    good, still = item(TIMES), item(TIMES, picture_s=[])
    cases = {
        "silent": replace(good, wave=np.zeros(64000, np.float32)),
        "no motion picture": replace(good, frames={}),
        "neither": replace(still, wave=fade()),  # 0/0
    }
    cases["no motion picture "] = replace(good, frames={KEY: good.frames[KEY][:3]})
    for reason, scored in cases.items():
        score = scores_of(AvAlign(), [replace(scored, clip_id=reason)])[0]
        assert score.value is None
        assert reason.strip() in score.reason


def test_motion_is_measured_once_a_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(av_align, "motion", lambda frames: calls.append(len(frames)) or motion(frames))
    items = [replace(item(TIMES), candidate_id=f"{n}") for n in range(3)]
    items.insert(
        1, replace(item([], picture_s=TIMES[:1]), candidate_id="x", clip_id="other", wave=clicks(TIMES))
    )
    assert [s.value for s in scores_of(AvAlign(), items)] == [1.0, 0.25, 1.0, 1.0]
    assert len(calls) == 2


def test_settings_are_part_of_the_version_and_the_stream() -> None:
    larger = AvAlign(side=96)
    assert larger.streams[0].key != KEY
    assert len({larger.version, AvAlign().version, AvAlign(least_motion=0.01).version}) == 3
    with pytest.raises(ValueError, match="side"):
        AvAlign(side=3)
