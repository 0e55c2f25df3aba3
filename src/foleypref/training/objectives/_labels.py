"""Batches of labelled candidates: wanted or not, one by one, for objectives that need no pairs.

Letters as in `foleypref.flow.convention`: B items of a micro-batch, x0 noise, x1 data, t time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from foleypref.flow.convention import Latents, noise_like_rows, seed_of
from foleypref.models.backbones import Conditions, Model
from foleypref.training.curricula import walk
from foleypref.training.data import Label
from foleypref.training.objectives import TrainContext
from foleypref.training.objectives._pairs import NUM_TIME_BINS, TimeDistribution, draw_states, drop


@dataclass(frozen=True)
class LabelBatch:
    """B labelled candidates with a time and a noise each. Tensors are (B, ...)."""

    labels: list[Label]
    x1: Latents
    x0: Latents
    t: Float[Tensor, " B"]
    conditions: Conditions
    desirable: Bool[Tensor, " B"]
    weight: Float[Tensor, " B"]
    groups: list[list[str]]  # of each item: the names its margins are also logged under

    @property
    def item_ids(self) -> list[str]:
        """The ids of the candidates."""
        return [label.candidate_id for label in self.labels]


def draw_labels(
    context: TrainContext, step: int, policy: Model, times: TimeDistribution, dropout: float, balanced: bool
) -> list[LabelBatch]:
    """This process's micro-batches of a step, drawn for the whole global batch and then sliced."""
    size = context.global_batch_size
    labels = pick(context.labels, step * size, size, context.seed, balanced)
    batches = []
    for share, states in draw_states(context, step, policy, times, dropout):
        batch = _load(context, labels[share], states.x0, states.t)
        batches.append(replace(batch, conditions=drop(policy, batch.conditions, states.dropped)))
    return batches


def pick(labels: Sequence[Label], position: int, n: int, seed: int, balanced: bool) -> list[Label]:
    """Items `position` to `position + n` of an endless walk; balanced, a wanted and an unwanted in turn.

    Balanced, each class is walked on its own, so the smaller one comes round more often.
    """
    if not balanced:
        return [labels[i] for i in walk(len(labels), position, n, seed, "labels")]
    places = range(position, position + n)
    sides = []
    for odd, name in enumerate(("desirable", "undesirable")):
        side = [label for label in labels if label.desirable == (name == "desirable")]
        first, num = (position + 1 - odd) // 2, sum(place % 2 == odd for place in places)
        sides.append(iter([side[i] for i in walk(len(side), first, num, seed, name)]))
    return [next(sides[place % 2]) for place in places]


def fixed_labels(context: TrainContext, policy: Model) -> Iterator[LabelBatch]:
    """This process's held-out batches: every label at the middle of every t-bin, noise by its candidate."""
    grid = [(label, index) for label in context.labels for index in range(NUM_TIME_BINS)]
    grid = grid[context.rank :: context.num_processes]
    for begin in range(0, len(grid), context.per_device_batch_size):
        part = grid[begin : begin + context.per_device_batch_size]
        seeds = [seed_of("held-out", label.candidate_id, index) for label, index in part]
        t = torch.tensor([(index + 0.5) / NUM_TIME_BINS for _, index in part])
        yield _load(context, [label for label, _ in part], noise_like_rows(policy.spec.latents, seeds), t)


def _load(context: TrainContext, labels: list[Label], x0: Latents, t: Tensor) -> LabelBatch:
    bins = [f"t{min(int(time * NUM_TIME_BINS), NUM_TIME_BINS - 1)}" for time in t.tolist()]
    return LabelBatch(
        labels=labels,
        x1=context.latents([label.candidate_id for label in labels]),
        x0={key: value.to(context.device) for key, value in x0.items()},
        t=t.to(context.device),
        conditions=context.conditions([label.clip_id for label in labels]),
        desirable=torch.tensor([label.desirable for label in labels], device=context.device),
        weight=torch.tensor([label.weight for label in labels], device=context.device),
        groups=[[name, f"source/{label.source}"] for name, label in zip(bins, labels)],
    )
