"""Coarse negatives first, subtle ones later: the curriculum of SyncDPO (arXiv 2605.12179).

The paper goes from coarse misalignment to subtle inconsistency; the form of its schedule is not known to us.
This one lowers the severity of negatives made by rule; stored pairs are picked as `uniform` picks them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from foleypref.training.curricula import Curriculum
from foleypref.workspace.records import Pair


class Ramp(Curriculum):
    """Severity goes from `first` to `last`, after a share `hold` of the steps at `first`.

    `kind` "stages" goes down in `num_stages` equal stairs; for the other kinds stages only group the logs.
    """

    first: float = Field(1.0, ge=0, le=1)
    last: float = Field(0.2, ge=0, le=1)
    kind: Literal["linear", "cosine", "stages"] = "linear"
    num_stages: int = Field(3, ge=2)
    hold: float = Field(0.0, ge=0, lt=1)

    def stage(self, pairs: Sequence[Pair], step: int, max_steps: int) -> int:
        """Return the stair that a step is on, counted from 0."""
        return min(int(self._progress(step, max_steps) * self.num_stages), self.num_stages - 1)

    def severity(self, step: int, max_steps: int) -> float:
        """Return the severity: `first` at the first step, `last` at the last one."""
        progress = self._progress(step, max_steps)
        if self.kind == "stages":
            progress = self.stage((), step, max_steps) / (self.num_stages - 1)
        elif self.kind == "cosine":
            progress = (1 - math.cos(math.pi * progress)) / 2
        return min(max(self.first + (self.last - self.first) * progress, 0.0), 1.0)

    def summary(self, pairs: Sequence[Pair], max_steps: int) -> str:
        """Return both ends of the schedule, its form and its length."""
        held = f" after {self.hold:.0%} of them at {self.first:g}" if self.hold else ""
        way = f"{self.num_stages} stages" if self.kind == "stages" else self.kind
        return f"ramp: severity {self.first:g} to {self.last:g} ({way}) over {max_steps} steps{held}"

    def _progress(self, step: int, max_steps: int) -> float:
        """Return 0 at the first step and while it holds, rising to 1 at the last step."""
        done = step / max(max_steps - 1, 1)
        return min(max((done - self.hold) / (1 - self.hold), 0.0), 1.0)
