"""Mean of one scored dimension over clips; NaN counts as unscored."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from foleypref.evaluation.metrics import Metric, Rows


class Mean(Metric):
    """The mean of `dimension` ("scorer/dimension") over the clips that have it, times `scale`."""

    dimension: str
    higher_is_better: bool = True
    scale: float = Field(1.0, gt=0)  # tables print ImageBind's cosine times 100
    label: str = ""  # column title; empty takes the dimension's own name
    unit: str = ""

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.dimension,)

    def value(self, rows: Rows) -> float:
        """Return the scaled mean over scored rows; NaN if there are none."""
        values = rows.scores[self.dimension][rows.scored(self.dimension)]
        return self.scale * float(values.mean(dtype=np.float64)) if values.size else float("nan")

    def num_scored(self, rows: Rows) -> int:
        return int(rows.scored(self.dimension).sum())
