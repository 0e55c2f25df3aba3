"""Scoring: one score per candidate and dimension, also of ground truth; resume by scorer and version."""

from __future__ import annotations

import pytest

from foleypref.sample import SampleSettings, sample
from foleypref.score import ScoreSettings, build_scorers, score
from foleypref.workspace.records import GROUND_TRUTH, Candidate, Clip, Feature, Score
from tests.world_workspace import NUM_CLIPS, world_workspace

FEW = ScoreSettings(scorers=("world_tagger", "oracle_noise"), optional_scorers=(), batch_size=5)


@pytest.fixture
def workspace(tmp_path):
    workspace = world_workspace(tmp_path)
    sample(workspace, SampleSettings(num_candidates=2, num_steps=2, guidance_scale=1.0))
    return workspace


def test_every_candidate_and_the_ground_truth_are_scored_once(workspace):
    count = score(workspace, FEW)
    total = 3 * NUM_CLIPS  # two candidates and the clip's own sound
    assert (count.done, count.failed) == (total, 0)
    scores = workspace.read(Score)
    assert len(scores) == total * 3  # inception; noise_floor_db, noise_excess_db
    truths = [c for c in workspace.read(Candidate) if c.model == GROUND_TRUTH]
    assert {c.clip_id for c in truths} == {c.clip_id for c in workspace.read(Clip)}
    excess = {s.candidate_id: s.value for s in scores if s.dimension == "noise_excess_db"}
    assert all(excess[c.candidate_id] < 1.0 for c in truths), "clean sound adds no noise to itself"
    again = score(workspace, FEW)
    assert (again.done, again.skipped) == (0, total)


def test_another_scorer_adds_only_its_scores(workspace):
    score(workspace, FEW)
    before = workspace.ids(Score)
    score(workspace, FEW.model_copy(update={"scorers": (*FEW.scorers, "oracle_envelope")}))
    added = [s for s in workspace.read(Score) if s.score_id not in before]
    assert {s.scorer for s in added} == {"oracle_envelope"}
    assert len(added) == 3 * NUM_CLIPS


def test_embeddings_are_stored_under_scorer_and_version(workspace):
    score(workspace, FEW)
    tagger, *_ = build_scorers(FEW)
    key = f"world_tagger@{tagger.version}"
    features = [f for f in workspace.read(Feature) if f.key == key]
    assert {f.item_id for f in features} == {c.candidate_id for c in workspace.read(Candidate)}
    rows = workspace.shards.rows([(f.shard, f.row) for f in features], "logits")
    assert rows.shape == (3 * NUM_CLIPS, 27)


def test_nothing_to_score_is_an_error(workspace):
    with pytest.raises(ValueError, match="nothing to score in split 'test'"):
        score(workspace, FEW.model_copy(update={"split": "test"}))


def test_an_unknown_scorer_gets_the_nearest_name(workspace):
    with pytest.raises(ValueError, match="did you mean 'world_tagger'"):
        score(workspace, FEW.model_copy(update={"scorers": ("world_taggr",)}))


def test_one_scorer_at_a_time_gives_the_same_scores(workspace, tmp_path):
    together = {(s.score_id, s.value) for s in _scores_after(workspace, FEW)}
    other = world_workspace(tmp_path / "other")
    sample(other, SampleSettings(num_candidates=2, num_steps=2, guidance_scale=1.0))
    one_by_one = {
        (s.score_id, s.value) for s in _scores_after(other, FEW.model_copy(update={"scorers_at_once": 1}))
    }
    assert one_by_one == together


def _scores_after(workspace, settings):
    assert score(workspace, settings).failed == 0
    return workspace.read(Score)
