"""Samples of the live policy: whose they are, what they are worth in their group, and held-out rewards.

An online objective takes `global_batch_size` as SAMPLES: groups of k samples of one clip each lie side by
side in the global batch, and processes may share a group, as advantages are worked out over all of it.

Letters: N samples of the global batch, n some of them, B of a micro-batch, k of a group, W steps of a window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from foleypref.flow.convention import Latents, VelocityFn, seed_of
from foleypref.flow.sde import Transition
from foleypref.models.backbones import Model
from foleypref.models.tools import sample_latents, unwrapped, with_network
from foleypref.training.curricula import walk
from foleypref.training.objectives import Loss, TrainContext
from foleypref.training.reward import Judged
from foleypref.workspace.records import Clip

EPSILON = 1e-4  # of rewards: a batch that varies by less has nothing to teach


@dataclass(frozen=True)
class Advantages:
    """What samples are worth against their group, in standard deviations of the whole batch."""

    values: Float[Tensor, " N"]
    zero_std: Bool[Tensor, " N"]  # samples of groups whose rewards are all the same
    reward_std: float


@dataclass(frozen=True)
class HeldOut:
    """Held-out samples, judged: nothing is left to do but to log it."""

    item_ids: list[str]
    logs: dict[str, Tensor]

    def loss(self) -> Loss:
        """No loss, the logs alone."""
        return Loss(torch.zeros(()), self.logs)


def group_advantages(rewards: Float[Tensor, " N"], group_size: int, clip: float) -> Advantages:
    """(reward - mean of its group) / std of all rewards, clipped to ±clip: (N,), groups side by side.

    The group's own std would blow up groups that hardly differ (the code of arXiv 2505.05470).
    """
    groups = rewards.double().reshape(-1, group_size)
    std = groups.std(correction=0)
    zero = groups.amax(1, keepdim=True) == groups.amin(1, keepdim=True)
    centred = (groups - groups.mean(1, keepdim=True)).masked_fill(zero, 0.0)  # a mean may round
    values = (centred / (std + EPSILON)).clamp(-clip, clip).flatten()
    return Advantages(values.to(rewards.dtype), zero.expand_as(groups).flatten(), std.item())


def num_groups(context: TrainContext, group_size: int) -> int:
    """Groups of a step's N samples. Raises ValueError if N is no multiple of the group size."""
    size = context.global_batch_size
    if size % group_size:
        raise ValueError(
            f"a step takes {size} samples (per_device_train_batch_size × gradient_accumulation_steps × "
            f"processes), which is no multiple of group_size {group_size}; change one of them"
        )
    return size // group_size


def sampled_clips(context: TrainContext, rollout: int, group_size: int) -> list[Clip]:
    """The clip of each of the N samples of a rollout: every clip is met once before any is met again."""
    num = num_groups(context, group_size)
    chosen = walk(len(context.clips), rollout * num, num, context.seed, "rollouts")
    return [context.clips[index] for index in chosen for _ in range(group_size)]


