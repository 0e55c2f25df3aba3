"""Plain flow matching on the chosen latents: the control that differs from Flow-DPO by its loss alone.

It meets the same pairs with the same t, noise and dropout mask at the same step (`_pairs.draw_batches`).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from pydantic import Field

from foleypref.flow.convention import interpolate, squared_error, target_velocity
from foleypref.models.backbones import Model, ModelSpec
from foleypref.settings.parts import Part
from foleypref.training.objectives import Loss, TrainContext
from foleypref.training.objectives._pairs import (
    PairBatch,
    TimeDistribution,
    by_group,
    draw_batches,
    fixed_batches,
)


class SFT(Part):
    """Supervised fine-tuning: lower the winners' velocity error, summed over modalities."""

    time_distribution: TimeDistribution = "uniform"
    condition_dropout: float = Field(0.0, ge=0, lt=1)

    @property
    def needs(self) -> frozenset[str]:
        """Stored pairs."""
        return frozenset({"pairs"})

    @property
    def needs_reference(self) -> bool:
        """Never."""
        return False

    @property
    def forwards(self) -> float:
        """One latent, forward and backward."""
        return 3

    def summary(self, spec: ModelSpec) -> str:
        """What is fitted."""
        return f"sft: flow matching on the chosen latents ({', '.join(sorted(spec.latents))})"

    def initial_loss(self, spec: ModelSpec) -> float | None:
        """Unknown."""
        return None

    def batches(self, context: TrainContext, step: int, policy: Model) -> list[PairBatch]:
        """The batches Flow-DPO would meet."""
        return draw_batches(context, step, policy, self.time_distribution, self.condition_dropout)

    def eval_batches(self, context: TrainContext, policy: Model) -> Iterable[PairBatch]:
        """Held-out pairs at the middle of every t-bin, without dropout."""
        return fixed_batches(context, policy)

    def loss(self, policy: Model, reference: Model | None, batch: PairBatch) -> Loss:
        """Mean squared velocity error of the chosen latents."""
        x_t = interpolate(batch.x0, batch.chosen, batch.t)
        v = target_velocity(batch.x0, batch.chosen)
        prediction = policy.velocity(x_t, batch.t, batch.conditions)
        errors = {key: squared_error(prediction[key], v[key]) for key in v}
        per_pair = torch.stack(list(errors.values())).sum(0)  # (B,)
        logs = {"loss": per_pair.detach()}
        for key, error in errors.items():
            suffix = f"/{key}" if len(errors) > 1 else ""
            flow = {f"flow/winner_err{suffix}": error.detach()}
            logs |= flow | by_group(flow, batch)
        return Loss(per_pair.mean(), logs)
