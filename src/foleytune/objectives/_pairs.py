"""Batches of stored pairs: what Flow-DPO and its plain fine-tuning control draw alike.

Letters as in `foleytune.flow`: B pairs of a micro-batch, x0 noise, x1 data, t time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from foleytune.flow import Latents, expand, noise_like_rows, sample_times, seed_of
from foleytune.models import Conditions, Model
from foleytune.objectives import TrainContext
from foleytune.records import Pair

NUM_TIME_BINS = 4
TimeDistribution = Literal["uniform", "logit_normal"]


@dataclass(frozen=True)
class PairBatch:
    """B pairs with one time and one noise each, shared by chosen and rejected. Tensors are (B, ...)."""

    pairs: list[Pair]
    chosen: Latents
    rejected: Latents
    x0: Latents
    t: Float[Tensor, " B"]
    conditions: Conditions
    groups: list[list[str]]  # of each pair: the names its margins are also logged under
    reference_errors: dict[str, Float[Tensor, " 2*B"]] | None = None  # chosen first, where precomputed

    @property
    def item_ids(self) -> list[str]:
        """The ids of the pairs."""
        return [pair.pair_id for pair in self.pairs]


def draw_batches(
    context: TrainContext, step: int, policy: Model, times: TimeDistribution, dropout: float
) -> list[PairBatch]:
    """This process's micro-batches of a step.

    Everything random is drawn for the whole global batch and then sliced: t is stratified over all of it, and
    the same pairs meet the same t, noise and mask however many processes share the work.
    """
    size = context.global_batch_size
    pairs = context.curriculum.pick(context.pairs, step, context.max_steps, size, context.seed)
    stage = context.curriculum.stage(context.pairs, step, context.max_steps) + 1  # the paper counts from 1
    t = sample_times(size, context.generator(step, "t"), times)
    noise = context.generator(step, "noise")
    x0 = {
        key: torch.randn((size, *shape), generator=noise)
        for key, shape in sorted(policy.spec.latents.items())
    }
    dropped = torch.rand(size, generator=context.generator(step, "dropout")) < dropout
    batches = []
    for share in context.shares():
        rows = {key: value[share] for key, value in x0.items()}
        batch = _load(context, pairs[share], rows, t[share], stage)
        if dropped[share].any():
            conditions = _drop(batch.conditions, policy.null(batch.conditions), dropped[share])
            batch = replace(batch, conditions=conditions)
        batches.append(batch)
    return batches


def fixed_batches(context: TrainContext, policy: Model) -> Iterator[PairBatch]:
    """This process's held-out batches: every pair at the middle of every t-bin, noise seeded by its id."""
    grid = [(pair, index) for pair in context.pairs for index in range(NUM_TIME_BINS)]
    grid = grid[context.rank :: context.num_processes]
    for begin in range(0, len(grid), context.per_device_batch_size):
        part = grid[begin : begin + context.per_device_batch_size]
        seeds = [seed_of("held-out", pair.pair_id, index) for pair, index in part]
        t = torch.tensor([(index + 0.5) / NUM_TIME_BINS for _, index in part])
        yield _load(context, [pair for pair, _ in part], noise_like_rows(policy.spec.latents, seeds), t, None)


def _load(context: TrainContext, pairs: list[Pair], x0: Latents, t: Tensor, stage: int | None) -> PairBatch:
    groups = []
    for pair, time in zip(pairs, t.tolist(), strict=True):
        names = [f"t{min(int(time * NUM_TIME_BINS), NUM_TIME_BINS - 1)}", f"source/{pair.source}"]
        groups.append(names if stage is None else [*names, f"stage/{stage}"])
    return PairBatch(
        pairs=pairs,
        chosen=context.latents([pair.chosen for pair in pairs]),
        rejected=context.latents([pair.rejected for pair in pairs]),
        x0={key: value.to(context.device) for key, value in x0.items()},
        t=t.to(context.device),
        conditions=context.conditions([pair.clip_id for pair in pairs]),
        groups=groups,
    )


def _drop(conditions: Conditions, null: Conditions, dropped: Tensor) -> Conditions:
    return {
        key: torch.where(expand(dropped.to(value.device), value), null[key], value)
        for key, value in conditions.items()
    }


def pack(
    first: Mapping[str, Shaped[Tensor, "B ..."]], second: Mapping[str, Shaped[Tensor, "B ..."]]
) -> dict[str, Shaped[Tensor, "2*B ..."]]:
    """Two batches in one, `first` above `second`: (B, ...) and (B, ...) to (2B, ...)."""
    return {key: torch.cat([first[key], second[key]]) for key in first}


def by_group(logs: Mapping[str, Float[Tensor, " B"]], batch: PairBatch) -> dict[str, Float[Tensor, " _"]]:
    """Logs (B,) split by t-bin, source and stage: `rewards/margins/t0`, `.../source/auto`, `.../stage/1`."""
    rows: dict[str, list[int]] = {}
    for row, names in enumerate(batch.groups):
        for name in names:
            rows.setdefault(name, []).append(row)
    return {
        f"{key}/{name}": value[torch.tensor(chosen, device=value.device)]
        for key, value in logs.items()
        for name, chosen in rows.items()
    }
