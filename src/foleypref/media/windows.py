"""Cover a long sound with windows that overlap, and cross-fade the windows into one wave."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

OVERLAP_S = 0.5
ONE_PASS = 1.5  # times the model's own length: up to here, a model of any length needs only one window


@dataclass(frozen=True)
class Windows:
    """Start times (s) of windows of `seconds` each; neighbours share OVERLAP_S or, at the end, more."""

    starts: tuple[float, ...]
    seconds: float


def windows_for(
    duration_s: float, clip_seconds: float, any_length: bool, window_s: float | None = None
) -> Windows:
    """Cover `duration_s` with windows of `clip_seconds`, or of any one length if the model takes all lengths.

    `window_s` is the longest window of a model of any length; None allows one window up to half as much again
    as `clip_seconds`. Raises ValueError if a model of one length is given `window_s`, or if `window_s` is not
    above twice the overlap.
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


def cross_fade(waves: Sequence[np.ndarray], starts: Sequence[float], rate: int) -> np.ndarray:
    """Overlap-add windows (n,) that start at `starts` (s), with linear ramps that sum to one."""
    total = round(starts[-1] * rate) + len(waves[-1])
    joined = np.zeros(total, np.float32)
    overlap = round(OVERLAP_S * rate)
    ramp = np.linspace(0, 1, overlap, dtype=np.float32)
    for index, (wave, start) in enumerate(zip(waves, starts, strict=True)):
        begin = round(start * rate)
        end = total if index + 1 == len(waves) else round(starts[index + 1] * rate) + overlap
        piece = wave[: end - begin].astype(np.float32).copy()
        if index > 0:
            piece[:overlap] *= ramp
        if index + 1 < len(waves):
            piece[-overlap:] *= 1 - ramp
        joined[begin : begin + len(piece)] += piece
    return joined
