"""Oracle: do the sounds start when they should? Onsets of the wave against the true event times.

Onsets are peaks of spectral flux (10 ms hop). Matching is one-to-one within 60 ms; the error of an event is
the distance to the nearest onset, at most 0.5 s. Clips without events, and those with a sound that starts
softly (a scrape, a texture), are unscored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import numpy as np

from foleypref.scoring.scorers import Judgement, ScoreItem, Scorer, Unscored, is_silent
from foleypref.world import FAMILIES

TOLERANCE_S = 0.06
MAX_ERROR_S = 0.5
HOP_S = 0.01
SOFT = ("scrape", "texture")  # families whose starts have no edge


class OracleOnset(Scorer):
    """onset_f1 in [0, 1]; onset_error_s in [0, 0.5] seconds."""

    needs: ClassVar[frozenset[str]] = frozenset({"audio", "truth"})
    higher_is_better: ClassVar[dict[str, bool]] = {"onset_f1": True, "onset_error_s": False}
    version: ClassVar[str] = "1"  # raised when the definition changes

    def judge(self, items: Sequence[ScoreItem]) -> Judgement:
        """Compare the onsets of each sound with its clip's event times."""
        return onset_judgement([_compare(item) for item in items])


class OnsetAgreement(NamedTuple):
    """How well onsets meet event times."""

    f1: float
    error_s: float  # from each event to the nearest onset, mean


def onset_judgement(compared: Sequence[OnsetAgreement | Unscored]) -> Judgement:
    """Return the judgement of a scorer whose dimensions are onset_f1 and onset_error_s."""
    f1 = [one if isinstance(one, Unscored) else one.f1 for one in compared]
    error = [one if isinstance(one, Unscored) else one.error_s for one in compared]
    return Judgement({"onset_f1": f1, "onset_error_s": error}, {})


def starts_softly(item: ScoreItem) -> bool:
    """True if one of the clip's true classes has no edge where it starts."""
    return any(FAMILIES.get(name) in SOFT for name in item.meta.get("labels", ()))


def _compare(item: ScoreItem) -> OnsetAgreement | Unscored:
    truth = np.asarray(item.meta.get("event_times_s") or (), np.float64)
    if len(truth) == 0:
        return Unscored("the clip's truth has no events")
    if starts_softly(item):
        return Unscored("a sound that starts softly")
    return agreement(onsets(item.wave, item.sample_rate), truth)


def onsets(wave: np.ndarray, sample_rate: int) -> np.ndarray:
    """Return onset times in seconds: peaks of the rectified rise of log-compressed band energy."""
    if is_silent(wave):
        return np.zeros(0)
    hop, size = round(HOP_S * sample_rate), round(0.032 * sample_rate)
    padded = np.pad(wave.astype(np.float64), (size // 2, size))
    starts = np.arange(0, len(wave), hop)
    frames = padded[starts[:, None] + np.arange(size)] * np.hanning(size)
    spectrum = np.abs(np.fft.rfft(frames, axis=1))
    bands = np.stack([band.mean(1) for band in np.array_split(spectrum[:, 1:], 32, axis=1)], axis=1)
    level = np.log1p(1000 * bands / max(1e-9, float(np.percentile(bands, 99.5))))
    rise = np.maximum(level[2:] - level[:-2], 0).mean(1)
    flux = np.concatenate([[level[0].mean()], rise, [0.0]])
    return (_peaks(flux) + 1) * HOP_S  # a 32 ms window meets an attack about one hop before its centre does


def _peaks(flux: np.ndarray, gap: int = 10) -> np.ndarray:
    """Return the indices of local maxima that stand out of their neighbourhood, at least 100 ms apart."""
    width = 3
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(flux, width), 2 * width + 1)
    local = np.lib.stride_tricks.sliding_window_view(np.pad(flux, 15, mode="reflect"), 31).mean(1)
    strong = (flux >= windows.max(1)) & (flux > local + 0.3 * flux.max()) & (flux > 0.15)
    peaks: list[int] = []
    for index in np.flatnonzero(strong):
        if not peaks or index - peaks[-1] >= gap:
            peaks.append(int(index))
    return np.asarray(peaks, np.float64)


def agreement(heard: np.ndarray, truth: np.ndarray) -> OnsetAgreement:
    """Return F1 and error of onsets against event times, both in s; matches lie within `TOLERANCE_S`."""
    if len(truth) == 0 or len(heard) == 0:
        return OnsetAgreement(0.0, MAX_ERROR_S)
    distance = np.abs(truth[:, None] - heard[None, :])
    error = float(np.minimum(distance.min(1), MAX_ERROR_S).mean())
    matches, used = 0, set()
    for row, column in sorted(
        np.argwhere(distance <= TOLERANCE_S).tolist(), key=lambda rc: distance[rc[0], rc[1]]
    ):
        if ("t", row) not in used and ("f", column) not in used:
            used |= {("t", row), ("f", column)}
            matches += 1
    return OnsetAgreement(2 * matches / (len(truth) + len(heard)), error)
