"""KTO for flows: learn from single candidates that are desirable or not, without pairs.

    Δ = e_policy − e_reference                          mean squared velocity errors, as in `flow_dpo`
    r = −β/2 · Δ                                        the implicit reward of one candidate
    z = β/2 · mean (v_policy − v_reference)²            its reference point, no gradient
    loss = λ_d (1 − σ(r − z)) if desirable, λ_u (1 − σ(z − r)) if undesirable; one per modality, summed

The value function is KTO's (arXiv 2402.01306), applied to single steps as in Diffusion-KTO (arXiv
2404.04465). z is β KL(policy ‖ reference) of the step at the item's own x_t. Both steps are Gaussians of the
same variance, so z has a closed form: the mean of r if the policy itself had made the sample. KTO must
estimate it, by the mean reward of mismatched samples, clamped at 0; the closed form has no noise, is never
negative, costs no forward, and does not depend on which items share a micro-batch. For comparison,
`offset="batch"` is such an estimate: the mean reward of the micro-batch, clamped at 0.

Letters: B labelled candidates, r reward, z reference point.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from foleypref.flow.convention import interpolate, squared_error, target_velocity
from foleypref.models.backbones import Model, ModelSpec
from foleypref.training.context import TrainContext
from foleypref.training.objectives import Loss, Objective
from foleypref.training.objectives._contrast import SATURATED_LOGIT, beta_of
from foleypref.training.objectives._groups import by_group
from foleypref.training.objectives._labels import LabelBatch, draw_labels, fixed_labels
from foleypref.training.objectives._states import TimeDistribution


class Value(NamedTuple):
    """The value of B items in one modality, each (B,)."""

    loss: Float[Tensor, " B"]  # 1 − σ(logit)
    reward: Float[Tensor, " B"]
    logit: Float[Tensor, " B"]  # r − z of a desirable item, z − r of an undesirable one
    delta: Float[Tensor, " B"]  # Δ
    offset: Float[Tensor, " B"]  # z


def value_of(
    delta: Float[Tensor, " B"], offset: Float[Tensor, " B"], desirable: Bool[Tensor, " B"], beta: float
) -> Value:
    """Return 1 − σ(±(r − z)) from Δ and z; z takes no gradient."""
    reward = -beta / 2 * delta
    logit = torch.where(desirable, 1.0, -1.0) * (reward - offset.detach())
    return Value(torch.sigmoid(-logit), reward, logit, delta, offset)


class KTO(Objective):
    """Kahneman-Tversky optimisation on velocity errors; `beta` is a number, or one per modality."""

    needs: ClassVar[frozenset[str]] = frozenset({"labels"})
    needs_reference: ClassVar[bool] = True
    forwards: ClassVar[float] = 3 + 1  # one latent, by the policy (3) and the reference (1)

    beta: float | dict[str, float] = 600.0  # on the mean scale, like flow_dpo's
    desirable_weight: float = Field(1.0, ge=0)  # λ_d
    undesirable_weight: float = Field(1.0, ge=0)  # λ_u
    balanced: bool = True  # desirable and undesirable items in turn; False: as often as they occur
    offset: Literal["state", "batch"] = "state"  # "batch" depends on how the batch is cut
    time_distribution: TimeDistribution = "uniform"
    condition_dropout: float = Field(0.0, ge=0, lt=1)  # one mask per item, for policy and reference

    def summary(self, spec: ModelSpec) -> str:
        """Return β, D and β/D for each modality, and the weights of the two classes."""
        parts = []
        for modality, shape in sorted(spec.latents.items()):
            beta, d = beta_of(self.beta, modality, "kto"), math.prod(shape)
            parts.append(f"{modality} β {beta:g} (mean scale), D {d}, β/D {beta / d:.3g}")
        drawn = "in turn" if self.balanced else "as they come"
        weights = f"λ {self.desirable_weight:g} desirable, {self.undesirable_weight:g} undesirable"
        return f"kto: {'; '.join(parts)}; {weights}, drawn {drawn}"

    def initial_loss(self, spec: ModelSpec) -> float | None:
        """Return λ/2 per modality if both classes have the same weight λ; else it depends on the batch."""
        if self.desirable_weight != self.undesirable_weight:
            return None
        return self.desirable_weight / 2 * len(spec.latents)

    def batches(self, context: TrainContext, step: int, policy: Model) -> list[LabelBatch]:
        """Return labelled candidates with one t, one noise and one mask each."""
        return draw_labels(
            context,
            step,
            policy,
            times=self.time_distribution,
            dropout=self.condition_dropout,
            balanced=self.balanced,
        )

    def eval_batches(self, context: TrainContext, policy: Model) -> Iterable[LabelBatch]:
        """Return held-out labels at the middle of every time bin, without dropout."""
        return fixed_labels(context, policy)

    def loss(self, policy: Model, reference: Model | None, batch: LabelBatch) -> Loss:
        """Return the weighted values, summed over modalities; policy and reference take one forward each."""
        assert reference is not None
        x_t, v = interpolate(batch.x0, batch.x1, batch.t), target_velocity(batch.x0, batch.x1)
        v_policy = policy.velocity(x_t, batch.t, batch.conditions)
        with torch.no_grad():
            v_reference = reference.velocity(x_t, batch.t, batch.conditions)
        values, errors = {}, {}
        for key in v:
            errors[key] = squared_error(v_policy[key], v[key])
            delta = errors[key] - squared_error(v_reference[key], v[key])
            offset = self._offset(key, v_policy[key], v_reference[key], delta)
            values[key] = value_of(delta, offset, batch.desirable, beta_of(self.beta, key, "kto"))
        weight = torch.where(batch.desirable, self.desirable_weight, self.undesirable_weight) * batch.weight
        per_item = weight * torch.stack([value.loss for value in values.values()]).sum(0)  # (B,)
        with torch.no_grad():
            logs = {"loss": per_item.detach()} | _logs(batch, values, errors)
        return Loss(per_item.mean(), logs)

    @torch.no_grad()
    def _offset(self, key: str, v_policy: Tensor, v_reference: Tensor, delta: Tensor) -> Tensor:
        """Return the reference point z (B,) of one modality."""
        half_beta = beta_of(self.beta, key, "kto") / 2
        if self.offset == "batch":
            return (-half_beta * delta).mean().clamp(min=0).expand(len(delta))
        return half_beta * squared_error(v_policy, v_reference)


def _logs(batch: LabelBatch, values: dict[str, Value], errors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return logs under the names of `flow_dpo`: desirable items count as chosen, a logit as a margin."""
    reward = torch.stack([value.reward for value in values.values()]).sum(0)
    logit = torch.stack([value.logit for value in values.values()]).sum(0)
    contested = {"rewards/margins": logit, "rewards/accuracies": (logit > 0).float()}
    logs = {
        "rewards/chosen": reward[batch.desirable],
        "rewards/rejected": reward[~batch.desirable],
        "kto/kl": torch.stack([value.offset for value in values.values()]).sum(0),
        **contested,
        **by_group(contested, batch.groups),
    }
    for key, value in values.items():
        suffix = f"/{key}" if len(values) > 1 else ""
        for side, rows in (("winner", batch.desirable), ("loser", ~batch.desirable)):
            logs[f"flow/{side}_err{suffix}"] = errors[key][rows]
            logs[f"flow/{side}_delta{suffix}"] = value.delta[rows]  # above 0 for winners: they are being lost
        logs[f"flow/gradient_factor{suffix}"] = value.loss * (1 - value.loss)  # σ′, ¼ at the start
        logs[f"flow/saturated_frac{suffix}"] = (value.logit.abs() > SATURATED_LOGIT).float()
    return {key: value.detach() for key, value in logs.items()}
