"""Flow-DPO: prefer the chosen latents over the rejected ones, against a frozen reference.

    e = mean over all latent elements of (v − (x1 − x0))²      of policy and of reference, float32
    Δ = e_policy − e_reference
    loss = −log σ(−β/2 · (Δ_chosen − Δ_rejected))

This is equation 5 of arXiv 2603.11089 with its bracket closed after the loser, as in Diffusion-DPO (arXiv
2311.12908, Eq. 14) and VideoAlign (arXiv 2501.13918). As printed, the bracket ends after the winner, and the
loss would lower the loser's error too.

Other losses, label smoothing and the safeguard of the winners are in `_contrast.py`, other noise in
`_noise.py`; every default is the paper's.

Letters: B pairs, D latent elements, w chosen (winner), l rejected (loser).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sized
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from foleypref.flow.convention import Latents, interpolate, squared_error, target_velocity
from foleypref.models.backbones import Model, ModelSpec
from foleypref.training.context import TrainContext
from foleypref.training.objectives import Loss, PrecomputableObjective
from foleypref.training.objectives._contrast import (
    INITIAL,
    SATURATED_LOGIT,
    BetaSchedule,
    Contrast,
    LossType,
    Scope,
    beta_at,
    beta_of,
    contrast,
    gradient_factor,
    loser_scale,
    with_scaled_loser,
)
from foleypref.training.objectives._groups import by_group
from foleypref.training.objectives._noise import Noise, with_noise
from foleypref.training.objectives._pairs import PairBatch, draw_batches, fixed_batches, pack
from foleypref.training.objectives._states import TimeDistribution


class FlowDPO(PrecomputableObjective):
    """Direct preference optimisation on velocity errors; `beta` is a number, or one per modality."""

    needs: ClassVar[frozenset[str]] = frozenset({"pairs"})
    needs_reference: ClassVar[bool] = True
    forwards: ClassVar[float] = 2 * (3 + 1)  # chosen and rejected, by the policy (3) and the reference (1)

    beta: float | dict[str, float] = 600.0  # on the mean scale; the sum scale has β/D
    winner_weight: float = Field(0.0, ge=0)  # λ of the term λ·e_policy(chosen), which holds the winners
    time_distribution: TimeDistribution = "uniform"
    condition_dropout: float = Field(0.0, ge=0, lt=1)  # one mask per pair, for all four evaluations
    reduction: Literal["mean", "sum"] = "mean"
    loss_type: LossType = "sigmoid"
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)  # share of pairs assumed to be labelled the wrong way
    beta_schedule: BetaSchedule = "constant"  # "t_squared": β t², weak on noise, β on data
    safeguard: float | None = Field(None, ge=0, le=1)  # μ of Diffusion-SDPO; None: off, 0: weakest
    safeguard_scope: Scope = "pair"  # "batch", as released, depends on how the batch is cut
    noise: Noise = "shared"  # "tracked": the noise that made each candidate; held-out pairs share theirs

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.label_smoothing and self.loss_type != "sigmoid":
            raise ValueError(
                f"label_smoothing {self.label_smoothing:g} is of loss_type sigmoid, found {self.loss_type}; "
                "set it to 0"
            )
        return self

    def summary(self, spec: ModelSpec) -> str:
        """Return β, D and β on the other scale for each modality, and the settings that are not default."""
        parts = []
        for modality, shape in sorted(spec.latents.items()):
            beta, d = beta_of(self.beta, modality, "flow_dpo"), math.prod(shape)
            other = f"β/D {beta / d:.3g}" if self.reduction == "mean" else f"β·D {beta * d:.3g}"
            parts.append(f"{modality} β {beta:g} ({self.reduction} scale), D {d}, {other}")
        for name in ("loss_type", "label_smoothing", "beta_schedule", "safeguard", "noise"):
            if getattr(self, name) != type(self).model_fields[name].default:
                parts.append(f"{name} {getattr(self, name)}")
        return "flow_dpo: " + "; ".join(parts)

    def initial_loss(self, spec: ModelSpec) -> float | None:
        """Return ln 2 per modality (ipo: ¼, hinge: 1); None with a winner term."""
        return None if self.winner_weight else INITIAL[self.loss_type] * len(spec.latents)

    def batches(self, context: TrainContext, step: int, policy: Model) -> list[PairBatch]:
        """Return the curriculum's pairs: one t and one mask each, one noise unless `noise` says otherwise."""
        times, dropout = self.time_distribution, self.condition_dropout
        batches = draw_batches(context, step, policy, times=times, dropout=dropout)
        return with_noise(context, step, policy, batches, noise=self.noise)

    def eval_batches(self, context: TrainContext, policy: Model) -> Iterable[PairBatch]:
        """Return held-out pairs at the middle of every time bin, without dropout."""
        return fixed_batches(context, policy)

    def loss(self, policy: Model, reference: Model | None, batch: PairBatch) -> Loss:
        """Return the loss, summed over modalities; chosen and rejected share one forward of 2B rows."""
        prediction, v = self._predict(policy, batch)
        e_policy = self._reduced(prediction, v)
        e_reference = batch.reference_errors
        if e_reference is None:
            assert reference is not None
            e_reference = self.reference_errors(reference, batch)
        guarded, scales = e_policy, {}
        if self.safeguard is not None:
            mu, scope = self.safeguard, self.safeguard_scope
            scales = {key: loser_scale(prediction[key].detach() - v[key], mu, scope) for key in v}
            guarded = {key: with_scaled_loser(e_policy[key], scales[key]) for key in v}
        contrasts, smoothing = {}, self.label_smoothing
        for key, e in guarded.items():
            beta = beta_at(beta_of(self.beta, key, "flow_dpo"), batch.t, self.beta_schedule)
            contrasts[key] = contrast(e, e_reference[key], beta, self.loss_type, label_smoothing=smoothing)
        per_pair = torch.stack([part.loss for part in contrasts.values()]).sum(0)  # (B,)
        if self.winner_weight:
            per_pair = per_pair + self.winner_weight * sum(e.chunk(2)[0] for e in e_policy.values())
        with torch.no_grad():
            logs = {"loss": per_pair.detach()} | self._logs(contrasts, e_policy, e_reference, batch)
            for key, scale in scales.items():
                logs[f"flow/safeguard_scale{_suffix(key, scales)}"] = scale
        return Loss(per_pair.mean(), logs)

    def reference_settings(self) -> dict[str, Any]:
        """Return the settings that change the reference's errors; β is not among them."""
        return self.model_dump(include={"time_distribution", "condition_dropout", "reduction", "noise"})

    @torch.no_grad()
    def reference_errors(self, reference: Model, batch: PairBatch) -> dict[str, Tensor]:
        """Return the reference's errors (2B,) by modality, chosen first."""
        return self._reduced(*self._predict(reference, batch))

    def _predict(self, model: Model, batch: PairBatch) -> tuple[Latents, Latents]:
        """Return the model's velocities and the straight path's (2B, ...), chosen first."""
        x0_rejected = batch.x0 if batch.x0_rejected is None else batch.x0_rejected
        x0, x1 = pack(batch.x0, x0_rejected), pack(batch.chosen, batch.rejected)
        t, conditions = torch.cat([batch.t, batch.t]), pack(batch.conditions, batch.conditions)
        return model.velocity(interpolate(x0, x1, t), t, conditions), target_velocity(x0, x1)

    def _reduced(self, prediction: Latents, v: Latents) -> dict[str, Tensor]:
        scale = {key: value[0].numel() if self.reduction == "sum" else 1 for key, value in v.items()}
        return {key: scale[key] * squared_error(prediction[key], v[key]) for key in v}

    def _logs(
        self,
        contrasts: dict[str, Contrast],
        e_policy: dict[str, Tensor],
        e_reference: dict[str, Tensor],
        batch: PairBatch,
    ) -> dict[str, Tensor]:
        """Return logs under TRL's names, summed over modalities, and under names for flows, per modality."""
        chosen = torch.stack([part.reward_chosen for part in contrasts.values()]).sum(0)
        rejected = torch.stack([part.reward_rejected for part in contrasts.values()]).sum(0)
        contested = {"rewards/margins": chosen - rejected, "rewards/accuracies": (chosen > rejected).float()}
        logs = {
            "rewards/chosen": chosen,
            "rewards/rejected": rejected,
            **contested,
            **by_group(contested, batch.groups),
        }
        if batch.tracked is not None:
            logs["flow/tracked_frac"] = batch.tracked
        for key, part in contrasts.items():
            suffix = _suffix(key, contrasts)
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
                "gradient_factor": gradient_factor(logit, self.loss_type, self.label_smoothing),
                "saturated_frac": (logit.abs() > SATURATED_LOGIT).float(),
            }
            logs |= {f"flow/{name}{suffix}": value.detach() for name, value in flow.items()}
            if suffix:
                term = {f"rewards/margins{suffix}": logit, f"rewards/accuracies{suffix}": (logit > 0).float()}
                # how one distorted modality moves the other
                logs |= term | by_group(term, batch.groups, "modality/")
        return {key: value.detach() for key, value in logs.items()}


def _suffix(key: str, modalities: Sized) -> str:
    return f"/{key}" if len(modalities) > 1 else ""
