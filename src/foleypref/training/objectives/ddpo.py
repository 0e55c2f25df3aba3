"""DDPO: policy gradient on the steps of a sampler with noise in it, clipped as in PPO, in groups of one clip.

    ratio = p_policy(x' | x) / p_rollout(x' | x)      log p averaged over elements, see `foleypref.flow.sde`
    A     = (reward - mean of the group) / std of the batch, clipped
    loss  = -min(ratio A, clip(ratio, 1 - ε, 1 + ε) A) + kl_weight ‖mean_policy - mean_reference‖² / (2 std²)

This is DDPO (arXiv 2305.13301) for flows, in the form of Flow-GRPO (arXiv 2505.05470): the baseline of arXiv
2603.11089. Only a window of a few steps adds noise and is learned from. It moves from rollout to rollout;
before and after it samples follow the ODE (MixGRPO, arXiv 2507.21802).

Letters: n samples of this process, B of a micro-batch, W steps of the window.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from pydantic import Field, PrivateAttr
from torch import Tensor

from foleypref.flow.convention import Latents, guidance_passes, noise_like_rows
from foleypref.flow.sde import NOISE_LEVELS, Transition, Variant, transition
from foleypref.models.backbones import Conditions, Model, ModelSpec
from foleypref.models.tools import guided_velocity
from foleypref.training.context import TrainContext
from foleypref.training.objectives import _rollouts as rollouts
from foleypref.training.objectives._online import OnlineObjective
from foleypref.training.objectives._window import Window, moving_window, sample_with_noise, times_like
from foleypref.workspace.records import Clip

LATENT_PREFIX = "x/"  # of the keys of a rollout's latents


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
    on_policy: bool  # whether nothing was learned since the rollout, so that the ratio is 1


class DDPO(OnlineObjective):
    """Clipped policy gradient in groups of samples; `per_device_train_batch_size` counts samples."""

    shared_state: ClassVar[bool] = False  # each process has the rollout of its own samples

    group_size: int = Field(8, ge=2)  # samples per clip, compared with each other
    num_steps: int = Field(10, ge=2)  # of a rollout
    window: int | None = Field(2, ge=1)  # neighbouring steps that add noise and are trained; None: all
    latest_start: float = Field(0.5, ge=0, le=1)  # the window starts within this first share of the steps
    variant: Variant = "flow_sde"
    noise_level: float | None = Field(None, gt=0)  # None: the published one of the variant
    guidance_scale: float = 1.0  # of rollouts and loss; 1: no guidance, which the policy may then learn
    shared_noise: bool = False  # samples of a group differ only by the noise of the window
    inner_epochs: int = Field(1, ge=1)  # training steps per rollout
    clip_range: float = Field(1e-4, gt=0)
    advantage_clip: float = Field(5.0, gt=0)
    kl_weight: float = Field(0.01, ge=0)
    eval_num_steps: int = Field(10, ge=1)
    eval_guidance_scale: float = 1.0

    _rollout: dict[str, Tensor] = PrivateAttr(default_factory=dict)  # each (n, ...)
    _steps_left: int = PrivateAttr(default=0)  # training steps that will still use the rollout

    @property
    def needs_reference(self) -> bool:
        """Whether the distance to the reference has a weight."""
        return self.kl_weight > 0

    @property
    def forwards(self) -> float:
        """Passes of a sample: its share of the rollout, and its trained steps forward and backward."""
        per_step = guidance_passes(self.guidance_scale)
        return per_step * (self.num_steps / self.inner_epochs + self._width * (3 + self.needs_reference))

    def state(self) -> dict[str, Tensor]:
        """Return the rollout while steps are left that learn from it, else nothing."""
        return self._rollout if self._steps_left else {}

    def restore(self, state: Mapping[str, Tensor], policy: Model) -> None:
        """Go on with a stored rollout."""
        self._rollout = dict(state)

    def summary(self, spec: ModelSpec) -> str:
        """Return the groups, the trained steps and the weights of the loss."""
        return (
            f"ddpo: groups of {self.group_size}, {self._width} of {self.num_steps} steps trained with "
            f"{self.variant} {self._noise_level:g}, clip {self.clip_range:g}, KL weight {self.kl_weight:g}, "
            f"guidance {self.guidance_scale:g}"
        )

    def batches(self, context: TrainContext, step: int, policy: Model) -> list[Steps]:
        """Return every trained step of every micro-batch of samples, from a new rollout if one is due."""
        number, epoch = divmod(step, self.inner_epochs)
        clips = rollouts.sampled_clips(context, number, self.group_size)
        # one window for all samples, because rewards under different noise do not compare
        generator = context.generator(number, "window")
        window = moving_window(generator, self.num_steps, self._width, self.latest_start)
        if epoch == 0:
            self._rollout = self._roll_out(
                context, number, rollouts.unwrapped_model(policy), clips, window=window
            )
        assert self._rollout, f"step {step} goes on with a rollout that was not kept"
        self._steps_left = self.inner_epochs - 1 - epoch
        batches = []
        for rows, rollout in rollouts.micro_batches(context, self._rollout):
            ids = [clip.clip_id for clip in clips[rows]]
            conditions = context.conditions(ids)
            for at, (t, t_next) in enumerate(window.steps):
                batches.append(
                    Steps(
                        item_ids=ids,
                        x=_at(rollout, at),
                        x_next=_at(rollout, at + 1),
                        t=t,
                        dt=t_next - t,
                        log_prob=rollout["log_prob"][:, at],
                        advantage=rollout["advantage"],
                        conditions=conditions,
                        logs=rollouts.rollout_logs(rollout),
                        on_policy=epoch == 0,
                    )
                )
        return batches

    def sample_losses(
        self, policy: Model, reference: Model | None, batch: Steps
    ) -> tuple[Float[Tensor, " B"], dict[str, Tensor]]:
        """Return the clipped policy gradient of one step of B samples, and the distance to the reference.

        Raises ValueError if the policy does not repeat the log-density that the rollout had.
        """
        step = self._transition(policy, batch.conditions, batch.x, batch.t, dt=batch.dt)
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
                anchor = self._transition(reference, batch.conditions, batch.x, batch.t, dt=batch.dt)
            logs["kl_loss"] = step.divergence(anchor.mean)
            per_sample = per_sample + self.kl_weight * logs["kl_loss"]
        return per_sample, logs

    @property
    def _width(self) -> int:
        return self.num_steps if self.window is None else min(self.window, self.num_steps)

    @property
    def _noise_level(self) -> float:
        return NOISE_LEVELS[self.variant] if self.noise_level is None else self.noise_level

    @torch.no_grad()
    def _roll_out(
        self, context: TrainContext, number: int, policy: Model, clips: list[Clip], *, window: Window
    ) -> dict[str, Tensor]:
        """Sample and judge this process's share of a rollout: tensors (n, ...)."""
        parts, judged = [], []
        for rows in context.layout.slices():
            part, samples = self._sample(
                context, number, rows, policy=policy, clips=clips[rows], window=window
            )
            parts.append(part)
            judged.append(rollouts.judge_samples(context, clips[rows], samples))
        rollout = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
        return rollout | rollouts.worth_of(context, judged, self.group_size, self.advantage_clip)

    def _sample(
        self,
        context: TrainContext,
        number: int,
        rows: slice,
        *,
        policy: Model,
        clips: list[Clip],
        window: Window,
    ) -> tuple[dict[str, Tensor], Latents]:
        """Return where the samples were in the window (B, W + 1, ...), log_prob (B, W), and the samples."""
        conditions = context.conditions([clip.clip_id for clip in clips])
        shapes = policy.spec.latents

        def noise(index: int) -> Latents:
            return noise_like_rows(shapes, rollouts.noise_seeds(context, number, rows, f"step {index}"))

        group_size = self.group_size if self.shared_noise else 1
        seeds = rollouts.noise_seeds(context, number, rows, "x0", group_size=group_size)
        trajectory = sample_with_noise(
            context.on_device(noise_like_rows(shapes, seeds)),
            window,
            guided_velocity(policy, conditions, self.guidance_scale, prepare=True),
            lambda x, t, dt: self._transition(policy, conditions, x, t, dt=dt),
            noise=noise,
        )
        path = {
            LATENT_PREFIX + key: torch.stack([place[key] for place in trajectory.path], dim=1)
            for key in shapes
        }
        return path | {"log_prob": trajectory.log_prob}, trajectory.samples

    def _transition(
        self, model: Model, conditions: Conditions, x: Latents, t: float, *, dt: float
    ) -> Transition:
        """Return the distribution of the model's step from x at t."""
        v = guided_velocity(model, conditions, self.guidance_scale)(x, times_like(x, t))
        return transition(self.variant, v, x, t, dt=dt, noise_level=self._noise_level)


def _at(rollout: Mapping[str, Tensor], place: int) -> Latents:
    """Return the latents at one place of the window, in the memory layout of the rollout."""
    return {
        key.removeprefix(LATENT_PREFIX): value[:, place].contiguous()
        for key, value in rollout.items()
        if key.startswith(LATENT_PREFIX)
    }


def clipped_loss(
    ratio: Float[Tensor, " B"], advantage: Float[Tensor, " B"], clip_range: float
) -> Float[Tensor, " B"]:
    """Return -min(ratio A, clip(ratio, 1 ± ε) A), which has no gradient beyond ε (arXiv 1707.06347)."""
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    return -torch.minimum(ratio * advantage, clipped * advantage)
