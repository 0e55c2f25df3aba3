"""Stage 3, score: scorers × candidates -> raw scores, and embeddings for the metrics over sets.

A clip's picture and its own sound are decoded once for all its candidates, a candidate's latents once for
all scorers. Scores are stored raw with scorer and version; what cannot be judged is unscored with a reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch

from foleytune.media import MediaClip, read_clip
from foleytune.models import Model
from foleytune.plugins import Settings, build, part_field
from foleytune.records import GROUND_TRUTH, Candidate, Clip, Feature, Record, Score
from foleytune.scorers import FRAMES_FPS, FRAMES_SIDE, ScoreItem, Scorer
from foleytune.stages import StageCount, run_batches
from foleytune.store import Workspace

WORLD_JUDGES = ("world_semantic", "world_text", "world_sync", "world_tagger")
WORLD_ORACLES = ("oracle_onset", "oracle_class", "oracle_noise", "oracle_envelope")


class ScoreSettings(Settings):
    """Which candidates are scored by what. `model` decodes latents; its flow weights do not matter."""

    scorers: tuple[str, ...] = (*WORLD_JUDGES, *WORLD_ORACLES)
    optional_scorers: tuple[str, ...] = ("pesq",)  # left out, with a word, where their extra is not installed
    model: part_field("models") = build("models", "world")  # type: ignore[valid-type]
    split: str | None = None  # None is every split
    ground_truth: bool = True  # score the clips' own sound too
    batch_size: int = 40
    device: str = "cpu"


def score(workspace: Workspace, settings: ScoreSettings) -> StageCount:
    """Score what has not been scored by these scorers in these versions."""
    scorers = load_scorers(settings)
    model = cast(Model, settings.model).load(settings.device)
    clips = {clip.clip_id: clip for clip in workspace.read(Clip) if settings.split in (None, clip.split)}
    with workspace.lock("score"):
        plan = _plan(workspace, clips, settings.ground_truth)
        if not plan:
            raise ValueError(
                f"{workspace.root} has nothing to score in split {settings.split!r}; run sample first"
            )
        have = workspace.ids(Score)
        return run_batches(
            workspace,
            "score",
            plan,
            lambda candidate: candidate.candidate_id,
            {c.candidate_id for c in plan if all(not _missing(s, name, [c], have) for name, s in scorers)},
            lambda batch: _score_batch(workspace, model, scorers, clips, batch, have),
            settings.batch_size,
        )


def load_scorers(settings: ScoreSettings) -> list[tuple[str, Scorer]]:
    """The scorers by name, loaded; an optional one whose extra is not installed is left out."""
    found = [(name, cast(Scorer, build("scorers", name))) for name in settings.scorers]
    for name in settings.optional_scorers:
        try:
            found.append((name, cast(Scorer, build("scorers", name))))
        except ValueError as error:
            if "needs the package" not in str(error):
                raise
    return [(name, scorer.load(settings.device)) for name, scorer in found]


def embedding_key(scorer: str, version: str) -> str:
    """The feature key of a scorer's embeddings."""
    return f"{scorer}@{version}"


def decode_candidates(
    workspace: Workspace,
    model: Model,
    candidates: Sequence[Candidate],
    truth: Callable[[Candidate], np.ndarray | None],
) -> list[np.ndarray | None]:
    """Waves of candidates, (N,) float32 each: decoded latents, and `truth` for the ground truth."""
    made = [c for c in candidates if c.model != GROUND_TRUTH]
    waves: dict[str, np.ndarray] = {}
    if made:
        with torch.inference_mode():
            latents = {k: v.float() for k, v in workspace.latents(made).items()}
            decoded = model.decode(latents).cpu().numpy()
        waves = {c.candidate_id: wave for c, wave in zip(made, decoded)}
    return [waves[c.candidate_id] if c.candidate_id in waves else truth(c) for c in candidates]


def _plan(workspace: Workspace, clips: dict[str, Clip], ground_truth: bool) -> list[Candidate]:
    """Candidates by clip, so that a batch needs few clips; the ground truth of each clip comes first."""
    plan = [c for c in workspace.read(Candidate) if c.clip_id in clips and c.model != GROUND_TRUTH]
    if ground_truth:
        plan += [truth_candidate(clip) for clip in clips.values() if clip.has_audio]
    return sorted(plan, key=lambda c: (c.clip_id, c.model != GROUND_TRUTH, c.candidate_id))


def truth_candidate(clip: Clip) -> Candidate:
    """The clip's own soundtrack as a candidate; it has no latents."""
    candidate_id = Candidate.make_id(clip.clip_id, GROUND_TRUTH, "", 0, "", 0, 0.0)
    return Candidate(candidate_id, clip.clip_id, GROUND_TRUTH, "", 0, "", 0, 0.0, "", -1)


def _missing(scorer: Scorer, name: str, candidates: list[Candidate], have: set[str]) -> list[Candidate]:
    return [
        c
        for c in candidates
        if any(
            Score.make(c.candidate_id, name, scorer.version, d, None).score_id not in have
            for d in scorer.dimensions
        )
    ]


def _score_batch(
    workspace: Workspace,
    model: Model,
    scorers: list[tuple[str, Scorer]],
    clips: dict[str, Clip],
    batch: list[Candidate],
    have: set[str],
) -> list[Record]:
    media = {i: _read(workspace, clips[i], model) for i in sorted({c.clip_id for c in batch})}
    waves = decode_candidates(workspace, model, batch, lambda c: media[c.clip_id].wave)
    items = {
        c.candidate_id: _item(c, clips[c.clip_id], media[c.clip_id], wave, model)
        for c, wave in zip(batch, waves)
    }
    records: list[Record] = [c for c in batch if c.model == GROUND_TRUTH]
    features: list[Record] = []
    scores: list[Record] = []
    for name, scorer in scorers:
        todo = [items[c.candidate_id] for c in _missing(scorer, name, batch, have)]
        if todo:
            scores += scorer.score(todo)
            features += _embed(workspace, name, scorer, todo)
    return [*records, *features, *scores]


def _read(workspace: Workspace, clip: Clip, model: Model) -> MediaClip:
    return read_clip(
        workspace.root / clip.path,
        start_s=clip.start_s,
        duration_s=model.spec.clip_seconds,
        fps=FRAMES_FPS,
        size=FRAMES_SIDE,
        sample_rate=model.spec.sample_rate,
        audio=clip.has_audio,
    )


def _item(
    candidate: Candidate, clip: Clip, media: MediaClip, wave: np.ndarray | None, model: Model
) -> ScoreItem:
    if wave is None:
        raise ValueError(f"the sound of clip {clip.clip_id} cannot be read")
    meta: dict[str, Any] = clip.meta
    rate = model.spec.sample_rate
    return ScoreItem(
        candidate.candidate_id, wave, rate, clip.prompt, media.frames, FRAMES_FPS, media.wave, meta
    )


def _embed(workspace: Workspace, name: str, scorer: Scorer, items: list[ScoreItem]) -> list[Record]:
    if not scorer.embeddings:
        return []
    key = embedding_key(name, scorer.version)
    ids = [Feature.make_id(item.candidate_id, key) for item in items]
    shard = workspace.write_rows("embeddings", ids, scorer.embed(items))
    return [Feature(ids[row], item.candidate_id, key, shard, row) for row, item in enumerate(items)]
