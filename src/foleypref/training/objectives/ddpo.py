"""DDPO: policy gradient on the steps of a sampler with noise in it, clipped as in PPO, in groups of one clip.

    ratio = p_policy(x' | x) / p_rollout(x' | x)      log p averaged over elements, see `foleypref.flow.sde`
    A     = (reward - mean of the group) / std of the batch, clipped
    loss  = -min(ratio A, clip(ratio, 1 - ε, 1 + ε) A) + kl_weight ‖mean_policy - mean_reference‖² / (2 std²)

DDPO (arXiv 2305.13301) for flows as Flow-GRPO has it (arXiv 2505.05470), the baseline of arXiv 2603.11089.
Noise goes in, and is learned from, in a window of a few steps that moves from rollout to rollout; before and
after it samples follow the ODE (MixGRPO, arXiv 2507.21802).

Letters: n samples of this process, B of a micro-batch, W steps of the window.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from pydantic import Field, PrivateAttr
from torch import Tensor

from foleypref.flow.convention import Latents, guidance_passes, noise_like_rows
from foleypref.flow.sde import NOISE_LEVELS, Transition, Variant, transition
from foleypref.models.backbones import Conditions, Model, ModelSpec
from foleypref.models.tools import guided_velocity
from foleypref.settings.parts import Part
from foleypref.training.objectives import Loss, TrainContext
from foleypref.training.objectives._rollouts import (
    HeldOut,
    Window,
    held_out_batches,
    judge_samples,
    micro_batches,
    moving_window,
    noise_seeds,
    rollout_logs,
    sample_with_noise,
    sampled_clips,
    times_like,
    unwrapped_model,
    worth_of,
)
from foleypref.workspace.records import Clip

X = "x/"  # begins the keys of a rollout's latents


@dataclass(frozen=True)
class Steps:
    """One trained step of B samples: from x at t to x_next at t + dt, taken with log-density log_prob."""

    item_ids: list[str]  # clips
    x: Latents
    x_next: Latents
    t: float
    dt: float
    log_prob: Float[Tensor, " B"]
    advantage: Float[Tensor, " B"]
    conditions: Conditions
    logs: dict[str, Tensor]  # of the rollout
    on_policy: bool  # nothing was learned since the rollout, so the ratio is 1


class DDPO(Part):
    """Settings; `window` None trains every step. `per_device_train_batch_size` counts samples."""

    group_size: int = Field(8, ge=2)  # samples a clip, compared with each other
    num_steps: int = Field(10, ge=2)  # of a rollout
    window: int | None = Field(2, ge=1)  # steps with noise that are trained, side by side
    latest_start: float = Field(0.5, ge=0, le=1)  # the window starts in this first part of the steps
    variant: Variant = "flow_sde"
    noise_level: float | None = Field(None, gt=0)  # None: the variant's published one
    guidance_scale: float = 1.0  # of rollouts and loss; 1: the policy alone, which may learn guidance
    shared_noise: bool = False  # samples of a group start alike and differ by the window's noise alone
    inner_epochs: int = Field(1, ge=1)  # steps on each rollout
    clip_range: float = Field(1e-4, gt=0)
    advantage_clip: float = Field(5.0, gt=0)
    kl_weight: float = Field(0.01, ge=0)
    eval_num_steps: int = Field(10, ge=1)
    eval_guidance_scale: float = 1.0

    _rollout: dict[str, Tensor] = PrivateAttr(default_factory=dict)  # each (n, ...)
    _steps_left: int = PrivateAttr(default=0)  # that will still use it

    @property
    def needs(self) -> frozenset[str]:
        """Clips to sample, and a reward."""
        return frozenset({"clips", "reward"})

    @property
    def needs_reference(self) -> bool:
        """Where the distance to it costs something."""
        return self.kl_weight > 0

    @property
    def forwards(self) -> float:
        """A sample's share of the rollout, and its trained steps forward and backward."""
        one = guidance_passes(self.guidance_scale)
        return one * (self.num_steps / self.inner_epochs + self._width * (3 + self.needs_reference))

    @property
    def shared_state(self) -> bool:
        """Each process has the rollout of its own samples."""
        return False

    def state(self) -> dict[str, Tensor]:
        """The rollout, while steps are left that learn from it."""
        return self._rollout if self._steps_left else {}

    def restore(self, state: Mapping[str, Tensor], policy: Model) -> None:
        """Take a rollout up again."""
        self._rollout = dict(state)

    def summary(self, spec: ModelSpec) -> str:
        """What is sampled, and which steps learn."""
        return (
            f"ddpo: groups of {self.group_size}, {self._width} of {self.num_steps} steps trained with "
            f"{self.variant} {self._noise_level:g}, clip {self.clip_range:g}, KL weight {self.kl_weight:g}, "
            f"guidance {self.guidance_scale:g}"
        )

    def initial_loss(self, spec: ModelSpec) -> float | None:
        """Minus the share's mean advantage; that the ratio is 1 is checked in `loss` instead."""
        return None

    def batches(self, context: TrainContext, step: int, policy: Model) -> list[Steps]:
        """Every trained step of every micro-batch of samples, from a new rollout if it is time for one."""
        number, epoch = divmod(step, self.inner_epochs)
        clips = sampled_clips(context, number, self.group_size)
        window = self._window(context, number)
        if epoch == 0:
            self._rollout = self._roll_out(context, number, unwrapped_model(policy), clips, window)
        assert self._rollout, f"step {step} goes on with a rollout that nobody kept"
        self._steps_left = self.inner_epochs - 1 - epoch
        found = []
        for share, rows in micro_batches(context, self._rollout):
            ids = [clip.clip_id for clip in clips[share]]
            conditions = context.conditions(ids)
            for at, (t, then) in enumerate(window.steps):
                places = _at(rows, at), _at(rows, at + 1), t, then - t, rows["log_prob"][:, at]
                logs = rollout_logs(rows)
                found.append(Steps(ids, *places, rows["advantage"], conditions, logs, epoch == 0))
        return found

    def eval_batches(self, context: TrainContext, policy: Model) -> Iterable[HeldOut]:
        """The reward, and what is watched, of one sample of every held-out clip, by the ODE."""
        return held_out_batches(
            context,
            policy,
            group_size=self.group_size,
            num_steps=self.eval_num_steps,
            guidance_scale=self.eval_guidance_scale,
        )

    def loss(self, policy: Model, reference: Model | None, batch: Steps | HeldOut) -> Loss:
        """The clipped policy gradient of one step of B samples, and the distance to the reference."""
        if isinstance(batch, HeldOut):
            return batch.loss()
        step = self._transition(policy, batch.conditions, batch.x, batch.t, batch.dt)
        log_ratio = step.log_prob(batch.x_next) - batch.log_prob
        if batch.on_policy and log_ratio.any():
            raise ValueError(
                f"the ratio is {log_ratio.exp().mean().item():.9f} before anything was learned from the "
                "rollout, it must be exactly 1; the model gives two answers to one question (randomness "
                "inside velocity, or a batch that is computed otherwise with a gradient?)"
            )
        ratio = log_ratio.exp()
        per_sample = clipped_loss(ratio, batch.advantage, self.clip_range)
        logs = {
            "ratio": ratio,
            "clipfrac/upper": (ratio > 1 + self.clip_range).float(),
            "clipfrac/lower": (ratio < 1 - self.clip_range).float(),
            "approx_kl": log_ratio.square() / 2,
            "policy_loss": per_sample,
        }
        if self.kl_weight:
            assert reference is not None
            with torch.no_grad():
                anchor = self._transition(reference, batch.conditions, batch.x, batch.t, batch.dt)
            logs["kl_loss"] = step.divergence(anchor.mean)
            per_sample = per_sample + self.kl_weight * logs["kl_loss"]
        logs |= {"loss": per_sample, **batch.logs}
        return Loss(per_sample.mean(), {key: value.detach() for key, value in logs.items()})

    @property
    def _width(self) -> int:
        return self.num_steps if self.window is None else min(self.window, self.num_steps)

    @property
    def _noise_level(self) -> float:
        return NOISE_LEVELS[self.variant] if self.noise_level is None else self.noise_level

    def _window(self, context: TrainContext, number: int) -> Window:
        """The same for all samples of a rollout, as rewards under different noise do not compare."""
        generator = context.generator(number, "window")
        return moving_window(generator, self.num_steps, self._width, self.latest_start)

    @torch.no_grad()
    def _roll_out(
        self, context: TrainContext, number: int, policy: Model, clips: list[Clip], window: Window
    ) -> dict[str, Tensor]:
        """Sample and judge this process's share: tensors (n, ...)."""
        parts, judged = [], []
        for share in context.shares():
            rows, samples = self._sample(context, number, share, policy, clips[share], window)
            parts.append(rows)
            judged.append(judge_samples(context, clips[share], samples))
        found = {key: torch.cat([rows[key] for rows in parts]) for key in parts[0]}
        return found | worth_of(context, judged, self.group_size, self.advantage_clip)

    def _sample(
        self,
        context: TrainContext,
        number: int,
        share: slice,
        policy: Model,
        clips: list[Clip],
        window: Window,
    ) -> tuple[dict[str, Tensor], Latents]:
        """Samples of a share, and where they were in the window (B, W + 1, ...), with log_prob (B, W)."""
        conditions = context.conditions([clip.clip_id for clip in clips])
        shapes = policy.spec.latents

        def noise(index: int) -> Latents:
            seeds = noise_seeds(context, number, share, f"step {index}", self.group_size)
            return noise_like_rows(shapes, seeds)

        seeds = noise_seeds(context, number, share, "x0", self.group_size, shared=self.shared_noise)
        taken = sample_with_noise(
            {key: value.to(context.device) for key, value in noise_like_rows(shapes, seeds).items()},
            window,
            guided_velocity(policy, conditions, self.guidance_scale, prepare=True),
            lambda x, t, dt: self._transition(policy, conditions, x, t, dt),
            noise,
        )
        rows = {X + key: torch.stack([at[key] for at in taken.path], dim=1) for key in shapes}
        return rows | {"log_prob": taken.log_prob}, taken.samples

    def _transition(
        self, model: Model, conditions: Conditions, x: Latents, t: float, dt: float
    ) -> Transition:
        """Where the model's step from x at t may lead."""
        v = guided_velocity(model, conditions, self.guidance_scale)(x, times_like(x, t))
        return transition(self.variant, v, x, t, dt, self._noise_level)


def _at(rows: Mapping[str, Tensor], place: int) -> Latents:
    """The latents at one place of the window, laid out as they were in the rollout."""
    return {k.removeprefix(X): v[:, place].contiguous() for k, v in rows.items() if k.startswith(X)}


def clipped_loss(
    ratio: Float[Tensor, " B"], advantage: Float[Tensor, " B"], clip_range: float
) -> Float[Tensor, " B"]:
    """-min(ratio A, clip(ratio, 1 ± ε) A): no gradient once a step has gone ε its way (arXiv 1707.06347)."""
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    return -torch.minimum(ratio * advantage, clipped * advantage)
