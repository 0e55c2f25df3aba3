"""Every pair alike: passes over all pairs in a new random order each time."""

from __future__ import annotations

from collections.abc import Sequence

from foleypref.training.curricula import Curriculum, walk
from foleypref.workspace.records import Pair


class Uniform(Curriculum):
    """No curriculum: all pairs at every step, negatives made by rule at full severity."""

    def pick(self, pairs: Sequence[Pair], step: int, max_steps: int, n: int, seed: int) -> list[Pair]:
        """Return the next `n` pairs of an endless walk over all of them."""
        return [pairs[i] for i in walk(len(pairs), step * n, n, seed, "uniform")]

    def summary(self, pairs: Sequence[Pair], max_steps: int) -> str:
        """Return how many pairs and steps there are."""
        return f"uniform: {len(pairs)} pairs over steps 1 to {max_steps}"
