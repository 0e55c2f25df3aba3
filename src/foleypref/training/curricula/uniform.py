"""Every pair alike: passes over all pairs in a new random order each time."""

from __future__ import annotations

from collections.abc import Sequence

from foleypref.settings.parts import Part
from foleypref.training.curricula import walk
from foleypref.workspace.records import Pair


class Uniform(Part):
    """No curriculum."""

    def pick(self, pairs: Sequence[Pair], step: int, max_steps: int, n: int, seed: int) -> list[Pair]:
        """The next `n` pairs of an endless walk without replacement within a pass."""
        return [pairs[i] for i in walk(len(pairs), step * n, n, seed, "uniform")]

    def stage(self, pairs: Sequence[Pair], step: int, max_steps: int) -> int:
        """There is one."""
        return 0

    def severity(self, step: int, max_steps: int) -> float:
        """Coarse all along."""
        return 1.0

    def summary(self, pairs: Sequence[Pair], max_steps: int) -> str:
        """How many pairs there are."""
        return f"uniform: {len(pairs)} pairs over steps 1 to {max_steps}"
