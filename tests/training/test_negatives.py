"""The effect of each rule, on streams whose content shows its place: clicks, ramps, numbered rows."""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from foleypref.flow.convention import generator_of
from foleypref.training.negatives import Kind, Negative, Stream
from foleypref.training.negatives.freeze import Freeze
from foleypref.training.negatives.mute import Mute
from foleypref.training.negatives.replace import Replace
from foleypref.training.negatives.scale import Scale
from foleypref.training.negatives.shift import Shift
from foleypref.training.negatives.shuffle import Shuffle
from foleypref.training.negatives.speed import Speed

RATE = {"wave": 2000.0, "latents": 25.0, "frames": 10.0}
SECONDS = 4.0
CLICKS_S = tuple(0.28 + 0.4 * i for i in range(9))


def clicks(kind: Kind, width: int = 1) -> Stream:
    """4 s with a click every 0.4 s, `width` steps long: in latents an indicator."""
    num = round(SECONDS * RATE[kind])
    x = torch.zeros(num) if kind == "wave" else torch.zeros(num, 3)
    for t in CLICKS_S:
        x[round(t * RATE[kind]) : round(t * RATE[kind]) + width] = 0.9
    return Stream(x, RATE[kind], kind)


def times_of(stream: Stream, x: Tensor) -> list[float]:
    """Seconds of the local maxima above a third of a click."""
    level = x.abs() if x.ndim == 1 else x.abs()[:, 0]
    padded = torch.cat([level.new_zeros(1), level, level.new_zeros(1)])
    peak = (level > 0.3) & (level >= padded[:-2]) & (level > padded[2:])
    return [i / stream.rate for i in peak.nonzero().flatten().tolist()]


def numbered(num: int = 100, rate: float = 25.0) -> Stream:
    """Latents whose row i is i: what comes out says which moment was read."""
    return Stream(torch.arange(num, dtype=torch.float32)[:, None].repeat(1, 2), rate, "latents")


def noise(kind: Kind, seed: int = 0) -> Stream:
    num, generator = round(SECONDS * RATE[kind]), generator_of("noise", seed)
    if kind == "frames":
        x = torch.randint(0, 256, (num, 4, 4, 3), generator=generator, dtype=torch.uint8)
        return Stream(x, RATE[kind], kind, "video")
    x = 0.2 * torch.randn((num,) if kind == "wave" else (num, 6), generator=generator)
    return Stream(x.clamp(-1, 1), RATE[kind], kind)


def db(x: Tensor) -> float:
    return float(10 * x.double().square().mean().log10())


# -- shift ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["wave", "latents"])
@pytest.mark.parametrize("severity", [0.1, 0.35, 1.0])
@pytest.mark.parametrize(("direction", "sign"), [("later", 1), ("earlier", -1)])
def test_a_shift_moves_every_click_by_the_stated_seconds(
    kind: Kind, severity: float, direction: str, sign: int
) -> None:
    rule, stream = Shift(min_s=0.2, max_s=1.5, direction=direction), clicks(kind)
    seconds = 0.2 + severity * 1.3
    by = rule.steps(stream, severity) / stream.rate
    assert by == pytest.approx(seconds, abs=0.501 / stream.rate)
    found = times_of(stream, rule.distort(stream, severity, generator_of(0)))
    wanted = [t + sign * by for t in CLICKS_S]
    edge = by if sign > 0 else SECONDS - by
    here = [t for t in found if (t > edge + 0.02 if sign > 0 else t < edge - 0.02)]
    there = [t for t in wanted if 0 <= t < SECONDS]
    assert here == pytest.approx(there, abs=1e-6)


def test_a_shift_goes_both_ways_and_never_beyond_half_of_the_clip() -> None:
    rule, stream = Shift(max_s=9.0), numbered()
    assert rule.steps(stream, 1.0) == 50
    assert rule.steps(stream, 1e-6) in (2, 3)  # 0.1 s of 40 ms steps
    assert Shift(min_s=0.0).steps(stream, 1e-6) == 1
    last = [rule.distort(stream, 0.1, generator_of(seed))[60, 0].item() for seed in range(40)]
    assert {value > 60 for value in last} == {True, False}


