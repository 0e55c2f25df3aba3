"""Reading a run's inputs from the workspace before the first step: items, candidates and conditions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from accelerate import Accelerator

from foleypref.models.backbones import Model
from foleypref.models.features import cached, ensure_clip_latents, ensure_features, truth_key
from foleypref.training.context import BatchLayout, TrainContext
from foleypref.training.data import TrainData, split_clips, split_labels, split_pairs
from foleypref.training.distortion import silent_latents
from foleypref.training.rule_settings import RulePairSettings
from foleypref.training.rules import RulePairs
from foleypref.training.settings import TrainSettings, needs_of
from foleypref.training.single_labels import read_labels
from foleypref.workspace.columns import among
from foleypref.workspace.records import Candidate, Clip, Pair
from foleypref.workspace.store import Workspace


def split_data(workspace: Workspace, settings: TrainSettings) -> tuple[TrainData, TrainData]:
    """Return the items to train on and those held out. Raises ValueError if the workspace lacks some."""
    needs, num_held_out = needs_of(settings), settings.num_eval_pairs
    train, held_out = TrainData(), TrainData()
    if "pairs" in needs:
        pairs = split_pairs(workspace.read(Pair), settings.pair_sources, num_held_out)
        train, held_out = (replace(side, pairs=p) for side, p in zip((train, held_out), pairs))
    if "clips" in needs:
        clips = split_clips(workspace, settings.split, num_held_out, held_out.clip_ids)
        train, held_out = (replace(side, clips=c) for side, c in zip((train, held_out), clips))
    if "labels" in needs:
        all_labels = read_labels(workspace, settings.labels, settings.split, settings.audioscore)
        labels = split_labels(all_labels, num_held_out, held_out.clip_ids)
        train, held_out = (replace(side, labels=x) for side, x in zip((train, held_out), labels))
    return train, held_out


def make_context(
    workspace: Workspace, model: Model, settings: TrainSettings, data: TrainData, accelerator: Accelerator
) -> TrainContext:
    """Return the context of all items of both sides.

    Raises ValueError if candidates or cached conditions are missing, or do not fit the model.
    """
    ids = data.candidate_ids
    candidates = {c.candidate_id: c for c in workspace.read(Candidate, among("candidate_id", ids))}
    if len(candidates) < len(ids):
        raise ValueError(
            f"{len(ids) - len(candidates)} candidates that pairs or labels name are not in the workspace; "
            "run sample, then pair"
        )
    key = model.feature_key  # asked only once, because it may look at files
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
        data=data,
        candidates=candidates,
        features=features,
        curriculum=settings.curriculum,
        seed=settings.seed,
        max_steps=settings.max_steps,
        layout=BatchLayout(
            per_device_batch_size=settings.per_device_train_batch_size,
            gradient_accumulation_steps=settings.gradient_accumulation_steps,
            rank=accelerator.process_index,
            num_processes=accelerator.num_processes,
            device=accelerator.device,
        ),
    )


def make_rule_pairs(
    workspace: Workspace,
    model: Model,
    settings: RulePairSettings,
    clips: Sequence[Clip],
    accelerator: Accelerator,
) -> RulePairs:
    """Encode the clips and their conditions if that is not done yet, each process its share.

    Clips that fail are left out. Raises ValueError if the rules do not fit the model or the remaining clips.
    """
    shard = (accelerator.process_index, accelerator.num_processes)
    ensure_features(workspace, model, clips, shard=shard)
    ensure_clip_latents(workspace, model, clips, shard=shard)
    accelerator.wait_for_everyone()
    features, truths = cached(workspace, model.feature_key), cached(workspace, truth_key(model))
    truths = {clip_id: truth for clip_id, truth in truths.items() if clip_id in features}
    usable = [clip for clip in clips if clip.clip_id in truths]
    rules = RulePairs(
        workspace=workspace,
        settings=settings,
        spec=model.spec,
        latent_key=model.latent_key,
        truths=truths,
        clips=usable,
        pool=usable,
    )
    rules.check()
    if any("silence" in rule.needs for rule in settings.rules):
        return replace(rules, silence=silent_latents(workspace, usable[0], model))
    return rules


def _check_latents(workspace: Workspace, model: Model, candidates: dict[str, Candidate]) -> None:
    """Raise a ValueError if a candidate's latents are not of the model's shapes; looks at one per shard."""
    expected = {key: tuple(shape) for key, shape in model.spec.latents.items()}
    for candidate in {c.shard: c for c in candidates.values()}.values():
        shapes = {key: tuple(v.shape[1:]) for key, v in workspace.rows([candidate]).items()}
        if shapes != expected:
            raise ValueError(
                f"candidate {candidate.candidate_id} of {candidate.model!r} has latents {shapes}, the model "
                f"to be tuned has {expected}; sample and pair with that model"
            )
