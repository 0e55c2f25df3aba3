"""Batches of labelled candidates, desirable or not, for objectives that need no pairs.

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
from foleypref.training.context import TrainContext
from foleypref.training.curricula import walk
from foleypref.training.data import Label
from foleypref.training.objectives._groups import NUM_TIME_BINS, bin_middles, time_bins
from foleypref.training.objectives._states import TimeDistribution, draw_states, drop


@dataclass(frozen=True)
class LabelBatch:
    """B labelled candidates with one time and one noise each. Tensors are (B, ...)."""

    labels: list[Label]
    x1: Latents
    x0: Latents
    t: Float[Tensor, " B"]
    conditions: Conditions
    desirable: Bool[Tensor, " B"]
    weight: Float[Tensor, " B"]
    groups: list[list[str]]  # of each item

    @property
    def item_ids(self) -> list[str]:
        """The ids of the candidates."""
        return [label.candidate_id for label in self.labels]


def draw_labels(
    context: TrainContext,
    step: int,
    policy: Model,
    *,
    times: TimeDistribution,
    dropout: float,
    balanced: bool,
) -> list[LabelBatch]:
    """Draw this process's micro-batches of a step, as slices of the global batch."""
    size = context.layout.global_batch_size
    labels = pick(context.data.labels, step * size, size, context.seed, balanced=balanced)
    batches = []
    for rows, states in draw_states(context, step, policy, times=times, dropout=dropout):
        batch = _load(context, labels[rows], states.x0, states.t)
        batches.append(replace(batch, conditions=drop(policy, batch.conditions, states.dropped)))
    return batches


def pick(labels: Sequence[Label], position: int, n: int, seed: int, *, balanced: bool) -> list[Label]:
    """Return the items `position` to `position + n` of an endless walk over the labels.

    If `balanced`, desirable and undesirable items take turns. Each class is then walked separately, so items
    of the smaller one come round more often.
    """
    if not balanced:
        return [labels[i] for i in walk(len(labels), position, n, seed, "labels")]
    places = range(position, position + n)
    walks = []
    for odd, name in enumerate(("desirable", "undesirable")):
        members = [label for label in labels if label.desirable == (name == "desirable")]
        first, num = (position + 1 - odd) // 2, sum(place % 2 == odd for place in places)
        walks.append(iter([members[i] for i in walk(len(members), first, num, seed, name)]))
    return [next(walks[place % 2]) for place in places]


def fixed_labels(context: TrainContext, policy: Model) -> Iterator[LabelBatch]:
    """Yield this process's held-out batches: every label at the middle of every time bin."""
    grid = [(label, index) for label in context.data.labels for index in range(NUM_TIME_BINS)]
    for part in context.layout.shares(grid):
        seeds = [seed_of("held-out", label.candidate_id, index) for label, index in part]
        x0 = noise_like_rows(policy.spec.latents, seeds)
        yield _load(context, [label for label, _ in part], x0, bin_middles([index for _, index in part]))


def _load(context: TrainContext, labels: list[Label], x0: Latents, t: Float[Tensor, " B"]) -> LabelBatch:
    device = context.layout.device
    return LabelBatch(
        labels=labels,
        x1=context.latents([label.candidate_id for label in labels]),
        x0=context.on_device(x0),
        t=t.to(device),
        conditions=context.conditions([label.clip_id for label in labels]),
        desirable=torch.tensor([label.desirable for label in labels], device=device),
        weight=torch.tensor([label.weight for label in labels], device=device),
        groups=[[name, f"source/{label.source}"] for name, label in zip(time_bins(t), labels)],
    )