@pytest.mark.parametrize("direction", ["later", "earlier"])
@pytest.mark.parametrize("severity", [0.05, 0.3, 1.0])
def test_the_filling_runs_forwards_and_is_out_of_step(direction: str, severity: float) -> None:
    rule, stream = Shift(direction=direction), noise("latents")
    by = rule.steps(stream, severity)
    out = rule.distort(stream, severity, generator_of(0))
    filling = slice(0, by) if direction == "later" else slice(100 - by, 100)
    read = [int((stream.x == row).all(1).nonzero()) for row in out]
    places = read[filling]
    assert places == list(range(places[0], places[0] + by))
    assert all(abs(place - step) >= by - 1 for step, place in enumerate(read))


@pytest.mark.parametrize("kind", ["wave", "latents", "frames"])
@pytest.mark.parametrize("fill", ["join", "reflect"])
def test_no_edge_of_silence_gives_a_shift_away(kind: Kind, fill: str) -> None:
    rule, stream = Shift(fill=fill), noise(kind)
    by = rule.steps(stream, 0.5)
    for seed in range(6):
        out = rule.distort(stream, 0.5, generator_of(seed))
        for part in (out[:by], out[-by:]):
            assert abs(db(part) - db(stream.x)) < 1.5


def test_the_filling_joins_better_than_a_loop_does() -> None:
    better = 0
    for seed in range(40):
        walk = 0.3 * torch.randn(100, 4, generator=generator_of("walk", seed))
        stream = Stream(walk.cumsum(0), 25.0, "latents")
        rule = Shift(direction="later", max_s=1.0)
        by = rule.steps(stream, 1.0)
        out = rule.distort(stream, 1.0, generator_of(0))
        loop = stream.x.roll(by, 0)
        better += bool((out[by] - out[by - 1]).norm() <= (loop[by] - loop[by - 1]).norm())
    assert better >= 36


def test_reflection_has_no_seam_and_runs_backwards() -> None:
    out = Shift(fill="reflect", direction="later", max_s=1.0).distort(numbered(), 1.0, generator_of(0))
    assert out[:, 0].tolist() == [*range(25, 0, -1), *range(75)]


def test_what_follows_in_the_source_is_used_before_anything_else() -> None:
    source = noise("latents").x
    stream = Stream(source[:60], 25.0, "latents", after=source[60:90])
    out = Shift(direction="earlier", max_s=1.0).distort(stream, 1.0, generator_of(0))
    assert torch.equal(out, source[25:85])


def test_a_cut_in_a_wave_has_no_click() -> None:
    tone = torch.sin(2 * math.pi * 50 * torch.arange(8000) / 2000) * 0.5
    stream = Stream(tone, 2000.0, "wave")
    largest = (tone[1:] - tone[:-1]).abs().max()
    for seed in range(10):
        for rule in (Shift(), Shuffle(), Freeze()):
            out = rule.distort(stream, 0.6, generator_of(seed))
            assert (out[1:] - out[:-1]).abs().max() < 1.6 * largest


# -- speed, scale --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("severity", [0.25, 0.5, 1.0])
def test_speed_changes_intervals_inside_the_span_as_stated(severity: float) -> None:
    rule = Speed()
    factor, leads = 2**severity, set()
    for seed in range(12):
        read = rule.distort(numbered(400, 100.0), severity, generator_of(seed))[:, 0].double()
        course = read[1:] - read[:-1]
        fast = (course - factor).abs() < 1e-3
        slow = (course - 1 / factor).abs() < 1e-3
        plain = (course - 1).abs() < 1e-3
        assert int(fast.sum() + slow.sum() + plain.sum()) >= 398  # but for the step with the turn
        assert (fast.sum() + slow.sum()) / 400 == pytest.approx(2 / 3, abs=0.02)
        assert float(slow.sum() / fast.sum()) == pytest.approx(factor, rel=0.05)
        assert (read[0], read[-1]) == (0, 399)
        assert (course > 0).all()
        leads.add(bool(fast.nonzero()[0] < slow.nonzero()[0]))
    assert leads == {True, False}


