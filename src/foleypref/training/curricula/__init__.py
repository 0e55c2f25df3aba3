"""Curricula: which stored pairs a training step sees, and how severe its negatives made by rule are.

Both are functions of (step, seed), so resume needs no sampler state.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated

import torch

from foleypref.flow.convention import generator_of
from foleypref.settings.parts import FromDrawer, Part, part_help
from foleypref.workspace.records import Pair


class Curriculum(Part):
    """The base of every curriculum: pure functions of the step and the seed."""

    def pick(self, pairs: Sequence[Pair], step: int, max_steps: int, n: int, seed: int) -> list[Pair]:
        """Return the `n` pairs of step `step` of `max_steps`: the next of an endless walk."""
        return [pairs[i] for i in walk(len(pairs), step * n, n, seed, self.part_name())]

    def stage(self, pairs: Sequence[Pair], step: int, max_steps: int) -> int:
        """Return the stage of a step, counted from 0, for logs. `pairs` may be empty."""
        return 0

    def severity(self, step: int, max_steps: int) -> float:
        """Return how severe the negatives made by rule are at a step, from 0 to 1."""
        return 1.0

    @abstractmethod
    def summary(self, pairs: Sequence[Pair], max_steps: int) -> str:
        """Return one line for the start of a run: the pairs and the steps of each stage."""


CurriculumPart = Annotated[Curriculum, FromDrawer("curricula"), part_help("curricula")]


def walk(num: int, position: int, n: int, *seed: int | str) -> list[int]:
    """Return `n` of `num` indices from `position` on in an endless walk; each pass visits every index once.

    Pass k is a permutation drawn from (seed, k), so any step can be computed without those before it.
    """
    assert num > 0
    indices: list[int] = []
    while len(indices) < n:
        lap, offset = divmod(position + len(indices), num)
        order = torch.randperm(num, generator=generator_of(*seed, "lap", lap)).tolist()
        indices += order[offset : offset + n - len(indices)]
    return indices
