"""Objectives: how a policy learns. `train.py` cannot tell them apart.

An objective makes its own micro-batches (from stored pairs, or from rollouts of the live policy) and turns
each into a loss. Randomness is a function of (seed, step), so a run resumed from a checkpoint is the same
run; it is drawn for the whole global batch and then shared out, so the number of processes changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from foleytune.curricula import Curriculum
from foleytune.flow import Latents, generator_of
from foleytune.models import Conditions, Model
from foleytune.records import Candidate, Feature, Pair
from foleytune.store import Workspace


@dataclass(frozen=True)
class Loss:
    """A scalar to descend, and what to log about it (plain floats, means over the micro-batch)."""

    value: Tensor
    logs: dict[str, float]


@dataclass(frozen=True)
class TrainContext:
    """What an objective may look at: read-only, typed, the same on every process but for `rank`."""

    workspace: Workspace
    pairs: Sequence[Pair]
    candidates: dict[str, Candidate]  # by candidate_id, those the pairs name
    features: dict[str, Feature]  # by clip_id: the cached conditions of the policy's feature key
    curriculum: Curriculum
    seed: int
    max_steps: int
    per_device_batch_size: int
    gradient_accumulation_steps: int = 1
    rank: int = 0
    num_processes: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def global_batch_size(self) -> int:
        """Items a step takes over all processes and micro-batches."""
        return self.per_device_batch_size * self.gradient_accumulation_steps * self.num_processes

    def generator(self, step: int, what: str) -> torch.Generator:
        """Randomness for one purpose of one step, the same on every process."""
        return generator_of(self.seed, step, what)

    def shares(self) -> list[slice]:
        """The slices of the global batch that are this process's micro-batches, in order."""
        size = self.per_device_batch_size
        first = self.rank * self.gradient_accumulation_steps
        return [
            slice((first + i) * size, (first + i + 1) * size) for i in range(self.gradient_accumulation_steps)
        ]

    def latents(self, candidate_ids: Sequence[str]) -> Latents:
        """Stored latents of candidates in float32 on the device."""
        rows = self.workspace.latents([self.candidates[i] for i in candidate_ids])
        return {key: value.float().to(self.device) for key, value in rows.items()}

    def conditions(self, clip_ids: Sequence[str]) -> Conditions:
        """Cached conditions of clips in float32 on the device."""
        features = [self.features[i] for i in clip_ids]
        places = [(f.shard, f.row) for f in features]
        keys = self.workspace.shards.keys(places[0][0])
        return {key: self.workspace.shards.rows(places, key).float().to(self.device) for key in keys}


class Objective(Protocol):
    """The whole contract of an objective."""

    @property
    def needs_reference(self) -> bool:
        """False lets the trainer skip the frozen copy (plain fine-tuning)."""
        ...

    def batches(self, context: TrainContext, step: int, policy: Model) -> list[Any]:
        """This process's micro-batches for a step, in order; at least one."""
        ...

    def loss(self, policy: Model, reference: Model | None, batch: Any) -> Loss:
        """The loss of one micro-batch, mean over its items; gradient reaches the policy alone."""
        ...
