"""Plain flow matching on the chosen latents: the control that differs from Flow-DPO only by its loss.

It meets the same pairs with the same t, noise and dropout mask at the same step (`_pairs.draw_batches`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import torch
from pydantic import Field

from foleypref.flow.convention import interpolate, squared_error, target_velocity
from foleypref.models.backbones import Model, ModelSpec
from foleypref.training.context import TrainContext
from foleypref.training.objectives import Loss, Objective
from foleypref.training.objectives._groups import by_group
from foleypref.training.objectives._pairs import PairBatch, draw_batches, fixed_batches
from foleypref.training.objectives._states import TimeDistribution


class SFT(Objective):
    """Supervised fine-tuning: lower the winners' velocity error, summed over modalities."""

    needs: ClassVar[frozenset[str]] = frozenset({"pairs"})
    needs_reference: ClassVar[bool] = False
    forwards: ClassVar[float] = 3  # one latent, forward (1) and backward (2)

    time_distribution: TimeDistribution = "uniform"
    condition_dropout: float = Field(0.0, ge=0, lt=1)

    def summary(self, spec: ModelSpec) -> str:
        """Return which modalities are fitted."""
        return f"sft: flow matching on the chosen latents ({', '.join(sorted(spec.latents))})"

    def batches(self, context: TrainContext, step: int, policy: Model) -> list[PairBatch]:
        """Return the batches that Flow-DPO would meet."""
        times, dropout = self.time_distribution, self.condition_dropout
        return draw_batches(context, step, policy, times=times, dropout=dropout)

    def eval_batches(self, context: TrainContext, policy: Model) -> Iterable[PairBatch]:
        """Return held-out pairs at the middle of every time bin, without dropout."""
        return fixed_batches(context, policy)

    def loss(self, policy: Model, reference: Model | None, batch: PairBatch) -> Loss:
        """Return the mean squared velocity error of the chosen latents."""
        x_t = interpolate(batch.x0, batch.chosen, batch.t)
        v = target_velocity(batch.x0, batch.chosen)
        prediction = policy.velocity(x_t, batch.t, batch.conditions)
        errors = {key: squared_error(prediction[key], v[key]) for key in v}
        per_pair = torch.stack(list(errors.values())).sum(0)  # (B,)
        logs = {"loss": per_pair.detach()}
        for key, error in errors.items():
            suffix = f"/{key}" if len(errors) > 1 else ""
            flow = {f"flow/winner_err{suffix}": error.detach()}
            logs |= flow | by_group(flow, batch.groups)
        return Loss(per_pair.mean(), logs)
