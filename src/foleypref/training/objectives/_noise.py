"""Which noise each side of a pair is mixed with: one for both, one each, or the one that made it.

A candidate's noise is a function of its seed and its clip (`sample.py`), so it is drawn again, not stored.
The straight line from it to the candidate is the path that sampling followed, as far as the flow is straight
(PNAPO, arXiv 2605.09433). Ground truth has none and keeps the pair's shared noise, which is counted.

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
from foleypref.training.objectives import TrainContext
from foleypref.training.objectives._pairs import PairBatch
from foleypref.workspace.records import GROUND_TRUTH, Candidate

Noise = Literal["shared", "independent", "tracked"]


def with_noise(
    context: TrainContext, step: int, policy: Model, batches: list[PairBatch], noise: Noise
) -> list[PairBatch]:
    """The micro-batches of a step, which come with shared noise, with another if it is asked for."""
    if noise == "independent":
        generator = context.generator(step, "rejected noise")
        drawn = {
            key: torch.randn((context.global_batch_size, *shape), generator=generator)
            for key, shape in sorted(policy.spec.latents.items())
        }
        return [
            replace(batch, x0_rejected={key: value[share].to(context.device) for key, value in drawn.items()})
            for batch, share in zip(batches, context.shares(), strict=True)
        ]
    return [_tracked(context, batch) for batch in batches] if noise == "tracked" else batches


def noise_of(candidate: Candidate, shapes: dict[str, tuple[int, ...]]) -> Latents | None:
    """The noise (1, *shape) that a candidate was made of; None if it was not sampled."""
    if candidate.model == GROUND_TRUTH or candidate.sound:
        return None
    return noise_like_rows(shapes, [candidate.noise_seed])


def _tracked(context: TrainContext, batch: PairBatch) -> PairBatch:
    """Every side with its own noise; with the pair's shared one where it has none."""
    chosen, known = _own(context, [pair.chosen for pair in batch.pairs], batch.x0)
    rejected, known_too = _own(context, [pair.rejected for pair in batch.pairs], batch.x0)
    return replace(batch, x0=chosen, x0_rejected=rejected, tracked=torch.cat([known, known_too]))


def _own(context: TrainContext, candidate_ids: Sequence[str], shared: Latents) -> tuple[Latents, Tensor]:
    shapes = {key: tuple(value.shape[1:]) for key, value in shared.items()}
    found = {key: value.clone() for key, value in shared.items()}
    known = torch.zeros(len(candidate_ids))
    for row, candidate_id in enumerate(candidate_ids):
        candidate = context.candidates.get(candidate_id)
        own = noise_of(candidate, shapes) if candidate is not None else None
        if own is not None:
            known[row] = 1.0
            for key, value in own.items():
                found[key][row] = value[0].to(context.device)
    return found, known.to(context.device)
