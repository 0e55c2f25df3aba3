"""What training reads from a workspace: its items, their latents and their conditions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from accelerate import Accelerator

from foleypref.models.backbones import Model
from foleypref.models.features import cached, ensure_features, ensure_truths, truth_key
from foleypref.training.curricula import Curriculum
from foleypref.training.data import TrainData, split_clips, split_labels, split_pairs
from foleypref.training.distortion import silent_latents
from foleypref.training.labels import read_labels
from foleypref.training.negatives import Negative
from foleypref.training.objectives import TrainContext
from foleypref.training.rule_settings import NegativeSettings
from foleypref.training.rules import RulePairs
from foleypref.training.settings import TrainSettings, needs_of
from foleypref.workspace.columns import among
from foleypref.workspace.records import Candidate, Clip, Pair
from foleypref.workspace.store import Workspace


def split_data(workspace: Workspace, s: TrainSettings) -> tuple[TrainData, TrainData]:
    """What a run learns from, and what of it is held out. ValueError if something is lacking."""
    needs = needs_of(s)
    kept, held_out = TrainData(), TrainData()
    if "pairs" in needs:
        pairs = split_pairs(workspace.read(Pair), s.pair_sources, s.num_eval_pairs)
        kept, held_out = (replace(side, pairs=p) for side, p in zip((kept, held_out), pairs))
    if "clips" in needs:
        clips = split_clips(workspace, s.split, s.num_eval_pairs, held_out.clip_ids)
        kept, held_out = (replace(side, clips=c) for side, c in zip((kept, held_out), clips))
    if "labels" in needs:
        found = read_labels(workspace, s.labels, s.split, s.audioscore)
        labels = split_labels(found, s.num_eval_pairs, held_out.clip_ids)
        kept, held_out = (replace(side, labels=x) for side, x in zip((kept, held_out), labels))
    return kept, held_out


def make_context(
    workspace: Workspace,
    model: Model,
    settings: TrainSettings,
    data: TrainData,
    accelerator: Accelerator,
) -> TrainContext:
    """The context of all items. Raises ValueError for what they name and the workspace or the model lacks."""
    candidates = _candidates(workspace, data.candidate_ids)
    key = model.feature_key  # asked once: it may look at files
    features = cached(workspace, key)
    missing = data.clip_ids - set(features)
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(data.clip_ids)} clips have no cached conditions under {key!r}; "
            "run sample with this model first"
        )
    _check_latents(workspace, model, candidates)
    return TrainContext(
        workspace=workspace,
        pairs=data.pairs,
        clips=data.clips,
        labels=data.labels,
        candidates=candidates,
        features=features,
        curriculum=cast(Curriculum, settings.curriculum),
        seed=settings.seed,
        max_steps=settings.max_steps,
        per_device_batch_size=settings.per_device_train_batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        rank=accelerator.process_index,
        num_processes=accelerator.num_processes,
        device=accelerator.device,
    )


def make_rule_pairs(
    workspace: Workspace,
    model: Model,
    settings: NegativeSettings,
    clips: Sequence[Clip],
    accelerator: Accelerator,
) -> RulePairs:
    """Encode the clips and their conditions where that is not done, each process its share.

    Clips that fail are left out. Raises ValueError if the rules and what is left of the clips do not fit.
    """
    shard = (accelerator.process_index, accelerator.num_processes)
    ensure_features(workspace, model, clips, shard=shard)
    ensure_truths(workspace, model, clips, shard=shard)
    accelerator.wait_for_everyone()
    features, truths = cached(workspace, model.feature_key), cached(workspace, truth_key(model))
    both = {clip_id: truth for clip_id, truth in truths.items() if clip_id in features}
    usable = [clip for clip in clips if clip.clip_id in both]
    rules = RulePairs(workspace, settings, model.spec, model.latent_key, both, usable, usable)
    rules.check()
    if any("silence" in cast(Negative, rule).needs for rule in settings.rules):
        rules = replace(rules, silence=silent_latents(workspace.root, usable[0], model))
    return rules


def _candidates(workspace: Workspace, named: set[str]) -> dict[str, Candidate]:
    found = {c.candidate_id: c for c in workspace.read(Candidate, among("candidate_id", named))}
    if len(found) < len(named):
        lost = len(named) - len(found)
        raise ValueError(
            f"{lost} candidates that pairs or labels name are not in the workspace; run sample, then pair"
        )
    return found


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
