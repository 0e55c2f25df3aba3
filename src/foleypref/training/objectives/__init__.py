"""Objectives: how a policy learns. `train.py` cannot tell them apart.

An objective makes its own micro-batches (from stored pairs, or from rollouts of the live policy) and turns
each into a loss. Randomness is a function of (seed, step), so a run resumed from a checkpoint is the same
run; it is drawn for the whole global batch and then shared out, so the number of processes changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from foleypref.flow.convention import Latents, generator_of
from foleypref.models.backbones import Conditions, Model, ModelSpec
from foleypref.training.curricula import Curriculum
from foleypref.training.data import Label
from foleypref.training.reward import RewardModel
from foleypref.training.rules import RulePairs
from foleypref.workspace.records import Candidate, Clip, Feature, Pair
from foleypref.workspace.store import Workspace


@dataclass(frozen=True)
class Loss:
    """A scalar to descend, and what to log about it.

    A log is a float (one value) or a detached tensor (n,) of n values, n = 0 allowed. The trainer averages
    all values of a key over micro-batches, steps and processes, every value with the same weight, so a t-bin
    that one micro-batch leaves empty adds nothing, and a key that nobody filled is not written at all.
    """

    value: Tensor
    logs: Mapping[str, Tensor | float]


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
    clips: Sequence[Clip] = ()  # of an objective that needs "clips"
    labels: Sequence[Label] = ()  # of one that needs "labels"
    reward: RewardModel | None = None  # of one that needs "reward"
    rules: RulePairs | None = None  # where some or all pairs are made by rule
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

    def gather(self, values: Tensor) -> Tensor:
        """Values (n, ...) of every process, in the order of the global batch: (n · num_processes, ...).

        Every process must call it, with as many rows.
        """
        if self.num_processes == 1:
            return values
        mine = values.to(self.device).contiguous()
        found = [torch.empty_like(mine) for _ in range(self.num_processes)]
        torch.distributed.all_gather(found, mine)
        return torch.cat(found).to(values.device)

    def own(self, values: Tensor) -> Tensor:
        """The inverse of `gather`: this process's rows of what belongs to the global batch."""
        return values.chunk(self.num_processes)[self.rank]

    def latents(self, candidate_ids: Sequence[str]) -> Latents:
        """Stored latents of candidates in float32 on the device."""
        rows = self.workspace.latents([self.candidates[i] for i in candidate_ids])
        return {key: value.float().to(self.device) for key, value in rows.items()}

    def conditions(self, clip_ids: Sequence[str]) -> Conditions:
        """Cached conditions of clips in float32 on the device."""
        rows = self.workspace.rows([self.features[i] for i in clip_ids])
        return {key: value.float().to(self.device) for key, value in rows.items()}


class Objective(Protocol):
    """The whole contract of an objective. A batch is the objective's own; if it has `item_ids`, a run that
    meets a number that is not finite names them."""

    @property
    def needs(self) -> frozenset[str]:
        """Name what it learns from: stored "pairs", "clips" of a split, single "labels", "reward": p(Good).

        The trainer leaves the rest of the context empty.
        """
        ...

    @property
    def needs_reference(self) -> bool:
        """False lets the trainer skip the frozen copy (plain fine-tuning)."""
        ...

    @property
    def forwards(self) -> float:
        """Forward passes of one latent that an item of a batch costs, a backward counted as two."""
        ...

    def summary(self, spec: ModelSpec) -> str:
        """One line for the start of a run: the numbers that matter for a model of this spec."""
        ...

    def initial_loss(self, spec: ModelSpec) -> float | None:
        """The loss while policy = reference, where it is known; the trainer asserts it at step 0."""
        ...

    def batches(self, context: TrainContext, step: int, policy: Model) -> list[Any]:
        """This process's micro-batches for a step, in order; at least one."""
        ...

    def eval_batches(self, context: TrainContext, policy: Model) -> Iterable[Any]:
        """This process's share of `context.pairs` (held out) on a fixed grid of times and noises.

        The same numbers at every call and for every seed, so curves of different runs compare; may be empty.
        """
        ...

    def loss(self, policy: Model, reference: Model | None, batch: Any) -> Loss:
        """The loss of one micro-batch, mean over its items; gradient reaches the policy alone."""
        ...


@runtime_checkable
class StatefulObjective(Protocol):
    """An objective that remembers something from step to step, which a checkpoint then carries.

    A run works on a copy of its settings' objective, so runs share nothing.
    """

    @property
    def shared_state(self) -> bool:
        """True if every process holds the same; else row i of a tensor is of sample i of its share."""
        ...

    def state(self) -> dict[str, Tensor]:
        """What the next step needs; empty if nothing."""
        ...

    def restore(self, state: Mapping[str, Tensor], policy: Model) -> None:
        """Go on from `state()`, given the policy as it was then."""
        ...
