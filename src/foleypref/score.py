"""Stage 3, score: scorers × candidates -> raw scores, and embeddings for the metrics over sets.

A clip whose picture or sound is damaged gets a recorded failure, and its candidates are scored on the part
that decodes. A clip's picture and its own sound are decoded once for all its candidates, a candidate's
latents once for all scorers that are loaded together. Scores are stored raw, with scorer and version; a
candidate that a scorer cannot judge is unscored, with a reason.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

from pydantic import Field

from foleypref.models.backbones import Model, ModelPart
from foleypref.published.places import MissingWeights
from foleypref.scoring.marginals import with_marginal
from foleypref.scoring.scorer_inputs import decode_candidates, decode_clip, evaluated_seconds, make_score_item
from foleypref.scoring.scorer_sets import expand_sets
from foleypref.scoring.scorers import Scorer, build_scorer, streams_of
from foleypref.workspace.dimensions import embeddings_key
from foleypref.workspace.engines import MapSettings, run_map
from foleypref.workspace.records import GROUND_TRUTH, Candidate, Clip, Failure, Record, Score
from foleypref.workspace.store import Shard, Workspace
from foleypref.workspace.walk import Stage, StageCount, say

WORLD_JUDGES = ("world_semantic", "world_text", "world_sync", "world_tagger")
WORLD_ORACLES = ("oracle_onset", "oracle_class", "oracle_noise", "oracle_envelope")


class ScoreSettings(MapSettings):
    """Which candidates are scored, and by which scorers. `model` decodes latents; its flow is not used."""

    scorers: tuple[str, ...] = (*WORLD_JUDGES, *WORLD_ORACLES)  # or v2a_dpo, av_benchmark, commercial
    optional_scorers: tuple[str, ...] = ("pesq",)  # left out if extra or weights are missing
    model: ModelPart = Field("world", validate_default=True)
    split: str | None = None  # None is every split
    ground_truth: bool = True  # score the clips' own sound too
    batch_size: int = 40
    scorers_at_once: int = Field(0, ge=0)  # 1: load each, score everything, free it; 0: load all together


class LoadedScorer(NamedTuple):
    """A scorer ready to judge. Its version is asked for once, as it may find and hash files."""

    name: str
    scorer: Scorer
    version: str


def score(workspace: Workspace, settings: ScoreSettings) -> StageCount:
    """Score the candidates that these scorers, in these versions, have not scored yet."""
    return run_map(ScoreWork, workspace, settings)


class ScoreWork:
    """The stage with its plan made, ready to do one shard after another; loaded networks stay loaded."""

    def __init__(self, workspace: Workspace, settings: ScoreSettings) -> None:
        self.workspace, self.settings = workspace, settings
        self.scorers = build_scorers(settings)
        self.clips = {c.clip_id: c for c in workspace.read(Clip) if settings.split in (None, c.split)}
        self.plan = _plan(workspace, self.clips, settings.ground_truth)
        if not self.plan:
            raise ValueError(
                f"{workspace.root} has nothing to score in split {settings.split!r}; run sample first"
            )
        self.model: Model | None = None
        if any(candidate.shard for candidate in self.plan):
            self.model = settings.model.load(settings.device)
        self._together: list[LoadedScorer] | None = None

    def __call__(self, shard: Shard) -> StageCount:
        """Score what is missing of shard i of n."""
        total = StageCount("score")
        at_once = self.settings.scorers_at_once or max(1, len(self.scorers))
        with self.workspace.lock("score", shard):
            for begin in range(0, len(self.scorers), at_once):
                group = self._loaded(self.scorers[begin : begin + at_once])
                total.add(self._score_with(group, shard))
        return total

    def _loaded(self, scorers: list[Scorer]) -> list[LoadedScorer]:
        """Load copies of scorers, so that dropping the copies frees their memory for the next group."""
        if self._together is not None:
            return self._together
        loaded = []
        for name, scorer in ((scorer.scored_as, scorer) for scorer in scorers):
            try:
                ready = with_marginal(self.workspace, name, scorer, self.settings.device)
                judge = copy.copy(ready).load(self.settings.device)
                loaded.append(LoadedScorer(name, judge, judge.version))
            except MissingWeights as error:
                if name not in expand_sets(self.settings.optional_scorers):
                    raise
                say(f"score: without {name}: {error}")
        if len(scorers) == len(self.scorers):
            self._together = loaded
        return loaded

    def _score_with(self, scorers: list[LoadedScorer], shard: Shard) -> StageCount:
        score_ids = self.workspace.ids(Score)
        done = {c.candidate_id for c in self.plan if not any(_missing(s, [c], score_ids) for s in scorers)}
        stage = Stage(
            name="score",
            plan=self.plan,
            item_id=lambda candidate: candidate.candidate_id,
            done=done,
            process=lambda batch: self._score_batch(batch, scorers, score_ids),
            batch_size=self.settings.batch_size,
        )
        return stage.run(self.workspace, shard)

    def _score_batch(
        self, batch: list[Candidate], scorers: list[LoadedScorer], score_ids: set[str]
    ) -> list[Record]:
        """Decode a batch of candidates and return the records of all scorers, scores last."""
        streams = streams_of(judge.scorer for judge in scorers)
        decoded = {}
        for clip in (self.clips[i] for i in sorted({c.clip_id for c in batch})):
            seconds = evaluated_seconds(clip, self.model)
            decoded[clip.clip_id] = decode_clip(self.workspace, clip, streams, seconds)
        rendered = decode_candidates(
            self.workspace, self.model, batch, decoded=lambda c: decoded[c.clip_id], streams=streams
        )
        items = {
            c.candidate_id: make_score_item(c.candidate_id, decoded[c.clip_id], media)
            for c, media in zip(batch, rendered)
        }
        records: list[Record] = [c for c in batch if c.model == GROUND_TRUTH]
        records += [Failure.make("decode", i, clip.damage) for i, clip in decoded.items() if clip.damage]
        features: list[Record] = []
        scores: list[Record] = []
        for judge in scorers:
            todo = [items[c.candidate_id] for c in _missing(judge, batch, score_ids)]
            if todo:
                judgement = judge.scorer.judge(todo)
                scores += judgement.records(judge.name, judge.version, todo)
                if judgement.embeddings:
                    key = embeddings_key(judge.name, judge.version)
                    ids = [item.candidate_id for item in todo]
                    features += self.workspace.write_features("embeddings", key, ids, judgement.embeddings)
        return [*records, *features, *scores]


def build_scorers(settings: ScoreSettings) -> list[Scorer]:
    """Build the scorers without loading them; optional ones whose extra is not installed are left out."""
    names = expand_sets(settings.scorers)
    scorers = [build_scorer(name) for name in names]
    for name in (name for name in expand_sets(settings.optional_scorers) if name not in names):
        try:
            scorers.append(build_scorer(name))
        except ValueError as error:
            if "needs the package" not in str(error):
                raise
    return scorers


def _plan(workspace: Workspace, clips: dict[str, Clip], ground_truth: bool) -> list[Candidate]:
    """Return candidates by clip, so that a batch needs few clips; each clip's ground truth comes first."""
    plan = [c for c in workspace.read(Candidate) if c.clip_id in clips and c.model != GROUND_TRUTH]
    if ground_truth:
        plan += [Candidate.make(clip.clip_id, GROUND_TRUTH) for clip in clips.values() if clip.has_audio]
    return sorted(plan, key=lambda c: (c.clip_id, c.model != GROUND_TRUTH, c.candidate_id))


def _missing(judge: LoadedScorer, candidates: list[Candidate], score_ids: set[str]) -> list[Candidate]:
    """Return the candidates that lack a score of one of the scorer's dimensions."""

    def score_id(candidate: Candidate, dimension: str) -> str:
        return Score.make(candidate.candidate_id, judge.name, judge.version, dimension, None).score_id

    dimensions = judge.scorer.dimensions
    return [c for c in candidates if any(score_id(c, d) not in score_ids for d in dimensions)]
