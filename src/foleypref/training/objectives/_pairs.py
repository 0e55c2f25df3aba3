"""Batches of stored pairs and of pairs made by rule: what Flow-DPO and its fine-tuning control draw alike.

Letters as in `foleypref.flow.convention`: B pairs of a micro-batch, x0 noise, x1 data, t time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from foleypref.flow.convention import Latents, expand, noise_like_rows, sample_times, seed_of
from foleypref.models.backbones import Conditions, Model
from foleypref.training.distortion import RuleRow
from foleypref.training.objectives import TrainContext
from foleypref.training.rules import HELD_OUT
from foleypref.workspace.records import Pair

NUM_TIME_BINS = 4
TimeDistribution = Literal["uniform", "logit_normal"]


class Grouped(Protocol):
    """A batch whose items are also logged under names of their own."""

    @property
    def groups(self) -> list[list[str]]:
        """Of each item: those names."""
        ...


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
    x0_rejected: Latents | None = None  # where the rejected have another noise than the chosen
    tracked: Float[Tensor, " 2*B"] | None = None  # 1 where x0 is the noise that made it, chosen first

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
    pairs = _pick(context, step)
    stage = context.curriculum.stage(context.pairs, step, context.max_steps) + 1  # the paper counts from 1
    batches = []
    for share, states in draw_states(context, step, policy, times, dropout):
        batch = _load(context, policy, pairs[share], states.x0, states.t, stage)
        batches.append(replace(batch, conditions=drop(policy, batch.conditions, states.dropped)))
    return batches


class States(NamedTuple):
    """What is drawn for the B items of a micro-batch."""

    x0: Latents
    t: Float[Tensor, " B"]
    dropped: Bool[Tensor, " B"]  # whose conditions are left out


def draw_states(
    context: TrainContext, step: int, policy: Model, times: TimeDistribution, dropout: float
) -> Iterator[tuple[slice, States]]:
    """Noise, t and mask of this process's micro-batches, drawn for the whole global batch and then sliced."""
    size = context.global_batch_size
    t = sample_times(size, context.generator(step, "t"), times)
    noise = context.generator(step, "noise")
    x0 = {
        key: torch.randn((size, *shape), generator=noise)
        for key, shape in sorted(policy.spec.latents.items())
    }
    dropped = torch.rand(size, generator=context.generator(step, "dropout")) < dropout
    for share in context.shares():
        yield share, States({key: value[share] for key, value in x0.items()}, t[share], dropped[share])


def fixed_batches(context: TrainContext, policy: Model) -> Iterator[PairBatch]:
    """This process's held-out batches, each item at the middle of a t-bin, with a noise of its own.

    A stored pair meets every bin, its noise seeded by its id. A clip meets every rule at every severity, the
    bins in turn, and its noise is seeded by the clip's id: severities compare.
    """
    grid: list[tuple[Pair | RuleRow, int]] = [(p, i) for p in context.pairs for i in range(NUM_TIME_BINS)]
    if context.rules is not None:
        grid += context.rules.grid(NUM_TIME_BINS)
    grid = grid[context.rank :: context.num_processes]
    for begin in range(0, len(grid), context.per_device_batch_size):
        part = grid[begin : begin + context.per_device_batch_size]
        seeds = [
            seed_of(HELD_OUT, row.clip.clip_id if isinstance(row, RuleRow) else row.pair_id, index)
            for row, index in part
        ]
        t = torch.tensor([(index + 0.5) / NUM_TIME_BINS for _, index in part])
        x0 = noise_like_rows(policy.spec.latents, seeds)
        yield _load(context, policy, [row for row, _ in part], x0, t, None)


def _pick(context: TrainContext, step: int) -> list[Pair | RuleRow]:
    """The items of the whole global batch: stored pairs, pairs to be made, or both in random order."""
    size, curriculum, last = context.global_batch_size, context.curriculum, context.max_steps
    if context.rules is None:
        return list(curriculum.pick(context.pairs, step, last, size, context.seed))
    num = context.rules.settings.rows_of(size)
    made = context.rules.draw(context.seed, step, last, num, curriculum.severity(step, last))
    if num == size:
        return list(made)
    both = [*made, *curriculum.pick(context.pairs, step, last, size - num, context.seed)]
    return [both[i] for i in torch.randperm(size, generator=context.generator(step, "mixed")).tolist()]


