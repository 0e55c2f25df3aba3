"""Oracle: does the level follow the picture? Correlation of the frame level with the true clean sound's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from foleypref.scoring.scorers import Judgement, ScoreItem, Scorer, Unscored, Value, is_silent

FLOOR_DB = -60.0


class OracleEnvelope(Scorer):
    """level_correlation in [-1, 1] of the 25 Hz level in dB; a steady true sound is unscored."""

    needs: ClassVar[frozenset[str]] = frozenset({"audio", "truth"})
    higher_is_better: ClassVar[dict[str, bool]] = {"level_correlation": True}
    version: ClassVar[str] = "1"  # raised when the definition changes

    def judge(self, items: Sequence[ScoreItem]) -> Judgement:
        """Correlate levels; a silent candidate gets 0."""
        return Judgement({"level_correlation": [_value(item) for item in items]}, {})


def _value(item: ScoreItem) -> Value:
    truth = np.maximum(np.asarray(item.meta.get("level_db") or (), np.float64), FLOOR_DB)
    if len(truth) == 0:
        return Unscored("the clip's truth has no level")
    if truth.std() < 1.0:
        return Unscored("the true sound is steady")
    return 0.0 if is_silent(item.wave) else _correlation(frame_level_db(item.wave, len(truth)), truth)


def frame_level_db(wave: np.ndarray, num_frames: int) -> np.ndarray:
    """Return the levels of `num_frames` equal frames of a wave, in dBFS, at least -60: (num_frames,)."""
    size = max(1, len(wave) // num_frames)
    frames = np.resize(wave[: size * num_frames], (num_frames, size)).astype(np.float64)
    return np.maximum(10 * np.log10(np.mean(frames**2, axis=1) + 1e-12), FLOOR_DB)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norm if norm > 1e-9 else 0.0
