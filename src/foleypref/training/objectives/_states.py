"""The noise, time and dropout of a step's items, for every objective that learns from stored latents.

Everything is drawn for the whole global batch and then sliced: t is stratified over all of it, and an item
gets the same t, noise and dropout however many processes share the work.

Letters as in `foleypref.flow.convention`: B items of a micro-batch, x0 noise, t time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from foleypref.flow.convention import Latents, expand, sample_times
from foleypref.models.backbones import Conditions, Model
from foleypref.training.context import TrainContext

TimeDistribution = Literal["uniform", "logit_normal"]


class States(NamedTuple):
    """The draws for the B items of a micro-batch."""

    x0: Latents
    t: Float[Tensor, " B"]
    dropped: Bool[Tensor, " B"]  # items whose conditions are left out


def draw_noise(context: TrainContext, step: int, purpose: str, policy: Model) -> Latents:
    """Draw one noise per item of the global batch, on the CPU."""
    generator = context.generator(step, purpose)
    size = context.layout.global_batch_size
    return {
        key: torch.randn((size, *shape), generator=generator)
        for key, shape in sorted(policy.spec.latents.items())
    }


def draw_states(
    context: TrainContext, step: int, policy: Model, *, times: TimeDistribution, dropout: float
) -> Iterator[tuple[slice, States]]:
    """Yield the draws of this process's micro-batches, each with its slice of the global batch."""
    size = context.layout.global_batch_size
    t = sample_times(size, context.generator(step, "t"), times)
    x0 = draw_noise(context, step, "noise", policy)
    dropped = torch.rand(size, generator=context.generator(step, "dropout")) < dropout
    for rows in context.layout.slices():
        yield rows, States({key: value[rows] for key, value in x0.items()}, t[rows], dropped[rows])


def drop(policy: Model, conditions: Conditions, dropped: Bool[Tensor, " B"]) -> Conditions:
    """Return the conditions with null conditions in the rows that are `dropped`."""
    if not dropped.any():
        return conditions
    null = policy.null(conditions)
    return {
        key: torch.where(expand(dropped.to(value.device), value), null[key], value)
        for key, value in conditions.items()
    }
