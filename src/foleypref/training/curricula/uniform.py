"""Every pair alike: passes over all pairs in a new random order each time."""

from __future__ import annotations

from collections.abc import Sequence

from foleypref.training.curricula import Curriculum
from foleypref.workspace.records import Pair


class Uniform(Curriculum):
    """No curriculum: all pairs at every step, negatives made by rule at full severity."""

    def summary(self, pairs: Sequence[Pair], max_steps: int) -> str:
        """Return how many pairs and steps there are."""
        return f"uniform: {len(pairs)} pairs over steps 1 to {max_steps}"
