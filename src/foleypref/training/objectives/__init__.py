"""Objectives: how a policy learns. `train.py` cannot tell them apart.

An objective makes its own micro-batches (from stored pairs, from labels, or from rollouts of the live policy)
and turns each into a loss. Randomness is a function of (seed, step), so a resumed run repeats the same draws;
it is drawn for the whole global batch and then sliced, so the number of processes changes nothing.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from torch import Tensor

from foleypref.models.backbones import Model, ModelSpec
from foleypref.settings.parts import FromDrawer, Part, part_help
from foleypref.training.context import TrainContext


@dataclass(frozen=True)
class Loss:
    """A scalar to minimise, and the numbers to log about it.

    A log is a float (one value) or a detached tensor (n,) of n values, n = 0 allowed. The trainer averages
    all values of a key over micro-batches, steps and processes, each with the same weight. So a time bin that
    is empty in one micro-batch adds nothing, and a key without any value is not written.
    """

    value: Tensor
    logs: Mapping[str, Tensor | float]


class Objective(Part):
    """The base of every objective. Its batches are its own type; `train` only hands them back to `loss`.

    If a batch has `item_ids`, a run that meets a number that is not finite names them.
    """

    needs: ClassVar[frozenset[str]]
    """Kinds of items it learns from, of "pairs", "clips", "labels" and "reward" (p(Good) of samples)."""

    @property
    @abstractmethod
    def needs_reference(self) -> bool:
        """Whether the loss reads the frozen reference; if not, the trainer keeps no copy of the network."""

    @property
    @abstractmethod
    def forwards(self) -> float:
        """Network passes of one latent that an item of a batch costs; a backward pass counts as two."""

    @abstractmethod
    def summary(self, spec: ModelSpec) -> str:
        """Return one line for the start of a run: the settings that matter for a model of this spec."""

    def initial_loss(self, spec: ModelSpec) -> float | None:
        """Return the loss while policy = reference, or None if unknown; the trainer checks it at step 0."""
        return None

    @abstractmethod
    def batches(self, context: TrainContext, step: int, policy: Model) -> list[Any]:
        """Return this process's micro-batches for a step, in order; at least one."""

    @abstractmethod
    def eval_batches(self, context: TrainContext, policy: Model) -> Iterable[Any]:
        """Return this process's share of the held-out batches, on a fixed grid of times and noises.

        They are the same at every call and for every seed, so curves of different runs compare; may be empty.
        """

    @abstractmethod
    def loss(self, policy: Model, reference: Model | None, batch: Any) -> Loss:
        """Return the loss of one micro-batch, mean over its items; only the policy gets a gradient."""


ObjectivePart = Annotated[Objective, FromDrawer("objectives"), part_help("objectives")]


class StatefulObjective(Objective):
    """An objective that remembers something from step to step, which checkpoints then carry.

    A run works on a copy of the objective in its settings, so runs share no state.
    """

    shared_state: ClassVar[bool]
    """Whether every process holds the same state; if not, row i of a tensor belongs to its sample i."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Return the tensors that the next step needs; empty if there are none."""

    @abstractmethod
    def restore(self, state: Mapping[str, Tensor], policy: Model) -> None:
        """Set the state to that of `state()`, given the policy as it was then."""


class PrecomputableObjective(Objective):
    """An objective that asks the reference only for errors, which can be computed before the first step."""

    @abstractmethod
    def reference_settings(self) -> dict[str, Any]:
        """Return those of its settings that change the reference's errors."""

    @abstractmethod
    def reference_errors(self, reference: Model, batch: Any) -> dict[str, Tensor]:
        """Return the reference's errors on a batch, by modality; `loss` reads `batch.reference_errors`."""
