"""The view of a run that objectives get: its items, their tensors, and the layout of its batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from foleypref.flow.convention import Latents, generator_of
from foleypref.models.backbones import Conditions
from foleypref.training.curricula import Curriculum
from foleypref.training.data import TrainData
from foleypref.training.reward import Reward
from foleypref.training.rules import RulePairs
from foleypref.workspace.records import Candidate, Feature
from foleypref.workspace.store import Workspace

T = TypeVar("T")


@dataclass(frozen=True)
class BatchLayout:
    """How the global batch of a step is cut into micro-batches over processes, seen from one process."""

    per_device_batch_size: int  # items of one micro-batch
    gradient_accumulation_steps: int = 1  # micro-batches of one process
    rank: int = 0
    num_processes: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def global_batch_size(self) -> int:
        """Items that a step takes over all processes and micro-batches."""
        return self.per_device_batch_size * self.gradient_accumulation_steps * self.num_processes

    def slices(self) -> list[slice]:
        """Return the slices of the global batch that are this process's micro-batches, in order."""
        size, first = self.per_device_batch_size, self.rank * self.gradient_accumulation_steps
        own = range(first, first + self.gradient_accumulation_steps)
        return [slice(index * size, (index + 1) * size) for index in own]

    def shares(self, items: Sequence[T]) -> Iterator[Sequence[T]]:
        """Yield this process's share of held-out items, a micro-batch at a time."""
        own = items[self.rank :: self.num_processes]
        for begin in range(0, len(own), self.per_device_batch_size):
            yield own[begin : begin + self.per_device_batch_size]

    def gather(self, values: Tensor) -> Tensor:
        """Concatenate the values (n, ...) of every process in the order of the global batch.

        Every process must call it, with the same n; each gets (n · num_processes, ...).
        """
        if self.num_processes == 1:
            return values
        own = values.to(self.device).contiguous()
        gathered = [torch.empty_like(own) for _ in range(self.num_processes)]
        torch.distributed.all_gather(gathered, own)
        return torch.cat(gathered).to(values.device)

    def own(self, values: Tensor) -> Tensor:
        """Invert `gather`: return this process's rows of values of the global batch."""
        return values.chunk(self.num_processes)[self.rank]


@dataclass(frozen=True)
class TrainContext:
    """Everything an objective may read. It is the same on every process except for `layout.rank`.

    Items that the objective's `needs` do not name are left out of `data`.
    """

    workspace: Workspace
    data: TrainData
    candidates: dict[str, Candidate]  # by candidate_id, those that pairs and labels name
    features: dict[str, Feature]  # by clip_id: the cached conditions under the policy's feature key
    curriculum: Curriculum
    seed: int
    max_steps: int
    layout: BatchLayout
    reward: Reward | None = None  # only if the objective needs "reward"
    rules: RulePairs | None = None  # only if some or all pairs are made by rule

    def generator(self, step: int, purpose: str) -> torch.Generator:
        """Return the generator for one purpose of one step, the same on every process."""
        return generator_of(self.seed, step, purpose)

    def on_device(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Move every tensor to the device of this process."""
        return {key: value.to(self.layout.device) for key, value in tensors.items()}

    def latents(self, candidate_ids: Sequence[str]) -> Latents:
        """Read the stored latents of candidates, in float32 on the device."""
        rows = self.workspace.rows([self.candidates[i] for i in candidate_ids])
        return self.on_device({key: value.float() for key, value in rows.items()})

    def conditions(self, clip_ids: Sequence[str]) -> Conditions:
        """Read the cached conditions of clips, in float32 on the device."""
        rows = self.workspace.rows([self.features[i] for i in clip_ids])
        return self.on_device({key: value.float() for key, value in rows.items()})
