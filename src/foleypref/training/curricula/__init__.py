"""Curricula: which pairs a training step sees, and how coarse the ones made by rule are.

Pure in (step, seed), so resume needs no sampler state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from foleypref.flow.convention import generator_of
from foleypref.workspace.records import Pair


class Curriculum(Protocol):
    """The whole contract of a curriculum."""

    def pick(self, pairs: Sequence[Pair], step: int, max_steps: int, n: int, seed: int) -> list[Pair]:
        """The `n` pairs of step `step` of `max_steps`; every pair is seen by the end of a long enough run."""
        ...

    def stage(self, pairs: Sequence[Pair], step: int, max_steps: int) -> int:
        """Which stage a step belongs to, counted from 0; for logs. There may be no pairs at all."""
        ...

    def severity(self, step: int, max_steps: int) -> float:
        """How severe, from 0 to 1, the negatives that are made by rule at a step are."""
        ...

    def summary(self, pairs: Sequence[Pair], max_steps: int) -> str:
        """One line for the start of a run: how many pairs each stage has and which steps it takes."""
        ...


def walk(num: int, position: int, n: int, *seed: int | str) -> list[int]:
    """`n` indices out of `num` from `position` on, without replacement within each pass.

    Pass k is the permutation drawn from (seed, k), so any step of any run can be computed alone.
    """
    assert num > 0
    found: list[int] = []
    while len(found) < n:
        lap, offset = divmod(position + len(found), num)
        order = torch.randperm(num, generator=generator_of(*seed, "lap", lap)).tolist()
        found += order[offset : offset + n - len(found)]
    return found
