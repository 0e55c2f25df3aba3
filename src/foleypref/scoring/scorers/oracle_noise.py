"""Oracle: the noise floor, the 10th percentile of 20 ms frame levels, alone and over the truth's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from foleypref.scoring.scorers import PlainScorer, ScoreItem
from foleypref.workspace.records import Score

FRAME_S = 0.02
FLOOR_DB = -100.0


class OracleNoise(PlainScorer):
    """noise_floor_db in dBFS; noise_excess_db over the clip's clean sound, 0 where it is below."""

    needs: ClassVar[frozenset[str]] = frozenset({"audio", "truth"})
    dimensions: ClassVar[tuple[str, ...]] = ("noise_floor_db", "noise_excess_db")
    higher_is_better: ClassVar[dict[str, bool]] = {"noise_floor_db": False, "noise_excess_db": False}

    @property
    def version(self) -> str:
        """Raised when the definition changes."""
        return "1"

    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        """Two scores an item."""
        scores = []
        for item in items:
            floor = noise_floor_db(item.wave, item.sample_rate)
            true_floor = item.meta.get("noise_floor_db")
            excess = None if true_floor is None else max(0.0, floor - float(true_floor))
            reason = "" if true_floor is not None else "the clip's truth has no noise floor"
            scores.append(Score.make(item.candidate_id, "oracle_noise", "1", "noise_floor_db", floor))
            scores.append(
                Score.make(item.candidate_id, "oracle_noise", "1", "noise_excess_db", excess, reason)
            )
        return scores


def noise_floor_db(wave: np.ndarray, sample_rate: int) -> float:
    """10th percentile of the level of 20 ms frames, dBFS, not under -100."""
    size = round(FRAME_S * sample_rate)
    frames = wave[: len(wave) // size * size].reshape(-1, size).astype(np.float64)
    if len(frames) == 0:
        return FLOOR_DB
    power = np.mean(frames**2, axis=1)
    return float(np.percentile(10 * np.log10(power + 10 ** (FLOOR_DB / 10)), 10))
