"""What training reads from a workspace: pairs to train on or to hold out, their latents and conditions."""

from __future__ import annotations

from collections.abc import Sequence

from accelerate import Accelerator

from foleytune.curricula import Curriculum
from foleytune.models import Model
from foleytune.objectives import TrainContext
from foleytune.records import Candidate, Feature, Pair, digest
from foleytune.store import Workspace


def split_pairs(
    pairs: Sequence[Pair], sources: Sequence[str] | None, num_eval_pairs: int
) -> tuple[list[Pair], list[Pair]]:
    """Pairs to train on and pairs held out, after the filter on sources (None: all).

    Held out by clip, in the order of a hash of the clip's id: no clip is in both, and runs with different
    seeds, objectives or curricula hold out the same. Raises ValueError if too little is left.
    """
    usable = [p for p in pairs if sources is None or p.source in sources]
    if not usable:
        found = ", ".join(sorted({p.source for p in pairs}))
        where = f"pair_sources is {sources}, there are: {found}" if found else "run pair first"
        raise ValueError(f"there are no pairs to train on; {where}")
    ordered = sorted(usable, key=lambda p: (digest("held-out", p.clip_id), p.pair_id))
    held_out = ordered[:num_eval_pairs]
    clips = {p.clip_id for p in held_out}
    kept = [p for p in usable if p.clip_id not in clips]
    if len(kept) < len(held_out):
        raise ValueError(
            f"num_eval_pairs is {num_eval_pairs}, but holding out their clips leaves {len(kept)} of "
            f"{len(usable)} pairs to train on; choose a number well below half, or 0"
        )
    return kept, held_out


def make_context(
    workspace: Workspace,
    model: Model,
    curriculum: Curriculum,
    pairs: Sequence[Pair],
    accelerator: Accelerator,
    *,
    seed: int,
    max_steps: int,
    per_device_batch_size: int,
    gradient_accumulation_steps: int,
) -> TrainContext:
    """The context of `pairs`. Raises ValueError for what they name and the workspace or the model lacks."""
    named = {i for p in pairs for i in (p.chosen, p.rejected)}
    candidates = {c.candidate_id: c for c in workspace.read(Candidate) if c.candidate_id in named}
    if len(candidates) < len(named):
        lost = len(named) - len(candidates)
        raise ValueError(f"{lost} candidates that pairs name are not in the workspace; run sample, then pair")
    key = model.feature_key  # asked once: it may look at files
    features = {f.item_id: f for f in workspace.read(Feature) if f.key == key}
    missing = {p.clip_id for p in pairs} - set(features)
    if missing:
        raise ValueError(
            f"{len(missing)} clips of the pairs have no cached conditions under {key!r}; "
            "run sample with this model first"
        )
    _check_latents(workspace, model, candidates)
    return TrainContext(
        workspace=workspace,
        pairs=pairs,
        candidates=candidates,
        features=features,
        curriculum=curriculum,
        seed=seed,
        max_steps=max_steps,
        per_device_batch_size=per_device_batch_size,
        gradient_accumulation_steps=gradient_accumulation_steps,
        rank=accelerator.process_index,
        num_processes=accelerator.num_processes,
        device=accelerator.device,
    )


def _check_latents(workspace: Workspace, model: Model, candidates: dict[str, Candidate]) -> None:
    expected = {key: tuple(shape) for key, shape in model.spec.latents.items()}
    one_a_shard = {c.shard: c for c in candidates.values()}
    for candidate in one_a_shard.values():
        found = {key: tuple(v.shape[1:]) for key, v in workspace.latents([candidate]).items()}
        if found != expected:
            raise ValueError(
                f"candidate {candidate.candidate_id} of {candidate.model!r} has latents {found}, the model "
                f"to be tuned has {expected}; sample and pair with that model"
            )