def _load(
    context: TrainContext,
    policy: Model,
    rows: Sequence[Pair | RuleRow],
    x0: Latents,
    t: Tensor,
    stage: int | None,
) -> PairBatch:
    pairs = [row.pair if isinstance(row, RuleRow) else row for row in rows]
    groups = []
    for row, pair, time in zip(rows, pairs, t.tolist(), strict=True):
        names = [f"t{min(int(time * NUM_TIME_BINS), NUM_TIME_BINS - 1)}", f"source/{pair.source}"]
        names += row.groups(held_out=stage is None) if isinstance(row, RuleRow) else []
        groups.append(names if stage is None else [*names, f"stage/{stage}"])
    chosen, rejected = _sides(context, policy, rows)
    return PairBatch(
        pairs=pairs,
        chosen=chosen,
        rejected=rejected,
        x0={key: value.to(context.device) for key, value in x0.items()},
        t=t.to(context.device),
        conditions=context.conditions([pair.clip_id for pair in pairs]),
        groups=groups,
    )


def _sides(context: TrainContext, policy: Model, rows: Sequence[Pair | RuleRow]) -> tuple[Latents, Latents]:
    """Chosen and rejected latents of rows of either kind, in their order."""
    stored = [row for row in rows if isinstance(row, Pair)]
    made = [row for row in rows if isinstance(row, RuleRow)]
    parts: list[tuple[Latents, Latents]] = []
    if stored:
        parts.append(
            (context.latents([p.chosen for p in stored]), context.latents([p.rejected for p in stored]))
        )
    if made:
        assert context.rules is not None
        chosen, rejected = context.rules.latents(made, policy)
        on_device = [{k: v.to(context.device) for k, v in side.items()} for side in (chosen, rejected)]
        parts.append((on_device[0], on_device[1]))
    if len(parts) == 1:
        return parts[0]
    at = sorted(range(len(rows)), key=lambda i: isinstance(rows[i], RuleRow))  # stored first, as in `parts`
    back = torch.tensor(at).argsort().to(context.device)
    first, second = (
        {k: torch.cat([parts[0][side][k], parts[1][side][k]])[back] for k in parts[0][side]}
        for side in (0, 1)
    )
    return first, second


def drop(policy: Model, conditions: Conditions, dropped: Bool[Tensor, " B"]) -> Conditions:
    """The conditions, of `dropped` rows the null ones."""
    if not dropped.any():
        return conditions
    null = policy.null(conditions)
    return {
        key: torch.where(expand(dropped.to(value.device), value), null[key], value)
        for key, value in conditions.items()
    }


def pack(
    first: Mapping[str, Shaped[Tensor, "B ..."]], second: Mapping[str, Shaped[Tensor, "B ..."]]
) -> dict[str, Shaped[Tensor, "2*B ..."]]:
    """Two batches in one, `first` above `second`: (B, ...) and (B, ...) to (2B, ...)."""
    return {key: torch.cat([first[key], second[key]]) for key in first}


def by_group(
    logs: Mapping[str, Float[Tensor, " B"]], batch: Grouped, only: str = ""
) -> dict[str, Float[Tensor, " _"]]:
    """Logs (B,) split by t-bin, source and stage: `rewards/margins/t0`, `.../source/auto`, `.../stage/1`.

    `only`: groups whose names begin so.
    """
    rows: dict[str, list[int]] = {}
    for row, names in enumerate(batch.groups):
        for name in names:
            if name.startswith(only):
                rows.setdefault(name, []).append(row)
    return {
        f"{key}/{name}": value[torch.tensor(chosen, device=value.device)]
        for key, value in logs.items()
        for name, chosen in rows.items()
    }
