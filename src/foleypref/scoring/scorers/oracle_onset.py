"""Oracle: do the sounds start when they should? Onsets of the wave against the true event times.

Onsets are peaks of spectral flux (10 ms hop). Matching is one-to-one within 60 ms; the error of an event is
the distance to the nearest onset, at most 0.5 s. Clips without events, and those with a sound that starts
softly (a scrape, a texture), are unscored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from foleypref.scoring.scorers import PlainScorer, ScoreItem, is_silent
from foleypref.workspace.records import Score
from foleypref.world import FAMILIES

TOLERANCE_S = 0.06
MAX_ERROR_S = 0.5
HOP_S = 0.01
SOFT = ("scrape", "texture")  # families whose starts have no edge


class OracleOnset(PlainScorer):
    """onset_f1 in [0, 1]; onset_error_s in [0, 0.5] seconds."""

    needs: ClassVar[frozenset[str]] = frozenset({"audio", "truth"})
    dimensions: ClassVar[tuple[str, ...]] = ("onset_f1", "onset_error_s")
    higher_is_better: ClassVar[dict[str, bool]] = {"onset_f1": True, "onset_error_s": False}

    @property
    def version(self) -> str:
        """Raised when the definition changes."""
        return "1"

    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        """Two scores an item."""
        scores = []
        for item in items:
            truth = np.asarray(item.meta.get("event_times_s") or (), np.float64)
            reason = _unscored(truth, item.meta.get("labels", ()))
            f1, error = (None, None) if reason else agreement(onsets(item.wave, item.sample_rate), truth)
            for dimension, scored in (("onset_f1", f1), ("onset_error_s", error)):
                scores.append(Score.make(item.candidate_id, "oracle_onset", "1", dimension, scored, reason))
        return scores


def _unscored(truth: np.ndarray, labels: Sequence[str]) -> str:
    if len(truth) == 0:
        return "the clip's truth has no events"
    return "a sound that starts softly" if any(FAMILIES.get(name) in SOFT for name in labels) else ""


def onsets(wave: np.ndarray, sample_rate: int) -> np.ndarray:
    """Onset times in seconds: peaks of the rectified rise of log-compressed band energy."""
    if is_silent(wave):
        return np.zeros(0)
    hop, size = round(HOP_S * sample_rate), round(0.032 * sample_rate)
    padded = np.pad(wave.astype(np.float64), (size // 2, size))
    starts = np.arange(0, len(wave), hop)
    frames = padded[starts[:, None] + np.arange(size)] * np.hanning(size)
    spectrum = np.abs(np.fft.rfft(frames, axis=1))
    bands = np.stack([s.mean(1) for s in np.array_split(spectrum[:, 1:], 32, axis=1)], axis=1)
    level = np.log1p(1000 * bands / max(1e-9, float(np.percentile(bands, 99.5))))
    rise = np.maximum(level[2:] - level[:-2], 0).mean(1)
    flux = np.concatenate([[level[0].mean()], rise, [0.0]])
    return (_peaks(flux) + 1) * HOP_S  # a 32 ms window meets an attack about one hop before its centre does


def _peaks(flux: np.ndarray, gap: int = 10) -> np.ndarray:
    """Indices that top their neighbourhood and stand out of it: 100 ms apart at least."""
    width = 3
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(flux, width), 2 * width + 1)
    local = np.lib.stride_tricks.sliding_window_view(np.pad(flux, 15, mode="reflect"), 31).mean(1)
    strong = (flux >= windows.max(1)) & (flux > local + 0.3 * flux.max()) & (flux > 0.15)
    found: list[int] = []
    for index in np.flatnonzero(strong):
        if not found or index - found[-1] >= gap:
            found.append(int(index))
    return np.asarray(found, np.float64)


def agreement(found: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """F1 of one-to-one matches within the tolerance, and the mean distance from each event to an onset."""
    if len(truth) == 0 or len(found) == 0:
        return 0.0, MAX_ERROR_S
    distance = np.abs(truth[:, None] - found[None, :])
    error = float(np.minimum(distance.min(1), MAX_ERROR_S).mean())
    matches, used = 0, set()
    for row, column in sorted(
        np.argwhere(distance <= TOLERANCE_S).tolist(), key=lambda rc: distance[rc[0], rc[1]]
    ):
        if ("t", row) not in used and ("f", column) not in used:
            used |= {("t", row), ("f", column)}
            matches += 1
    return 2 * matches / (len(truth) + len(found)), error