@pytest.mark.parametrize("kind", ["wave", "latents"])
def test_clicks_come_as_often_as_the_speed_says(kind: Kind) -> None:
    stream = clicks(kind, width=2)  # a higher speed may pass over one step
    found = times_of(stream, Speed(share=1.0).distort(stream, 1.0, generator_of(1)))
    gaps = [b - a for a, b in itertools.pairwise(found)]
    assert {0.2, 0.8} <= {round(gap, 1) for gap in gaps}
    assert all(min(abs(gap - g) for g in (0.2, 0.8)) < 0.05 or 0.2 < gap < 0.8 for gap in gaps)


@pytest.mark.parametrize(("direction", "exponent"), [("faster", 1), ("slower", -1)])
@pytest.mark.parametrize("severity", [0.25, 1.0])
def test_scale_changes_every_interval_by_its_factor(direction: str, exponent: int, severity: float) -> None:
    rule = Scale(direction=direction)
    factor = 2 ** (severity * exponent)
    read = rule.distort(numbered(400, 100.0), severity, generator_of(0))[:, 0].double()
    course = read[1:] - read[:-1]
    assert int(((course - factor).abs() < 1e-3).sum()) >= 395  # but for the seams of the filling
    wave = clicks("wave", width=2)
    found = times_of(wave, rule.distort(wave, severity, generator_of(0)))
    gaps = sorted(b - a for a, b in itertools.pairwise(found))
    assert gaps[len(gaps) // 2] == pytest.approx(0.4 / factor, abs=0.01)


@pytest.mark.parametrize("severity", [0.25, 1.0])
def test_scale_of_amplitude_is_a_gain_in_db_and_for_waves(severity: float) -> None:
    rule, wave = Scale(mode="amplitude"), noise("wave")
    out = rule.distort(wave, severity, generator_of(0))
    assert db(out) - db(wave.x) == pytest.approx(-20 * severity, abs=1e-3)
    with pytest.raises(ValueError, match="latents have no amplitude"):
        rule.distort(noise("latents"), severity, generator_of(0))
    with pytest.raises(ValueError, match="scale acts on audio, found video"):
        rule.distort(noise("frames"), severity, generator_of(0))


@pytest.mark.parametrize("rule", [Shift(), Scale(), Speed(), Shuffle(), Freeze()])
def test_every_frame_is_a_frame_of_the_clip(rule: Negative) -> None:
    stream = noise("frames")
    out = rule.distort(stream, 0.7, generator_of(3))
    for frame in out:
        assert any(torch.equal(frame, known) for known in stream.x)


# -- shuffle, freeze -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("severity", "moved"), [(0.01, 2), (0.5, 4), (1.0, 8)])
@pytest.mark.parametrize("num", [100, 83])
def test_shuffle_keeps_the_segments_and_moves_as_many_as_stated(
    severity: float, moved: int, num: int
) -> None:
    rule, stream = Shuffle(), numbered(num)
    bounds = rule.bounds(num)
    segments = [list(range(a, b)) for a, b in itertools.pairwise(bounds)]
    for seed in range(10):
        read = rule.distort(stream, severity, generator_of(seed))[:, 0].int().tolist()
        assert sorted(read) == list(range(num))
        found, at = [], 0
        while at < num:
            (segment,) = [s for s in segments if s[0] == read[at]]
            assert read[at : at + len(segment)] == segment
            found.append(segments.index(segment))
            at += len(segment)
        assert sum(place != index for place, index in enumerate(found)) == moved


@pytest.mark.parametrize("kind", ["frames", "latents"])
@pytest.mark.parametrize("severity", [0.3, 1.0])
def test_frozen_frames_are_equal_and_the_others_untouched(kind: Kind, severity: float) -> None:
    stream = noise(kind)
    out = Freeze(grain_s=0.0).distort(stream, severity, generator_of(2))
    changed = (out != stream.x).flatten(1).any(1).nonzero().flatten().tolist()
    held = [changed[0] - 1, *changed]  # the first of the span is the frame that is held
    assert held == list(range(held[0], held[0] + round(severity * len(stream))))
    assert all(torch.equal(out[i], stream.x[held[0]]) for i in held)


def test_a_grain_swings_to_and_fro() -> None:
    rule, seen = Freeze(grain_s=0.2), set()
    for seed in range(20):
        read = rule.distort(numbered(), 1.0, generator_of(seed))[:, 0].int().tolist()
        grain = max(read) + 1
        cycle = [*range(grain), *range(grain - 2, 0, -1)]
        assert read == [cycle[i % len(cycle)] for i in range(100)]
        seen.add(grain)
    assert seen == {1, 2, 3, 4, 5}  # 0.2 s of 40 ms


def test_a_frozen_wave_repeats_and_does_not_fall_silent() -> None:
    stream = noise("wave")
    out = Freeze(grain_s=0.1).distort(stream, 1.0, generator_of(0))
    period = 2 * 200 - 2
    assert torch.equal(out[period:], out[:-period])
    assert abs(db(out) - db(stream.x)) < 2


# -- mute, replace -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("severity", [0.25, 1.0])
def test_mute_takes_a_span_down_by_54_db(severity: float) -> None:
    stream = noise("wave")
    out = Mute().distort(stream, severity, generator_of(1))
    ratio = 20 * (out / stream.x).log10()
    down = ratio < -53.99
    assert int(down.sum()) == pytest.approx(severity * len(stream), abs=2 * 0.01 * stream.rate + 1)
    inside = down.nonzero().flatten()
    assert int(inside[-1] - inside[0]) + 1 == len(inside)
    assert ratio[inside].max() == pytest.approx(-54, abs=0.01)
    assert int((ratio.abs() < 1e-6).sum()) == round((1 - severity) * len(stream))


def test_mute_as_gain_is_the_severity_s_share_of_its_depth() -> None:
    stream = noise("wave")
    for severity in (0.25, 1.0):
        out = Mute(mode="gain").distort(stream, severity, generator_of(1))
        assert db(out) - db(stream.x) == pytest.approx(-54 * severity, abs=1e-3)
    assert math.isclose(10 ** (-54 / 20), 0.002, rel_tol=0.01)  # the published mask


def test_mute_in_latents_reaches_silence_in_the_span_and_nothing_outside() -> None:
    stream = noise("latents")
    quiet = torch.arange(600.0).reshape(100, 6)
    out = Mute().distort(replace(stream, silence=quiet), 0.4, generator_of(0))
    silent = (out == quiet).all(1)
    assert int(silent.sum()) == 40
    assert torch.equal(out[~silent], stream.x[~silent])
    half = Mute(mode="gain").distort(replace(stream, silence=quiet), 0.5, generator_of(0))
    torch.testing.assert_close(half, (stream.x + quiet) / 2)


@pytest.mark.parametrize("kind", ["latents", "frames"])
@pytest.mark.parametrize("severity", [0.3, 1.0])
def test_replace_brings_the_other_clip_s_content_at_its_time(kind: Kind, severity: float) -> None:
    stream, other = noise(kind), noise(kind, seed=1)
    out = Replace().distort(replace(stream, other=other.x), severity, generator_of(0))
    new = (out == other.x).flatten(1).all(1)
    assert int(new.sum()) == round(severity * len(stream))
    assert torch.equal(out[~new], stream.x[~new])


def test_a_replaced_span_of_a_wave_fades_inside_itself() -> None:
    stream = Stream(torch.zeros(8000), 2000.0, "wave", other=torch.ones(8000))
    out = Replace().distort(stream, 0.5, generator_of(0))
    assert int((out > 0).sum()) == 4000
    assert int((out == 1).sum()) == 4000 - 2 * 20
    assert (out[1:] - out[:-1]).abs().max() < 0.06
    assert torch.equal(Replace().distort(stream, 1.0, generator_of(0)), torch.ones(8000))


def test_the_rule_in_the_guide_works() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "extend.md").read_text()
    (block,) = [b for b in re.findall(r"```python\n(.*?)```", guide, re.S) if "(Negative)" in b]
    namespace: dict[str, Any] = {"__name__": "guide"}
    exec(compile(block, "extend.md", "exec"), namespace)
    read = namespace["Reverse"]().distort(numbered(), 0.4, generator_of(0))[:, 0].int().tolist()
    moved = [step for step, place in enumerate(read) if step != place]
    assert read[moved[0] : moved[-1] + 1] == list(range(moved[-1], moved[0] - 1, -1))
    assert moved[-1] - moved[0] + 1 == 40
    assert torch.equal(namespace["Reverse"]().distort(numbered(), 0, generator_of(0)), numbered().x)
