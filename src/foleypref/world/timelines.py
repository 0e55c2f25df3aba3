"""When and how hard each class sounds: onsets, durations, strengths, and the curve a level follows.

All times are seconds on the frame grid (multiples of 1/25 s): what is heard is then exactly what is seen, and
"the frame of contact" is never ambiguous. A driver is one number in [0, 1] per frame.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from foleypref.world import FPS, NUM_FRAMES

FRAME_TIMES_S = np.arange(NUM_FRAMES) / FPS


@dataclass(frozen=True)
class Timeline:
    """The events of one object, and the curves its sound and picture follow.

    onsets_s, durations_s, strengths: one entry per event (strength in (0, 1]).
    driver: level curve in [0, 1], 100 frames, empty for classes made of events.
    pose: position of a moving part in [-1, 1], 100 frames, empty where nothing travels.
    has_events: whether the onsets are heard as clear starts, and so belong to the truth.
    """

    onsets_s: tuple[float, ...] = ()
    durations_s: tuple[float, ...] = ()
    strengths: tuple[float, ...] = ()
    driver: tuple[float, ...] = ()
    pose: tuple[float, ...] = ()
    has_events: bool = True


def _grid(times_s: list[float]) -> tuple[float, ...]:
    """Put times on the frame grid, drop repeats, sort."""
    return tuple(f / FPS for f in sorted({round(t * FPS) for t in times_s}))


def _curve(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(round(float(v), 4) for v in values)


def strikes(most: int, gap_s: float, length_s: tuple[float, float], last_s: float = 3.6) -> Callable:
    """Make a sampler of 1..most separate events at least `gap_s` + their own length apart."""

    def draw(rng: np.random.Generator) -> Timeline:
        count = int(rng.integers(1, most + 1))
        lengths = rng.uniform(*length_s, size=count)
        if rng.random() < 0.35:  # a steady beat, as people and machines often keep
            lengths[:] = lengths[0]
        need = lengths + gap_s
        while need.sum() > last_s - 0.4 and count > 1:
            count, need, lengths = count - 1, need[:-1], lengths[:-1]
        slack = max(0.0, last_s - 0.4 - need.sum())
        if rng.random() < 0.5:
            waits = rng.dirichlet(np.ones(count + 1)) * slack
        else:  # evenly spread, with a random start
            waits = np.full(count + 1, slack * rng.uniform(0.2, 1.0) / (count + 1))
        onsets = 0.4 + np.cumsum(waits[:count]) + np.concatenate([[0.0], np.cumsum(need[:-1])])
        times = _grid(list(onsets))
        strengths = rng.uniform(0.5, 1.0, size=len(times))
        lengths_f = np.maximum(1, np.round(lengths[: len(times)] * FPS)) / FPS
        return Timeline(times, _curve(lengths_f), _curve(strengths))

    return draw


def bounces(keep: float) -> Callable:
    """Make a sampler of a ball that is dropped (gaps and strengths shrink by about `keep`) or dribbled."""

    def draw(rng: np.random.Generator) -> Timeline:
        t, gap = float(rng.uniform(0.44, 1.2)), float(rng.uniform(0.45, 0.85))
        decay = 1.0 if rng.random() < 0.35 else keep * float(rng.uniform(0.88, 1.08))
        times, strengths, power = [t], [1.0], 1.0
        for _ in range(int(rng.integers(1, 7))):
            t, gap, power = t + gap, gap * decay, power * decay
            if t > 3.7 or gap < 0.1:
                break
            times.append(t)
            strengths.append(max(0.15, power))
        onsets = _grid(times)
        return Timeline(onsets, (0.04,) * len(onsets), _curve(strengths[: len(onsets)]))

    return draw


def strokes(length_s: tuple[float, float], pause_s: float, fast: float, has_events: bool = True) -> Callable:
    """Make a sampler of back and forth strokes; the driver is the speed, `fast` (1/s) being full level."""

    def draw(rng: np.random.Generator) -> Timeline:
        pose, speed = np.zeros(NUM_FRAMES), np.zeros(NUM_FRAMES)
        frame, here, side = int(rng.integers(4, 24)), -float(rng.uniform(0.5, 1.0)), 1.0
        pose[:], onsets, lengths, powers = here, [], [], []
        base, stop = rng.uniform(*length_s), int(rng.integers(60, 97))
        while frame < stop:
            n = max(5, round(base * float(rng.uniform(0.8, 1.25)) * FPS))
            there = side * float(rng.uniform(0.5, 1.0))
            # The root of a half sine: a stroke gets going within a frame or two, so that its start is heard.
            pull = np.sqrt(np.sin(np.pi * (np.arange(n) + 0.5) / n))
            end = min(NUM_FRAMES, frame + n)
            pose[frame:end] = (here + (there - here) * (np.cumsum(pull) - pull) / pull.sum())[: end - frame]
            peak = abs(there - here) * FPS / pull.sum() / fast
            speed[frame:end] = (peak * pull)[: end - frame]
            pose[end:] = there
            onsets.append(frame / FPS)
            lengths.append(n / FPS)
            powers.append(min(1.0, peak))
            rest = round(float(rng.uniform(0, pause_s)) * FPS)
            frame, here, side = frame + n + rest, there, -side
        driver = _curve(np.clip(speed, 0.0, 1.0))
        return Timeline(tuple(onsets), tuple(lengths), _curve(powers), driver, _curve(pose), has_events)

    return draw


def swells(rng: np.random.Generator) -> Timeline:
    """Draw a level curve: it starts (and perhaps stops), swells, or sways."""
    t, kind = FRAME_TIMES_S, rng.random()
    if kind < 0.4:  # a clear start: the only kind with an event
        on = round(float(rng.uniform(0.4, 1.8)) * FPS)
        off = round(float(rng.uniform(2.2, 5.0)) * FPS)
        k = np.arange(NUM_FRAMES)
        rise, fall = np.clip((k - on + 2) / 4 * (k >= on), 0, 1), np.clip((off - k) / 5, 0, 1)
        curve = rise * fall * rng.uniform(0.7, 1.0)
        curve *= 1 - 0.2 * np.sin(2 * np.pi * (rng.uniform(0.3, 1.0) * t + rng.random())) ** 2
        return Timeline((on / FPS,), (min(4.0, off / FPS) - on / FPS,), (1.0,), _curve(curve))
    if kind < 0.7:
        curve = np.full(NUM_FRAMES, rng.uniform(0.1, 0.3))
        for _ in range(int(rng.integers(1, 3))):
            bump = np.exp(-0.5 * ((t - rng.uniform(0.6, 3.4)) / rng.uniform(0.25, 0.6)) ** 2)
            curve = np.maximum(curve, bump * rng.uniform(0.7, 1.0))
    else:
        rate, depth = rng.uniform(0.3, 0.9), rng.uniform(0.5, 0.8)
        curve = 1 - depth * (0.5 + 0.5 * np.sin(2 * np.pi * (rate * t + rng.random())))
    return Timeline(driver=_curve(np.clip(curve, 0, 1)))


def swings(rng: np.random.Generator) -> Timeline:
    """Draw the strikes of a swinging bell: steady, first louder then softer; pose is the swing angle."""
    half = round(float(rng.uniform(0.48, 0.96)) * FPS)  # frames from one side to the other
    first = int(rng.integers(8, 20))
    frames = list(range(first, 94, half))[: int(rng.integers(2, 8))]
    k = np.arange(NUM_FRAMES)
    pose = np.cos(np.pi * (k - first) / half) * (k >= first - half)
    rise, fall = (k - first + half) / half, 1.8 - (k - frames[-1]) / (2.5 * half)
    pose *= np.clip(rise, 0, 1) * np.clip(fall, 0, 1)
    powers = np.linspace(1.0, rng.uniform(0.5, 1.0), len(frames))
    onsets = tuple(f / FPS for f in frames)
    return Timeline(onsets, (half / FPS,) * len(frames), _curve(powers), pose=_curve(pose))


def syllables(rng: np.random.Generator) -> Timeline:
    """Draw speech: words of one to four syllables with pauses between them."""
    frame, onsets, lengths, stop = int(rng.integers(5, 25)), [], [], int(rng.integers(55, 94))
    pace = float(rng.uniform(0.8, 1.3))
    while frame < stop:
        for _ in range(int(rng.integers(1, 5))):
            n = max(3, round(float(rng.uniform(0.14, 0.26)) * pace * FPS))
            if frame + n > 98:
                break
            onsets.append(frame / FPS)
            lengths.append(n / FPS)
            frame += n + int(rng.integers(1, 3))
        frame += int(rng.integers(4, 14))
    return Timeline(tuple(onsets), tuple(lengths), _curve(rng.uniform(0.6, 1.0, size=len(onsets))))


_STRIKE = strikes(6, 0.32, (0.04, 0.3))
TIMELINES: dict[str, Callable[[np.random.Generator], Timeline]] = {
    "basketball": bounces(0.82),
    "marble": bounces(0.72),
    "wood_block": _STRIKE,
    "metal_plate": strikes(4, 0.5, (0.04, 0.5)),
    "wine_glass": strikes(4, 0.44, (0.04, 0.4)),
    "drum": _STRIKE,
    "plastic_bucket": _STRIKE,
    "saw": strokes((0.3, 0.55), 0.1, 8.0),
    "broom": strokes((0.4, 0.7), 0.4, 6.0),
    "door_creak": strokes((0.7, 1.3), 0.5, 3.2),
    "rolling_ball": strokes((0.7, 1.3), 0.0, 3.2, has_events=False),
    "balloon_pop": strikes(2, 0.9, (0.04, 0.6)),
    "clap": strikes(6, 0.3, (0.04, 0.3)),
    "splash": strikes(2, 0.9, (0.04, 0.5), last_s=3.3),
    "firework": strikes(2, 0.9, (0.04, 0.6), last_s=3.2),
    "rain": swells,
    "fire": swells,
    "wind": swells,
    "engine": swells,
    "waterfall": swells,
    "bird": strikes(6, 0.16, (0.12, 0.32)),
    "dog": strikes(4, 0.24, (0.16, 0.3)),
    "frog": strikes(4, 0.3, (0.24, 0.5)),
    "bell": swings,
    "car_horn": strikes(3, 0.2, (0.16, 0.8)),
    "low_voice": syllables,
    "high_voice": syllables,
}
