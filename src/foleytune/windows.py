"""A soundtrack in windows: where they lie in a video, and how their sounds join without a seam."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

OVERLAP_S = 0.5
ONE_PASS = 1.5  # times the model's own length: up to here, a model of any length does it in one window


@dataclass(frozen=True)
class Windows:
    """Where windows of `seconds` start (s); neighbours share OVERLAP_S or, at the end, more."""

    starts: tuple[float, ...]
    seconds: float


def windows_for(
    duration_s: float, clip_seconds: float, any_length: bool, window_s: float | None = None
) -> Windows:
    """Cover `duration_s`: in windows of the model's own length, or all alike and just enough if it takes any.

    `window_s` is the longest window of a model of any length; None lets half as much again as `clip_seconds`
    go in one. Raises ValueError if the model has but one length or the window is not above the overlap.
    """
    if window_s is not None and not any_length:
        raise ValueError(f"window: this model makes {clip_seconds:g} s at a time, no other; leave it out")
    if window_s is not None and window_s <= 2 * OVERLAP_S:
        raise ValueError(f"window must be longer than {2 * OVERLAP_S:g} s, found {window_s:g}")
    longest = clip_seconds if window_s is None else window_s
    if any_length and duration_s <= (ONE_PASS * clip_seconds if window_s is None else window_s):
        return Windows((0.0,), duration_s)
    num = max(1, math.ceil((duration_s - OVERLAP_S) / (longest - OVERLAP_S) - 1e-9))
    seconds = (duration_s - OVERLAP_S) / num + OVERLAP_S if any_length else longest
    return Windows(tuple(i * (seconds - OVERLAP_S) for i in range(num)), seconds)


def cross_fade(pieces: Sequence[np.ndarray], starts: Sequence[float], rate: int) -> np.ndarray:
    """Overlap-add of windows (n,) that start at `starts` (s), with linear ramps that sum to one."""
    total = round(starts[-1] * rate) + len(pieces[-1])
    wave = np.zeros(total, np.float32)
    overlap = round(OVERLAP_S * rate)
    ramp = np.linspace(0, 1, overlap, dtype=np.float32)
    for index, (piece, start) in enumerate(zip(pieces, starts, strict=True)):
        begin = round(start * rate)
        end = total if index + 1 == len(pieces) else round(starts[index + 1] * rate) + overlap
        piece = piece[: end - begin].astype(np.float32).copy()
        if index > 0:
            piece[:overlap] *= ramp
        if index + 1 < len(pieces):
            piece[-overlap:] *= 1 - ramp
        wave[begin : begin + len(piece)] += piece
    return wave
