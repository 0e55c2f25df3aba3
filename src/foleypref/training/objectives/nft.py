"""DiffusionNFT: lean towards good samples of the policy and away from bad ones, online (arXiv 2509.16117).

    v⁺ = (1-b) v_old + b v_policy        v⁻ = (1+b) v_old - b v_policy        x̂1(v) = x_t + (1-t) v
    r  = ½ + ½ clip(A / 5, ±1)           w(v) = 1 / mean |x̂1(v) - x1|, without gradient
    loss = (5/b) [r w(v⁺) mean (x̂1(v⁺) - x1)² + (1-r) w(v⁻) mean (x̂1(v⁻) - x1)²]
           + λ mean (v_policy - v_reference)²

x1 are samples of v_old by any solver, A their advantage in groups of one clip, x_t = (1-t) x0 + t x1 at a new
t and noise x0: no step of the sampler needs a density. v_old is a moving average of the policy whose decay
rises: on-policy at first, slower later.

Letters: N samples of the global batch, B of a micro-batch, x0 noise, x1 data, t time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

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
from foleypref.settings.parts import Part
from foleypref.training.objectives import Loss, TrainContext
from foleypref.training.objectives._rollouts import (
    HeldOut,
    held_out_batches,
    judge_samples,
    micro_batches,
    noise_seeds,
    rollout_logs,
    sampled_clips,
    unwrapped_model,
    worth_of,
)
from foleypref.training.reward import Judged
from foleypref.workspace.records import Clip

LEAST_ERROR = 1e-5  # floor of the mean that weights are one over


@dataclass(frozen=True)
class Noised:
    """B samples at one time and noise each, and how good they are."""

    item_ids: list[str]  # clips
    x0: Latents
    x1: Latents
    t: Float[Tensor, " B"]
    optimality: Float[Tensor, " B"]  # r
    conditions: Conditions
    logs: dict[str, Tensor]  # of the rollout


class Sampled(NamedTuple):
    """A micro-batch of judged samples."""

    ids: list[str]  # clips
    conditions: Conditions
    samples: Latents
    judged: Judged


class NFT(Part):
    """Settings. `per_device_train_batch_size` counts samples."""

    group_size: int = Field(8, ge=2)  # samples a clip, compared with each other
    num_steps: int = Field(10, ge=1)  # of a rollout
    solver: AnySolver = "euler"
    guidance_scale: float = 1.0  # of rollouts; above 1 the policy learns to do without
    num_times: int = Field(2, ge=1)  # times and noises that each sample is trained at
    strength: float = Field(1.0, gt=0)  # b; smaller asks more of the policy for the same v⁺
    advantage_clip: float = Field(5.0, gt=0)
    decay_rate: float = Field(0.001, ge=0)  # of v_old's average: its decay is rate · step,
    decay_max: float = Field(0.5, ge=0, lt=1)  # up to this
    reference_weight: float = Field(1e-4, ge=0)  # λ
    eval_num_steps: int = Field(10, ge=1)
    eval_guidance_scale: float = 1.0

    _old: Model | None = PrivateAttr(default=None)  # v_old, as of step _old_step
    _old_step: int = PrivateAttr(default=-1)

    @property
    def needs(self) -> frozenset[str]:
        """Clips to sample, and a reward."""
        return frozenset({"clips", "reward"})

    @property
    def needs_reference(self) -> bool:
        """Where the distance to it costs something."""
        return self.reference_weight > 0

    @property
    def forwards(self) -> float:
        """A sample's rollout, and at each time v_policy forward and backward, v_old and the reference."""
        rollout = self.num_steps * passes_per_step(self.solver) * guidance_passes(self.guidance_scale)
        return rollout + self.num_times * (3 + 1 + self.needs_reference)

    @property
    def shared_state(self) -> bool:
        """v_old is the same on every process."""
        return True

    def state(self) -> dict[str, Tensor]:
        """The weights of v_old."""
        return {} if self._old is None else trained_state(self._old.network)

    def restore(self, state: Mapping[str, Tensor], policy: Model) -> None:
        """Take v_old up again."""
        self._old = frozen_copy(policy)
        load_trained_state(self._old.network, dict(state))

    def summary(self, spec: ModelSpec) -> str:
        """What is sampled, and how far v_old lags."""
        return (
            f"nft: groups of {self.group_size} by {self.num_steps} steps of {self.solver}, "
            f"{self.num_times} times a sample, b {self.strength:g}, decay of v_old {self.decay_rate:g} a "
            f"step up to {self.decay_max:g}"
        )

    def initial_loss(self, spec: ModelSpec) -> float | None:
        """Depends on the samples."""
        return None

    def batches(self, context: TrainContext, step: int, policy: Model) -> list[Noised]:
        """Samples of v_old, each at `num_times` times."""
        old = self._refresh(step, unwrapped_model(policy))
        clips = sampled_clips(context, step, self.group_size)
        parts = [self._sample(context, step, share, old, clips[share]) for share in context.shares()]
        judged = [part.judged for part in parts]
        worth = worth_of(context, judged, self.group_size, self.advantage_clip)
        times = sample_times(len(clips) * self.num_times, context.generator(step, "t"))
        found = []
        for part, (share, rows) in zip(parts, micro_batches(context, worth), strict=True):
            r = 0.5 + 0.5 * (rows["advantage"] / self.advantage_clip).clamp(-1, 1)
            t = times.reshape(-1, self.num_times)[share].to(context.device)
            logs = rollout_logs(rows) | {"nft/optimality": r}
            for at in range(self.num_times):
                seeds = noise_seeds(context, step, share, f"time {at}", self.group_size)
                x0 = noise_like_rows(policy.spec.latents, seeds)
                x0 = {key: value.to(context.device) for key, value in x0.items()}
                found.append(Noised(part.ids, x0, part.samples, t[:, at], r, part.conditions, logs))
        return found

    def eval_batches(self, context: TrainContext, policy: Model) -> Iterable[HeldOut]:
        """The reward, and what is watched, of one sample of every held-out clip."""
        return held_out_batches(
            context,
            policy,
            group_size=self.group_size,
            num_steps=self.eval_num_steps,
            guidance_scale=self.eval_guidance_scale,
        )

    def loss(self, policy: Model, reference: Model | None, batch: Noised | HeldOut) -> Loss:
        """The two weighted errors of B samples, and the distance to the reference."""
        if isinstance(batch, HeldOut):
            return batch.loss()
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
        logs |= {"loss": per_sample, **batch.logs}
        return Loss(per_sample.mean(), {key: value.detach() for key, value in logs.items()})

    @torch.no_grad()
    def _refresh(self, step: int, policy: Model) -> Model:
        """v_old of a step: a copy of the policy at first, then its moving average, once a step."""
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
        self, context: TrainContext, step: int, share: slice, old: Model, clips: list[Clip]
    ) -> Sampled:
        ids = [clip.clip_id for clip in clips]
        conditions = context.conditions(ids)
        samples = sample_latents(
            old,
            conditions,
            noise_seeds(context, step, share, "x0", self.group_size),
            num_steps=self.num_steps,
            guidance_scale=self.guidance_scale,
            solver=self.solver,
        )
        return Sampled(ids, conditions, samples, judge_samples(context, clips, samples))


def implicit_velocities(v: Latents, v_old: Latents, b: float) -> tuple[Latents, Latents]:
    """(v⁺, v⁻): v_old moved by b towards the policy's v, and as far away from it."""
    good = {key: (1 - b) * v_old[key] + b * v[key] for key in v}
    bad = {key: (1 + b) * v_old[key] - b * v[key] for key in v}
    return good, bad


def weighted_error(v: Latents, x_t: Latents, x1: Latents, t: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """Mean squared error of x̂1 = x_t + (1-t) v over all elements, by its mean absolute error: (B,).

    No gradient goes through the latter.
    """
    errors = [x_t[key] + (1 - expand(t, v[key])) * v[key] - x1[key] for key in sorted(v)]
    error = torch.cat([e.flatten(1) for e in errors], dim=1)  # (B, D)
    weight = 1 / error.detach().double().abs().mean(1).clamp_min(LEAST_ERROR)
    return error.square().mean(1) * weight.to(error.dtype)


def _float(v: Latents) -> Latents:
    return {key: value.float() for key, value in v.items()}
