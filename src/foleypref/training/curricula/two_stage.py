"""Easy pairs first, hard pairs after: the curriculum of V2A-DPO (arXiv 2603.11089).

`Pair.complexity` (Eq. 3) is 1 for the easiest pair and 0 for the hardest. Pairs from human ratings carry 0,
so they belong to stage 2. The paper puts pairs whose complexity exceeds the threshold in stage 1; here pairs
that equal it belong there too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pydantic import Field

from foleypref.training.curricula import Curriculum, walk
from foleypref.workspace.records import Pair


class _Plan(NamedTuple):
    easy: list[Pair]
    hard: list[Pair]
    boundary: int  # the first step (from 0) of stage 2


class TwoStage(Curriculum):
    """Stage 1 sees the pairs with complexity ≥ `threshold`, stage 2 all others.

    `stage_one_fraction` is the share of the steps that stage 1 takes. If it is None, the steps split in the
    proportion of the pairs, so every pair is visited equally often (the paper does not state its split), and
    each stage with pairs gets at least one step. If one stage has no pairs, the other gets all steps.
    """

    threshold: float = 0.7
    stage_one_fraction: float | None = Field(None, ge=0, le=1)

    def pick(self, pairs: Sequence[Pair], step: int, max_steps: int, n: int, seed: int) -> list[Pair]:
        """Return the next `n` pairs of the stage's own endless walk."""
        plan = self._plan(pairs, max_steps)
        first = step < plan.boundary
        stage_pairs, start = (plan.easy, 0) if first else (plan.hard, plan.boundary)
        indices = walk(len(stage_pairs), (step - start) * n, n, seed, "two_stage", int(first))
        return [stage_pairs[i] for i in indices]

    def stage(self, pairs: Sequence[Pair], step: int, max_steps: int) -> int:
        """Return 0 for the easy stage, 1 for the hard one."""
        return int(step >= self._plan(pairs, max_steps).boundary) if pairs else 0

    def summary(self, pairs: Sequence[Pair], max_steps: int) -> str:
        """Return the pairs and steps of both stages, or say which stage is empty."""
        easy, hard, boundary = self._plan(pairs, max_steps)
        if not easy or not hard:
            empty, rule = (1, "≥") if not easy else (2, "<")
            return (
                f"two_stage: stage {empty} is empty (no pair has complexity {rule} {self.threshold:g}), "
                f"all {max_steps} steps go to the {len(pairs)} pairs of stage {3 - empty}"
            )
        return (
            f"two_stage: {len(easy)} pairs with complexity ≥ {self.threshold:g} in {boundary} steps, "
            f"then {len(hard)} pairs in {max_steps - boundary} steps"
        )

    def _plan(self, pairs: Sequence[Pair], max_steps: int) -> _Plan:
        easy = [pair for pair in pairs if pair.complexity >= self.threshold]
        hard = [pair for pair in pairs if pair.complexity < self.threshold]
        assert easy or hard, "a curriculum needs pairs"
        if not easy or not hard:
            return _Plan(easy, hard, max_steps if easy else 0)
        if self.stage_one_fraction is not None:
            return _Plan(easy, hard, round(self.stage_one_fraction * max_steps))
        share = round(len(easy) / len(pairs) * max_steps)
        return _Plan(easy, hard, min(max(share, 1), max(max_steps - 1, 1)))
