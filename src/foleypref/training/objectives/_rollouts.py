"""Samples of the live policy: their clips and seeds, and what they are worth within their group.

An online objective takes `global_batch_size` as a number of SAMPLES. Groups of k samples of one clip lie side
by side in the global batch. Processes may share a group, because advantages are computed over all of it.

Letters: N samples of the global batch, n some of them, B of a micro-batch, k of a group.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from foleypref.flow.convention import Latents, seed_of
from foleypref.models.backbones import Model
from foleypref.models.tools import unwrapped, with_network
from foleypref.training.context import TrainContext
from foleypref.training.curricula import walk
from foleypref.training.reward import Judged
from foleypref.workspace.records import Clip

EPSILON = 1e-4  # added to the std of rewards: a batch that varies by less has nothing to teach


@dataclass(frozen=True)
class Advantages:
    """How much better samples are than their group, in standard deviations of the whole batch."""

    values: Float[Tensor, " N"]
    zero_std: Bool[Tensor, " N"]  # samples of groups whose rewards are all equal
    reward_std: float


def group_advantages(rewards: Float[Tensor, " N"], group_size: int, clip: float) -> Advantages:
    """Return (reward - mean of its group) / std of all rewards, clipped to ±clip; groups lie side by side.

    The group's own std would blow up groups that hardly differ (the code of arXiv 2505.05470).
    """
    groups = rewards.double().reshape(-1, group_size)
    std = groups.std(correction=0)
    zero = groups.amax(1, keepdim=True) == groups.amin(1, keepdim=True)
    centred = (groups - groups.mean(1, keepdim=True)).masked_fill(zero, 0.0)  # a mean may round
    values = (centred / (std + EPSILON)).clamp(-clip, clip).flatten()
    return Advantages(values.to(rewards.dtype), zero.expand_as(groups).flatten(), std.item())


def num_groups(context: TrainContext, group_size: int) -> int:
    """Return the number of groups of a step. Raises ValueError if N is no multiple of the group size."""
    size = context.layout.global_batch_size
    if size % group_size:
        raise ValueError(
            f"a step takes {size} samples (per_device_train_batch_size × gradient_accumulation_steps × "
            f"processes), which is no multiple of group_size {group_size}; change one of them"
        )
    return size // group_size


def sampled_clips(context: TrainContext, rollout: int, group_size: int) -> list[Clip]:
    """Return the clip of each of the N samples of a rollout; no clip comes again before all have come."""
    num, clips = num_groups(context, group_size), context.data.clips
    indices = walk(len(clips), rollout * num, num, context.seed, "rollouts")
    return [clips[index] for index in indices for _ in range(group_size)]


def noise_seeds(
    context: TrainContext, rollout: int, rows: slice, purpose: str, *, group_size: int = 1
) -> list[int]:
    """Return a seed for each sample in `rows`, a function of (seed, rollout); equal within `group_size`."""
    return [seed_of(context.seed, rollout, purpose, i // group_size) for i in range(rows.start, rows.stop)]


def micro_batches(
    context: TrainContext, values: Mapping[str, Tensor]
) -> Iterator[tuple[slice, dict[str, Tensor]]]:
    """Yield this process's values (n, ...) by micro-batch (B, ...), each with its slice of the N."""
    size = context.layout.per_device_batch_size
    for index, rows in enumerate(context.layout.slices()):
        yield rows, context.on_device({key: v[index * size :][:size] for key, v in values.items()})


def worth_of(
    context: TrainContext, judged: Sequence[Judged], group_size: int, clip: float
) -> dict[str, Float[Tensor, " n"]]:
    """Return the advantage among all N of this process's samples, their reward, and logs of both."""
    layout = context.layout
    reward = torch.cat([part.rewards for part in judged])
    worth = group_advantages(layout.gather(reward), group_size, clip)
    return {
        "advantage": layout.own(worth.values),
        "reward": reward,
        "reward_std": torch.full_like(reward, worth.reward_std),
        "unscored": torch.cat([part.unscored for part in judged]).float(),
        "zero_std": layout.own(worth.zero_std).float(),
    }


def rollout_logs(worth: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the logs of samples, from their rows of `worth_of`."""
    logs = {key: worth[key] for key in ("reward", "reward_std", "unscored", "zero_std")}
    return logs | {"advantage/abs": worth["advantage"].abs()}


def judge_samples(context: TrainContext, clips: Sequence[Clip], latents: Latents) -> Judged:
    """Return the rewards of n samples of n clips."""
    assert context.reward is not None, "an objective that needs a reward gets one"
    return context.reward.judge(clips, latents)


def unwrapped_model(policy: Model) -> Model:
    """Take the policy out of its DDP wrapper, which would wait for other processes if no gradient flows."""
    return with_network(policy, unwrapped(policy.network))
