"""KTO for flows: learn from single candidates that are wanted or not, without pairs.

    Δ = e_policy − e_reference                          mean squared velocity errors, as in `flow_dpo`
    r = −β/2 · Δ                                        the implicit reward of one candidate
    z = β/2 · mean (v_policy − v_reference)²            its reference point, no gradient
    loss = λ_d (1 − σ(r − z)) if desirable, λ_u (1 − σ(z − r)) if undesirable; one a modality, summed

The value function is KTO's (arXiv 2402.01306), taken step by step as in Diffusion-KTO (arXiv 2404.04465). z
is β KL(policy ‖ reference) of the step at the item's own x_t. Both steps are Gaussians of one variance, so it
is known in closed form: what r would be on average if the policy itself had made the sample. KTO must
estimate it, by the mean reward of mismatched samples, clamped at 0; this one has no noise, is never negative,
costs no forward, and does not depend on which items share a micro-batch. `offset="batch"` is such an
estimate, for comparison: the mean reward of the micro-batch, clamped at 0.

Letters: B labelled candidates, r reward, z reference point.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from foleypref.flow.convention import interpolate, squared_error, target_velocity
from foleypref.models.backbones import Model, ModelSpec
from foleypref.settings.parts import Part
from foleypref.training.objectives import Loss, TrainContext
from foleypref.training.objectives._labels import LabelBatch, draw_labels, fixed_labels
from foleypref.training.objectives._pairs import TimeDistribution, by_group

SATURATED_LOGIT = 3.0  # σ′(3) is a fifth of σ′(0)


class Value(NamedTuple):
    """Of one modality, each (B,)."""

    loss: Float[Tensor, " B"]  # 1 − σ(logit)
    reward: Float[Tensor, " B"]
    logit: Float[Tensor, " B"]  # r − z of a desirable item, z − r of an undesirable one


def value_of(
    delta: Float[Tensor, " B"], offset: Float[Tensor, " B"], desirable: Bool[Tensor, " B"], beta: float
) -> Value:
    """1 − σ(±(r − z)) from Δ and z; z takes no gradient."""
    reward = -beta / 2 * delta
    logit = torch.where(desirable, 1.0, -1.0) * (reward - offset.detach())
    return Value(torch.sigmoid(-logit), reward, logit)


class KTO(Part):
    """Kahneman-Tversky optimisation on velocity errors; `beta` may be a number or one a modality."""

    beta: float | dict[str, float] = 600.0  # on the mean scale, as flow_dpo's
    desirable_weight: float = Field(1.0, ge=0)  # λ_d
    undesirable_weight: float = Field(1.0, ge=0)  # λ_u
    balanced: bool = True  # a wanted and an unwanted item in turn; False: as often as they are there
    offset: Literal["state", "batch"] = "state"  # "batch" depends on how the batch is shared out
    time_distribution: TimeDistribution = "uniform"
    condition_dropout: float = Field(0.0, ge=0, lt=1)  # one mask an item, policy's and reference's

    @property
    def needs(self) -> frozenset[str]:
        """Labels."""
        return frozenset({"labels"})

    @property
    def needs_reference(self) -> bool:
        """Always."""
        return True

    @property
    def forwards(self) -> float:
        """One latent, forward and backward, and the reference's forward."""
        return 3 + 1

    def beta_of(self, modality: str) -> float:
        """β of a modality. Raises ValueError if a mapping leaves it out."""
        if not isinstance(self.beta, dict):
            return self.beta
        if modality not in self.beta:
            raise ValueError(f"kto: beta has {', '.join(self.beta)}, the model also has {modality!r}")
        return self.beta[modality]

    def summary(self, spec: ModelSpec) -> str:
        """β, D and β/D a modality, and how the classes weigh."""
        parts = []
        for modality, shape in sorted(spec.latents.items()):
            beta, d = self.beta_of(modality), math.prod(shape)
            parts.append(f"{modality} β {beta:g} (mean scale), D {d}, β/D {beta / d:.3g}")
        drawn = "in turn" if self.balanced else "as they come"
        weights = f"λ {self.desirable_weight:g} desirable, {self.undesirable_weight:g} undesirable"
        return f"kto: {'; '.join(parts)}; {weights}, drawn {drawn}"

    def initial_loss(self, spec: ModelSpec) -> float | None:
        """λ/2 a modality where both classes weigh the same, labels 1; else it depends on the batch."""
        if self.desirable_weight != self.undesirable_weight:
            return None
        return self.desirable_weight / 2 * len(spec.latents)

    def batches(self, context: TrainContext, step: int, policy: Model) -> list[LabelBatch]:
        """Labelled candidates with a t, a noise and a mask each."""
        return draw_labels(
            context, step, policy, self.time_distribution, self.condition_dropout, self.balanced
        )

    def eval_batches(self, context: TrainContext, policy: Model) -> Iterable[LabelBatch]:
        """Held-out labels at the middle of every t-bin, without dropout."""
        return fixed_labels(context, policy)

    def loss(self, policy: Model, reference: Model | None, batch: LabelBatch) -> Loss:
        """One forward of the policy, one of the reference; one value a modality, summed."""
        assert reference is not None
        x_t, v = interpolate(batch.x0, batch.x1, batch.t), target_velocity(batch.x0, batch.x1)
        v_policy = policy.velocity(x_t, batch.t, batch.conditions)
        with torch.no_grad():
            v_reference = reference.velocity(x_t, batch.t, batch.conditions)
        values, offsets, errors, deltas = {}, {}, {}, {}
        for key in v:
            errors[key] = squared_error(v_policy[key], v[key])
            deltas[key] = errors[key] - squared_error(v_reference[key], v[key])
            offsets[key] = self._offset(key, v_policy[key], v_reference[key], deltas[key])
            values[key] = value_of(deltas[key], offsets[key], batch.desirable, self.beta_of(key))
        weight = torch.where(batch.desirable, self.desirable_weight, self.undesirable_weight) * batch.weight
        per_item = weight * torch.stack([value.loss for value in values.values()]).sum(0)  # (B,)
        with torch.no_grad():
            logs = {"loss": per_item.detach()} | _logs(values, offsets, errors, deltas, batch)
        return Loss(per_item.mean(), logs)

    @torch.no_grad()
    def _offset(self, key: str, v_policy: Tensor, v_reference: Tensor, delta: Tensor) -> Tensor:
        if self.offset == "batch":
            return (-self.beta_of(key) / 2 * delta).mean().clamp(min=0).expand(len(delta))
        return self.beta_of(key) / 2 * squared_error(v_policy, v_reference)


