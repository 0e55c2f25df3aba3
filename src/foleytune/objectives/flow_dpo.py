"""Flow-DPO: prefer the chosen latents over the rejected ones, against a frozen reference.

    e = mean over all latent elements of (v − (x1 − x0))²      of policy and of reference, float32
    Δ = e_policy − e_reference
    loss = −log σ(−β/2 · (Δ_chosen − Δ_rejected))

Equation 5 of arXiv 2603.11089 with its bracket closed after the loser, as in Diffusion-DPO (arXiv 2311.12908,
Eq. 14) and VideoAlign (arXiv 2501.13918). As printed, the bracket ends after the winner, and the loss would
lower the loser's error too.

Letters: B pairs, D latent elements, w chosen (winner), l rejected (loser).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from foleytune.flow import interpolate, squared_error, target_velocity
from foleytune.models import Model, ModelSpec
from foleytune.objectives import Loss, TrainContext
from foleytune.objectives._pairs import (
    PairBatch,
    TimeDistribution,
    by_group,
    draw_batches,
    fixed_batches,
    pack,
)
from foleytune.plugins import Part

SATURATED_LOGIT = 3.0  # σ(−3) = 0.047: beyond it a pair has next to no gradient left


class Contrast(NamedTuple):
    """Of one modality, each (B,)."""

    loss: Float[Tensor, " B"]
    reward_chosen: Float[Tensor, " B"]  # −(β/2) Δ_chosen
    reward_rejected: Float[Tensor, " B"]


def contrast(
    policy_error: Float[Tensor, " n"], reference_error: Float[Tensor, " n"], beta: float
) -> Contrast:
    """−log σ(−β/2 (Δ_chosen − Δ_rejected)) of packed errors (n,), n = 2B, chosen first."""
    delta_w, delta_l = (policy_error - reference_error).chunk(2)
    logit = -beta / 2 * (delta_w - delta_l)
    # softplus(−x) = −log σ(x), finite for every x
    return Contrast(F.softplus(-logit), -beta / 2 * delta_w, -beta / 2 * delta_l)


class FlowDPO(Part):
    """Direct preference optimisation on velocity errors; `beta` may be a number or one a modality."""

    beta: float | dict[str, float] = 600.0  # on the mean scale; the sum scale has β/D
    winner_weight: float = Field(0.0, ge=0)  # λ of the term λ·e_policy(chosen), against sinking winners
    time_distribution: TimeDistribution = "uniform"
    condition_dropout: float = Field(0.0, ge=0, lt=1)  # one mask a pair, for all four evaluations
    reduction: Literal["mean", "sum"] = "mean"

    @property
    def needs(self) -> frozenset[str]:
        """Stored pairs."""
        return frozenset({"pairs"})

    @property
    def needs_reference(self) -> bool:
        """Always."""
        return True

    def beta_of(self, modality: str) -> float:
        """β of a modality. Raises ValueError if a mapping leaves it out."""
        if not isinstance(self.beta, dict):
            return self.beta
        if modality not in self.beta:
            raise ValueError(f"flow_dpo: beta has {', '.join(self.beta)}, the model also has {modality!r}")
        return self.beta[modality]

    def summary(self, spec: ModelSpec) -> str:
        """β, D and β on the other scale, a modality."""
        parts = []
        for modality, shape in sorted(spec.latents.items()):
            beta, d = self.beta_of(modality), math.prod(shape)
            other = f"β/D {beta / d:.3g}" if self.reduction == "mean" else f"β·D {beta * d:.3g}"
            parts.append(f"{modality} β {beta:g} ({self.reduction} scale), D {d}, {other}")
        return "flow_dpo: " + "; ".join(parts)

    def initial_loss(self, spec: ModelSpec) -> float | None:
        """ln 2 a modality; unknown with a winner term."""
        return None if self.winner_weight else math.log(2) * len(spec.latents)

    def batches(self, context: TrainContext, step: int, policy: Model) -> list[PairBatch]:
        """The curriculum's pairs with one t, one noise and one mask a pair."""
        return draw_batches(context, step, policy, self.time_distribution, self.condition_dropout)

    def eval_batches(self, context: TrainContext, policy: Model) -> Iterable[PairBatch]:
        """Held-out pairs at the middle of every t-bin, without dropout."""
        return fixed_batches(context, policy)

    def loss(self, policy: Model, reference: Model | None, batch: PairBatch) -> Loss:
        """One packed 2B forward of the policy, one of the reference; one sigmoid a modality, summed."""
        e_policy = self._errors(policy, batch)
        e_reference = batch.reference_errors
        if e_reference is None:
            assert reference is not None
            e_reference = self.reference_errors(reference, batch)
        contrasts = {key: contrast(e, e_reference[key], self.beta_of(key)) for key, e in e_policy.items()}
        per_pair = torch.stack([part.loss for part in contrasts.values()]).sum(0)  # (B,)
        if self.winner_weight:
            per_pair = per_pair + self.winner_weight * sum(e.chunk(2)[0] for e in e_policy.values())
        with torch.no_grad():
            logs = {"loss": per_pair.detach()} | _logs(contrasts, e_policy, e_reference, batch)
        return Loss(per_pair.mean(), logs)

    def reference_settings(self) -> dict[str, Any]:
        """What shapes the reference's errors, and so what precomputed ones are kept under; β does not."""
        return self.model_dump(include={"time_distribution", "condition_dropout", "reduction"})

    @torch.no_grad()
    def reference_errors(self, reference: Model, batch: PairBatch) -> dict[str, Tensor]:
        """The reference's errors (2B,) a modality, chosen first: all that the loss asks of it."""
        return self._errors(reference, batch)

    def _errors(self, model: Model, batch: PairBatch) -> dict[str, Tensor]:
        x0, x1 = pack(batch.x0, batch.x0), pack(batch.chosen, batch.rejected)
        t, conditions = torch.cat([batch.t, batch.t]), pack(batch.conditions, batch.conditions)
        v = target_velocity(x0, x1)
        prediction = model.velocity(interpolate(x0, x1, t), t, conditions)
        scale = {key: value[0].numel() if self.reduction == "sum" else 1 for key, value in v.items()}
        return {key: scale[key] * squared_error(prediction[key], v[key]) for key in v}