def noise_seeds(
    context: TrainContext, rollout: int, share: slice, what: str, group_size: int, *, shared: bool = False
) -> list[int]:
    """A seed for each sample of a share, or, `shared`, one for each group: functions of (seed, rollout)."""
    of = group_size if shared else 1
    return [seed_of(context.seed, rollout, what, i // of) for i in range(share.start, share.stop)]


def micro_batches(
    context: TrainContext, rows: Mapping[str, Tensor]
) -> Iterator[tuple[slice, dict[str, Tensor]]]:
    """This process's rows (n, ...) by micro-batch (B, ...), on the device, each with its place in the N."""
    size = context.per_device_batch_size
    for index, share in enumerate(context.shares()):
        yield share, {k: v[index * size :][:size].to(context.device) for k, v in rows.items()}


def worth_of(
    context: TrainContext, judged: Sequence[Judged], group_size: int, clip: float
) -> dict[str, Float[Tensor, " n"]]:
    """What this process's samples are worth beside all others: advantage, reward and what logs tell of it."""
    reward = torch.cat([one.rewards for one in judged])
    worth = group_advantages(context.gather(reward), group_size, clip)
    return {
        "advantage": context.own(worth.values),
        "reward": reward,
        "reward_std": torch.full_like(reward, worth.reward_std),
        "unscored": torch.cat([one.unscored for one in judged]).float(),
        "zero_std": context.own(worth.zero_std).float(),
    }


def rollout_logs(rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What is logged of `worth_of` some samples."""
    logs = {key: rows[key] for key in ("reward", "reward_std", "unscored", "zero_std")}
    return logs | {"advantage/abs": rows["advantage"].abs()}


def judge_samples(context: TrainContext, clips: Sequence[Clip], latents: Latents) -> Judged:
    """The reward of n samples."""
    assert context.reward is not None, "an objective that needs a reward gets one"
    return context.reward.judge(clips, latents)


def unwrapped_model(policy: Model) -> Model:
    """The policy out of its DDP wrapper, which would wait for other processes where no gradient flows."""
    return with_network(policy, unwrapped(policy.network))


class Window(NamedTuple):
    """The steps `first` to `last` - 1 of a sampler have noise in them, the others follow the ODE."""

    times: list[float]  # from 0 to 1
    first: int
    last: int

    @property
    def steps(self) -> list[tuple[float, float]]:
        """(t, next t) of those with noise."""
        return list(pairwise(self.times[self.first : self.last + 1]))


def moving_window(generator: torch.Generator, num_steps: int, width: int, latest_start: float) -> Window:
    """`width` of equal steps, starting anywhere in the first `latest_start` (a share) of them."""
    latest = min(num_steps - width, int(latest_start * num_steps))
    first = int(torch.randint(latest + 1, (), generator=generator))
    return Window(torch.linspace(0, 1, num_steps + 1).tolist(), first, first + width)


class Trajectory(NamedTuple):
    """Samples, and how they came through the window: W + 1 places and the log-density of each step."""

    path: list[Latents]
    log_prob: Float[Tensor, "B W"]
    samples: Latents


@torch.no_grad()
def sample_with_noise(
    x: Latents,
    window: Window,
    ode: VelocityFn,
    step: Callable[[Latents, float, float], Transition],
    noise: Callable[[int], Latents],
) -> Trajectory:
    """From noise x to samples: Euler's steps along `ode`, in the window those of `step(x, t, dt)`.

    `noise(index)` is what step `index` adds. In float32.
    """
    path, log_probs = [], []
    for index, (t, then) in enumerate(pairwise(window.times)):
        if window.first <= index < window.last:
            path.append(x)
            with torch.enable_grad():  # as in the loss: some networks take another path without
                taken = step(x, t, then - t)
            x = {key: value.detach() for key, value in taken.sample(noise(index)).items()}
            log_probs.append(taken.log_prob(x).detach())
        else:
            v = ode(x, times_like(x, t))
            x = {key: x[key] + (then - t) * v[key].float() for key in x}
        if index == window.last - 1:
            path.append(x)
    return Trajectory(path, torch.stack(log_probs, dim=1), x)


def times_like(x: Latents, t: float) -> Float[Tensor, " B"]:
    """One time for all rows."""
    like = next(iter(x.values()))
    return torch.full((len(like),), t, dtype=torch.float32, device=like.device)


def held_out_batches(
    context: TrainContext, policy: Model, *, group_size: int, num_steps: int, guidance_scale: float
) -> Iterator[HeldOut]:
    """This process's share of the held-out clips: one sample each from noise seeded by the clip, by the ODE.

    Logs `reward`, `unscored` and `watch/<scorer>/<dimension>`. Raises ValueError if training would, as it is
    asked first.
    """
    num_groups(context, group_size)
    return _held_out(context, policy, num_steps, guidance_scale)


@torch.no_grad()
def _held_out(
    context: TrainContext, policy: Model, num_steps: int, guidance_scale: float
) -> Iterator[HeldOut]:
    clips = context.clips[context.rank :: context.num_processes]
    for begin in range(0, len(clips), context.per_device_batch_size):
        part = clips[begin : begin + context.per_device_batch_size]
        ids = [clip.clip_id for clip in part]
        latents = sample_latents(
            policy,
            context.conditions(ids),
            [seed_of("held-out", clip_id) for clip_id in ids],
            num_steps=num_steps,
            guidance_scale=guidance_scale,
        )
        assert context.reward is not None
        judged = context.reward.judge(part, latents, watch=True)
        watched = {f"watch/{name}": value[~value.isnan()] for name, value in judged.watched.items()}
        logs = {"reward": judged.rewards, "unscored": judged.unscored.float()}
        yield HeldOut(ids, logs | watched)