def _logs(
    values: dict[str, Value],
    offsets: dict[str, Tensor],
    errors: dict[str, Tensor],
    deltas: dict[str, Tensor],
    batch: LabelBatch,
) -> dict[str, Tensor]:
    """Names as of `flow_dpo`, where the desirable stand for the chosen; a margin is an item's logit."""
    reward = torch.stack([value.reward for value in values.values()]).sum(0)
    logit = torch.stack([value.logit for value in values.values()]).sum(0)
    contested = {"rewards/margins": logit, "rewards/accuracies": (logit > 0).float()}
    logs = {
        "rewards/chosen": reward[batch.desirable],
        "rewards/rejected": reward[~batch.desirable],
        "kto/kl": torch.stack(list(offsets.values())).sum(0),
        **contested,
        **by_group(contested, batch),
    }
    for key, value in values.items():
        suffix = f"/{key}" if len(values) > 1 else ""
        for side, rows in (("winner", batch.desirable), ("loser", ~batch.desirable)):
            logs[f"flow/{side}_err{suffix}"] = errors[key][rows]
            logs[f"flow/{side}_delta{suffix}"] = deltas[key][rows]  # winners above 0: they are being lost
        logs[f"flow/gradient_factor{suffix}"] = value.loss * (1 - value.loss)  # σ′, ¼ at the start
        logs[f"flow/saturated_frac{suffix}"] = (value.logit.abs() > SATURATED_LOGIT).float()
    return {key: value.detach() for key, value in logs.items()}
