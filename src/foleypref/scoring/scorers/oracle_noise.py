"""Oracle: the noise floor, the 10th percentile of 20 ms frame levels, absolute and above the truth's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from foleypref.scoring.scorers import Judgement, ScoreItem, Scorer, Unscored, Value

FRAME_S = 0.02
FLOOR_DB = -100.0


class OracleNoise(Scorer):
    """noise_floor_db in dBFS; noise_excess_db over the clip's clean sound, 0 where it is below."""

    needs: ClassVar[frozenset[str]] = frozenset({"audio", "truth"})
    higher_is_better: ClassVar[dict[str, bool]] = {"noise_floor_db": False, "noise_excess_db": False}
    version: ClassVar[str] = "1"  # raised when the definition changes

    def judge(self, items: Sequence[ScoreItem]) -> Judgement:
        """Measure the floor of each sound; the excess is unscored where the truth has no floor."""
        floors = [noise_floor_db(item.wave, item.sample_rate) for item in items]
        excesses = [_excess_db(floor, item) for floor, item in zip(floors, items)]
        return Judgement({"noise_floor_db": [*floors], "noise_excess_db": excesses}, {})


def _excess_db(floor: float, item: ScoreItem) -> Value:
    true_floor = item.meta.get("noise_floor_db")
    if true_floor is None:
        return Unscored("the clip's truth has no noise floor")
    return max(0.0, floor - float(true_floor))


def noise_floor_db(wave: np.ndarray, sample_rate: int) -> float:
    """Return the 10th percentile of the levels of 20 ms frames, in dBFS, at least -100."""
    size = round(FRAME_S * sample_rate)
    frames = wave[: len(wave) // size * size].reshape(-1, size).astype(np.float64)
    if len(frames) == 0:
        return FLOOR_DB
    power = np.mean(frames**2, axis=1)
    return float(np.percentile(10 * np.log10(power + 10 ** (FLOOR_DB / 10)), 10))