def _logs(
    contrasts: dict[str, Contrast],
    e_policy: dict[str, Tensor],
    e_reference: dict[str, Tensor],
    batch: PairBatch,
) -> dict[str, Tensor]:
    """TRL's names (rewards summed over modalities) and the flow's own (of a joint model with /modality)."""
    chosen = torch.stack([part.reward_chosen for part in contrasts.values()]).sum(0)
    rejected = torch.stack([part.reward_rejected for part in contrasts.values()]).sum(0)
    contested = {"rewards/margins": chosen - rejected, "rewards/accuracies": (chosen > rejected).float()}
    logs = {"rewards/chosen": chosen, "rewards/rejected": rejected, **contested, **by_group(contested, batch)}
    for key, part in contrasts.items():
        suffix = f"/{key}" if len(contrasts) > 1 else ""
        logit = part.reward_chosen - part.reward_rejected
        winner, loser = e_policy[key].chunk(2)
        ref_winner, ref_loser = e_reference[key].chunk(2)
        flow = {
            "winner_err": winner,
            "loser_err": loser,
            "ref_winner_err": ref_winner,
            "ref_loser_err": ref_loser,
            "winner_delta": winner - ref_winner,  # above 0: the winners are being lost
            "loser_delta": loser - ref_loser,
            "gradient_factor": torch.sigmoid(-logit),
            "saturated_frac": (logit.abs() > SATURATED_LOGIT).float(),
        }
        logs |= {f"flow/{name}{suffix}": value.detach() for name, value in flow.items()}
        if suffix:
            logs[f"rewards/margins{suffix}"] = logit
    return {key: value.detach() for key, value in logs.items()}
