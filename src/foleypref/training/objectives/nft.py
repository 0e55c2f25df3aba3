"""DiffusionNFT: lean towards good samples of the policy and away from bad ones, online (arXiv 2509.16117).

    v⁺ = (1-b) v_old + b v_policy        v⁻ = (1+b) v_old - b v_policy        x̂1(v) = x_t + (1-t) v
    r  = ½ + ½ clip(A / 5, ±1)           w(v) = 1 / mean |x̂1(v) - x1|, without gradient
    loss = (5/b) [r w(v⁺) mean (x̂1(v⁺) - x1)² + (1-r) w(v⁻) mean (x̂1(v⁻) - x1)²]
           + λ mean (v_policy - v_reference)²

x1 are samples of v_old by any solver, A is their advantage in groups of one clip, x_t = (1-t) x0 + t x1 at a
new t and noise x0, so no step of the sampler needs a density. v_old is a moving average of the policy whose
decay rises: on-policy at first, slower later.

Letters: N samples of the global batch, B of a micro-batch, x0 noise, x1 data, t time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from pydantic import Field, PrivateAttr
from torch import Tensor

from foleypref.flow.convention import (
    Latents,
    expand,
    guidance_passes,
    interpolate,
    noise_like_rows,
    sample_times,
)
from foleypref.flow.sde import mean_square
from foleypref.flow.solvers import AnySolver, passes_per_step
from foleypref.models.backbones import Conditions, Model, ModelSpec
from foleypref.models.lora import load_trained_state, trained_state
from foleypref.models.tools import frozen_copy, sample_latents
from foleypref.training.context import TrainContext
from foleypref.training.objectives import _rollouts as rollouts
from foleypref.training.objectives._online import OnlineObjective
from foleypref.workspace.records import Clip

LEAST_ERROR = 1e-5  # floor of the mean error that weights are the inverse of


@dataclass(frozen=True)
class Noised:
    """B samples with one time and one noise each, and how good they are."""

    item_ids: list[str]  # of the clips
    x0: Latents
    x1: Latents
    t: Float[Tensor, " B"]
    optimality: Float[Tensor, " B"]  # r
    conditions: Conditions
    logs: dict[str, Tensor]  # of the rollout


class NFT(OnlineObjective):
    """Contrast of two implicit policies around v_old. `per_device_train_batch_size` counts samples."""

    shared_state: ClassVar[bool] = True  # v_old is the same on every process

    group_size: int = Field(8, ge=2)  # samples per clip, compared with each other
    num_steps: int = Field(10, ge=1)  # of a rollout
    solver: AnySolver = "euler"
    guidance_scale: float = 1.0  # of rollouts; above 1 the policy learns to do without guidance
    num_times: int = Field(2, ge=1)  # times and noises that each sample is trained at
    strength: float = Field(1.0, gt=0)  # b; a smaller b moves the policy farther for the same v⁺
    advantage_clip: float = Field(5.0, gt=0)
    decay_rate: float = Field(0.001, ge=0)  # the decay of v_old's average is rate · step,
    decay_max: float = Field(0.5, ge=0, lt=1)  # up to this
    reference_weight: float = Field(1e-4, ge=0)  # λ
    eval_num_steps: int = Field(10, ge=1)
    eval_guidance_scale: float = 1.0

    _old: Model | None = PrivateAttr(default=None)  # v_old, as of step _old_step
    _old_step: int = PrivateAttr(default=-1)

    @property
    def needs_reference(self) -> bool:
        """Whether the distance to the reference has a weight."""
        return self.reference_weight > 0

    @property
    def forwards(self) -> float:
        """Passes of a sample: its rollout, and at each time v_policy (3), v_old (1) and the reference (1)."""
        rollout = self.num_steps * passes_per_step(self.solver) * guidance_passes(self.guidance_scale)
        return rollout + self.num_times * (3 + 1 + self.needs_reference)

    def state(self) -> dict[str, Tensor]:
        """Return the weights of v_old."""
        return {} if self._old is None else trained_state(self._old.network)

    def restore(self, state: Mapping[str, Tensor], policy: Model) -> None:
        """Set v_old to stored weights."""
        self._old = frozen_copy(policy)
        load_trained_state(self._old.network, dict(state))

    def summary(self, spec: ModelSpec) -> str:
        """Return the groups, the sampler, b, and how far v_old lags."""
        return (
            f"nft: groups of {self.group_size} by {self.num_steps} steps of {self.solver}, "
            f"{self.num_times} times per sample, b {self.strength:g}, decay of v_old {self.decay_rate:g} "
            f"per step up to {self.decay_max:g}"
        )

    def batches(self, context: TrainContext, step: int, policy: Model) -> list[Noised]:
        """Return samples of v_old, each at `num_times` times."""
        old = self._refresh(step, rollouts.unwrapped_model(policy))
        clips = rollouts.sampled_clips(context, step, self.group_size)
        parts, judged = [], []
        for rows in context.layout.slices():
            conditions, samples = self._sample(context, step, rows, old, clips=clips[rows])
            parts.append((conditions, samples))
            judged.append(rollouts.judge_samples(context, clips[rows], samples))
        all_worth = rollouts.worth_of(context, judged, self.group_size, self.advantage_clip)
        own_worth = rollouts.micro_batches(context, all_worth)
        times = sample_times(len(clips) * self.num_times, context.generator(step, "t"))
        batches = []
        for (conditions, samples), (rows, worth) in zip(parts, own_worth, strict=True):
            r = 0.5 + 0.5 * (worth["advantage"] / self.advantage_clip).clamp(-1, 1)
            t = times.reshape(-1, self.num_times)[rows].to(context.layout.device)
            for at in range(self.num_times):
                seeds = rollouts.noise_seeds(context, step, rows, f"time {at}")
                batches.append(
                    Noised(
                        item_ids=[clip.clip_id for clip in clips[rows]],
                        x0=context.on_device(noise_like_rows(policy.spec.latents, seeds)),
                        x1=samples,
                        t=t[:, at],
                        optimality=r,
                        conditions=conditions,
                        logs=rollouts.rollout_logs(worth) | {"nft/optimality": r},
                    )
                )
        return batches

    def sample_losses(
        self, policy: Model, reference: Model | None, batch: Noised
    ) -> tuple[Float[Tensor, " B"], dict[str, Tensor]]:
        """Return the two weighted errors of B samples, and the distance to the reference."""
        assert self._old is not None, "batches() comes before loss()"
        x_t = interpolate(batch.x0, batch.x1, batch.t)
        v = _float(policy.velocity(x_t, batch.t, batch.conditions))
        with torch.no_grad():
            v_old = _float(self._old.velocity(x_t, batch.t, batch.conditions))
        good, bad = implicit_velocities(v, v_old, self.strength)
        scale = self.advantage_clip / self.strength
        logs = {
            "nft/good": scale * weighted_error(good, x_t, batch.x1, batch.t),
            "nft/bad": scale * weighted_error(bad, x_t, batch.x1, batch.t),
            "nft/old_distance": mean_square(v, v_old),
        }
        per_sample = batch.optimality * logs["nft/good"] + (1 - batch.optimality) * logs["nft/bad"]
        if self.reference_weight:
            assert reference is not None
            with torch.no_grad():
                anchor = reference.velocity(x_t, batch.t, batch.conditions)
            logs["kl_loss"] = mean_square(v, anchor)
            per_sample = per_sample + self.reference_weight * logs["kl_loss"]
        return per_sample, logs

    @torch.no_grad()
    def _refresh(self, step: int, policy: Model) -> Model:
        """Return v_old of a step: a copy of the policy at first, then its average, moved once per step."""
        if self._old is None:
            self._old = frozen_copy(policy)
        elif step != self._old_step:
            decay = min(self.decay_rate * step, self.decay_max)
            pairs = zip(self._old.network.parameters(), policy.network.parameters(), strict=True)
            for old, now in pairs:
                if now.requires_grad:
                    old.copy_(torch.lerp(now, old, decay))
        self._old_step = step
        return self._old

    @torch.no_grad()
    def _sample(
        self, context: TrainContext, step: int, rows: slice, old: Model, *, clips: list[Clip]
    ) -> tuple[Conditions, Latents]:
        """Return a micro-batch of samples of v_old, and the conditions that they were made from."""
        conditions = context.conditions([clip.clip_id for clip in clips])
        samples = sample_latents(
            old,
            conditions,
            rollouts.noise_seeds(context, step, rows, "x0"),
            num_steps=self.num_steps,
            guidance_scale=self.guidance_scale,
            solver=self.solver,
        )
        return conditions, samples


def implicit_velocities(v: Latents, v_old: Latents, b: float) -> tuple[Latents, Latents]:
    """Return (v⁺, v⁻): v_old moved by b towards the policy's v, and as far away from it."""
    good = {key: (1 - b) * v_old[key] + b * v[key] for key in v}
    bad = {key: (1 + b) * v_old[key] - b * v[key] for key in v}
    return good, bad


def weighted_error(v: Latents, x_t: Latents, x1: Latents, t: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """Return the mean squared error of x̂1 = x_t + (1-t) v over all elements, over its mean absolute error.

    No gradient goes through the mean absolute error.
    """
    errors = [x_t[key] + (1 - expand(t, v[key])) * v[key] - x1[key] for key in sorted(v)]
    error = torch.cat([e.flatten(1) for e in errors], dim=1)  # (B, D)
    weight = 1 / error.detach().double().abs().mean(1).clamp_min(LEAST_ERROR)
    return error.square().mean(1) * weight.to(error.dtype)


def _float(v: Latents) -> Latents:
    return {key: value.float() for key, value in v.items()}
