"""Which noise each side of a pair is mixed with: one for both, one for each, or the one that made it.

A candidate's noise is a function of its seed and its clip (`sample.py`), so it is drawn again, not stored.
The straight line from it to the candidate is the path that sampling followed, if the flow is straight (PNAPO,
arXiv 2605.09433). Ground truth has no such noise and keeps the pair's shared one; a log counts these cases.

Letters as in `foleypref.flow.convention`: B pairs of a micro-batch, x0 noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from foleypref.flow.convention import Latents, noise_like_rows
from foleypref.models.backbones import Model
from foleypref.training.context import TrainContext
from foleypref.training.objectives._pairs import PairBatch
from foleypref.training.objectives._states import draw_noise
from foleypref.workspace.records import GROUND_TRUTH, Candidate

Noise = Literal["shared", "independent", "tracked"]


def with_noise(
    context: TrainContext, step: int, policy: Model, batches: list[PairBatch], *, noise: Noise
) -> list[PairBatch]:
    """Return the micro-batches of a step, which come with shared noise, with noise of the kind asked for."""
    if noise == "independent":
        x0 = draw_noise(context, step, "rejected noise", policy)
        return [
            replace(batch, x0_rejected=context.on_device({key: value[rows] for key, value in x0.items()}))
            for batch, rows in zip(batches, context.layout.slices(), strict=True)
        ]
    return [_tracked(context, batch) for batch in batches] if noise == "tracked" else batches


def noise_of(candidate: Candidate, shapes: dict[str, tuple[int, ...]]) -> Latents | None:
    """Return the noise (1, *shape) that a candidate was sampled from; None if it was not sampled."""
    if candidate.model == GROUND_TRUTH or candidate.sound:
        return None
    return noise_like_rows(shapes, [candidate.noise_seed])


def _tracked(context: TrainContext, batch: PairBatch) -> PairBatch:
    """Give every side its own noise; a side that has none keeps the pair's shared noise."""
    chosen, chosen_known = _own(context, [pair.chosen for pair in batch.pairs], batch.x0)
    rejected, rejected_known = _own(context, [pair.rejected for pair in batch.pairs], batch.x0)
    return replace(batch, x0=chosen, x0_rejected=rejected, tracked=torch.cat([chosen_known, rejected_known]))


def _own(context: TrainContext, candidate_ids: Sequence[str], shared: Latents) -> tuple[Latents, Tensor]:
    """Return each candidate's own noise, or its row of `shared`, and 1 for those that have their own."""
    shapes = {key: tuple(value.shape[1:]) for key, value in shared.items()}
    x0 = {key: value.clone() for key, value in shared.items()}
    known = torch.zeros(len(candidate_ids))
    for row, candidate_id in enumerate(candidate_ids):
        candidate = context.candidates.get(candidate_id)
        own = noise_of(candidate, shapes) if candidate is not None else None
        if own is not None:
            known[row] = 1.0
            for key, value in own.items():
                x0[key][row] = value[0].to(context.layout.device)
    return x0, known.to(context.layout.device)
