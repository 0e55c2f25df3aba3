"""Batches of stored pairs and of pairs made by rule, drawn alike for Flow-DPO and its fine-tuning control.

Letters as in `foleypref.flow.convention`: B pairs of a micro-batch, x0 noise, x1 data, t time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from foleypref.flow.convention import Latents, noise_like_rows, seed_of
from foleypref.models.backbones import Conditions, Model
from foleypref.training.context import TrainContext
from foleypref.training.distortion import RuleRow
from foleypref.training.objectives._groups import NUM_TIME_BINS, bin_middles, time_bins
from foleypref.training.objectives._states import TimeDistribution, draw_states, drop
from foleypref.training.rules import HELD_OUT
from foleypref.workspace.records import Pair


@dataclass(frozen=True)
class PairBatch:
    """B pairs with one time and one noise each, shared by chosen and rejected. Tensors are (B, ...)."""

    pairs: list[Pair]
    chosen: Latents
    rejected: Latents
    x0: Latents
    t: Float[Tensor, " B"]
    conditions: Conditions
    groups: list[list[str]]  # of each pair
    reference_errors: dict[str, Float[Tensor, " 2*B"]] | None = None  # chosen first, if precomputed
    x0_rejected: Latents | None = None  # if the rejected have another noise than the chosen
    tracked: Float[Tensor, " 2*B"] | None = None  # 1 if x0 is the noise that made the side, chosen first

    @property
    def item_ids(self) -> list[str]:
        """The ids of the pairs."""
        return [pair.pair_id for pair in self.pairs]


def draw_batches(
    context: TrainContext, step: int, policy: Model, *, times: TimeDistribution, dropout: float
) -> list[PairBatch]:
    """Draw this process's micro-batches of a step, as slices of the global batch."""
    rows = _pick(context, step)
    stage = context.curriculum.stage(context.data.pairs, step, context.max_steps) + 1  # from 1, as the paper
    batches = []
    for own, states in draw_states(context, step, policy, times=times, dropout=dropout):
        names = [[*_groups(row, held_out=False), f"stage/{stage}"] for row in rows[own]]
        batch = _load(context, policy, rows[own], names, x0=states.x0, t=states.t)
        batches.append(replace(batch, conditions=drop(policy, batch.conditions, states.dropped)))
    return batches


def fixed_batches(context: TrainContext, policy: Model) -> Iterator[PairBatch]:
    """Yield this process's held-out batches, each item at the middle of a time bin, with its own noise.

    A stored pair is measured in every bin, with noise seeded by its id. A clip is measured with every rule at
    every severity, the bins in turn, with noise seeded by the clip's id, so that severities compare.
    """
    grid: list[tuple[Pair | RuleRow, int]]
    grid = [(pair, index) for pair in context.data.pairs for index in range(NUM_TIME_BINS)]
    if context.rules is not None:
        grid += context.rules.grid(NUM_TIME_BINS)
    for part in context.layout.shares(grid):
        rows = [row for row, _ in part]
        seeds = [
            seed_of(HELD_OUT, row.clip.clip_id if isinstance(row, RuleRow) else row.pair_id, index)
            for row, index in part
        ]
        t, x0 = bin_middles([index for _, index in part]), noise_like_rows(policy.spec.latents, seeds)
        yield _load(context, policy, rows, [_groups(row, held_out=True) for row in rows], x0=x0, t=t)


def _pick(context: TrainContext, step: int) -> list[Pair | RuleRow]:
    """Return the rows of the global batch: stored pairs, pairs to be made, or both in random order."""
    size, last, seed = context.layout.global_batch_size, context.max_steps, context.seed
    curriculum, pairs = context.curriculum, context.data.pairs
    if context.rules is None:
        return list(curriculum.pick(pairs, step, last, n=size, seed=seed))
    num = context.rules.settings.rows_of(size)
    by_rule = context.rules.draw(seed, step, last, num=num, severity=curriculum.severity(step, last))
    if num == size:
        return list(by_rule)
    both = [*by_rule, *curriculum.pick(pairs, step, last, n=size - num, seed=seed)]
    return [both[i] for i in torch.randperm(size, generator=context.generator(step, "mixed")).tolist()]


def _groups(row: Pair | RuleRow, *, held_out: bool) -> list[str]:
    """Return the groups of a row, except its time bin and its stage."""
    if isinstance(row, Pair):
        return [f"source/{row.source}"]
    return [f"source/{row.rule.part_name()}", *row.groups(held_out=held_out)]


def _load(
    context: TrainContext,
    policy: Model,
    rows: Sequence[Pair | RuleRow],
    groups: list[list[str]],
    *,
    x0: Latents,
    t: Float[Tensor, " B"],
) -> PairBatch:
    """Make the batch of rows in their groups, with the noise and times given."""
    pairs = [row.pair if isinstance(row, RuleRow) else row for row in rows]
    chosen, rejected = _sides(context, policy, rows)
    return PairBatch(
        pairs=pairs,
        chosen=chosen,
        rejected=rejected,
        x0=context.on_device(x0),
        t=t.to(context.layout.device),
        conditions=context.conditions([pair.clip_id for pair in pairs]),
        groups=[[time_bin, *names] for time_bin, names in zip(time_bins(t), groups, strict=True)],
    )


def _sides(context: TrainContext, policy: Model, rows: Sequence[Pair | RuleRow]) -> tuple[Latents, Latents]:
    """Return the chosen and rejected latents of rows of either kind, in their order."""
    stored = [row for row in rows if isinstance(row, Pair)]
    by_rule = [row for row in rows if isinstance(row, RuleRow)]
    parts: list[tuple[Latents, Latents]] = []
    if stored:
        chosen = context.latents([pair.chosen for pair in stored])
        parts.append((chosen, context.latents([pair.rejected for pair in stored])))
    if by_rule:
        assert context.rules is not None
        chosen, rejected = context.rules.latents(by_rule, policy)
        parts.append((context.on_device(chosen), context.on_device(rejected)))
    if len(parts) == 1:
        return parts[0]
    # stored pairs first, as in `parts`
    order = sorted(range(len(rows)), key=lambda i: isinstance(rows[i], RuleRow))
    back = torch.tensor(order).argsort().to(context.layout.device)
    first, second = (
        {k: torch.cat([parts[0][side][k], parts[1][side][k]])[back] for k in parts[0][side]}
        for side in (0, 1)
    )
    return first, second


def pack(
    first: Mapping[str, Shaped[Tensor, "B ..."]], second: Mapping[str, Shaped[Tensor, "B ..."]]
) -> dict[str, Shaped[Tensor, "2*B ..."]]:
    """Put two batches in one, `first` above `second`: (B, ...) and (B, ...) to (2B, ...)."""
    return {key: torch.cat([first[key], second[key]]) for key in first}
