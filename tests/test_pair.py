"""Pairs against numbers worked out by hand, pairs that raters decided, and reasons of clips without one."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from foleypref import pair as pair_stage
from foleypref.networks.audioscore import AudioScoreNetwork
from foleypref.pair import PairReport, PairSettings, pair
from foleypref.scoring.human_labels import human_pairs
from foleypref.scoring.pairings import Group, ScoredCandidate
from foleypref.scoring.pairings.best_worst import NOT_AHEAD, SAME, TOO_CLOSE, BestWorst
from foleypref.scoring.pairings.margin import Margin, expected_score
from foleypref.scoring.scorers.audioscore import AudioScore, Fitted
from foleypref.workspace.records import GROUND_TRUTH, Clip, Pair, Rating, Score, Vote
from foleypref.workspace.store import Workspace
from tests import scored_workspace as scored

NAME = scored.JUDGES[0]


def transparent(workspace: Workspace, version: str = "1", name: str = NAME) -> AudioScore:
    """An AudioScore whose logits are (−v, 0, v), so every probability can be worked out by hand."""
    network = AudioScoreNetwork(1, 2)
    with torch.no_grad():
        network.hidden.weight.copy_(torch.tensor([[1.0, 0], [-1, 0]]))
        network.out.weight.copy_(torch.tensor([[-1.0, 1], [0, 0], [1, -1]]))
        network.hidden.bias.zero_()
        network.out.bias.zero_()
    one = torch.ones(1, dtype=torch.float64)
    score = AudioScore.of(Fitted((name,), (version,), 0 * one, one, network))
    return score.save(workspace.root / "audioscore" / "audioscore.safetensors")


def p(value: float) -> np.ndarray:
    odds = np.exp([-value, 0, value])
    return odds / odds.sum()


def group_of(*rows: tuple[float, float, float]) -> Group:
    clip = scored.make_clip(0)
    return Group(
        clip, tuple(ScoredCandidate(scored.make_candidate(clip, i), *row) for i, row in enumerate(rows))
    )


def ids(group: Group) -> list[str]:
    return [j.candidate.candidate_id for j in group.candidates]


def test_best_worst_by_hand():
    group = group_of((0.1, 0.2, 0.7), (0.6, 0.3, 0.1), (0.2, 0.2, 0.6))
    (only,) = BestWorst().pairs(group).pairs
    assert (only.chosen, only.rejected) == (ids(group)[0], ids(group)[1])
    assert (only.score_chosen, only.score_rejected) == (0.7, 0.1)
    assert only.complexity == pytest.approx(0.5 * ((0.7 - 0.1) + (0.6 - 0.1)))  # Eq. 3: 0.55
    assert BestWorst(min_complexity=0.55 - 1e-9).pairs(group).pairs
    assert BestWorst(min_complexity=0.6).pairs(group) == ([], TOO_CLOSE)


def test_best_worst_refilters():
    # Torn raters: the first is the likeliest good and the likeliest bad.
    assert BestWorst().pairs(group_of((0.5, 0, 0.5), (0.3, 0.6, 0.1))) == ([], SAME)
    # As likely to be bad as the other: ahead only in p(good). A tie in p(bad) goes by id, so try both ways.
    ahead, behind = (0.4, 0.1, 0.5), (0.4, 0.3, 0.3)
    reasons = {BestWorst().pairs(group_of(*rows)).reason for rows in ((ahead, behind), (behind, ahead))}
    assert reasons == {SAME, NOT_AHEAD}


def test_best_worst_breaks_ties_by_id():
    group = group_of((0.1, 0.2, 0.7), (0.1, 0.2, 0.7), (0.7, 0.2, 0.1), (0.7, 0.2, 0.1))
    (only,) = BestWorst().pairs(group).pairs
    assert (only.chosen, only.rejected) == (min(ids(group)[:2]), min(ids(group)[2:]))


def test_margin_by_hand():
    # Expected scores 1.6, 1.2, 1.0, 0.8, 0.5
    group = group_of((0.1, 0.2, 0.7), (0.2, 0.4, 0.4), (0, 1, 0), (0.4, 0.4, 0.2), (0.6, 0.3, 0.1))
    assert [expected_score(j) for j in group.candidates] == pytest.approx([1.6, 1.2, 1.0, 0.8, 0.5])
    i = ids(group)
    pairs = Margin(margin=0.35, max_pairs=5).pairs(group).pairs
    assert [(q.chosen, q.rejected) for q in pairs] == [(i[0], i[4]), (i[1], i[3])]
    assert [q.complexity for q in pairs] == pytest.approx([1.1 / 2, 0.4 / 2])  # half the gap
    assert len(Margin(margin=0.35, max_pairs=1).pairs(group).pairs) == 1
    assert len(Margin(margin=0.5).pairs(group).pairs) == 1
    assert Margin(margin=1.2).pairs(group).reason


def test_the_stage_by_hand(tmp_path):
    x = np.nan
    values = np.array([2, 0, -1, 0, 0, 0, 1.5, x, x, x, x, x])  # 4 clips of 3
    workspace, candidates = scored.fill(tmp_path / "w", 4, {NAME: values}, num_candidates=3)
    workspace.append([scored.make_clip(4), scored.make_clip(5, split="test")])
    score = transparent(workspace)
    report = pair(workspace, PairSettings())
    (only,) = workspace.read(Pair)
    assert (only.clip_id, only.chosen, only.rejected) == (
        "clip00000",
        candidates[0].candidate_id,
        candidates[2].candidate_id,
    )
    assert only.score_chosen == pytest.approx(p(2)[2])
    complexity = 0.5 * ((p(2)[2] - p(-1)[2]) + (p(-1)[0] - p(2)[0]))
    assert only.complexity == pytest.approx(complexity)
    assert 0.7 < complexity < 0.8
    assert report.num_clips == 5
    assert report.num_candidates == 12
    assert report.num_unscored == 5
    assert report.pairs == {"auto": 1}
    assert report.reasons == {"fewer than two candidates": 2, SAME: 1, "no candidates": 1}
    assert report.share_above == {"0.5": 1.0, "0.6": 1.0, "0.7": 1.0, "0.8": 0.0, "0.9": 0.0}
    assert len(report.histogram) == 20
    assert report.histogram[17] == 1  # [0.7, 0.8)
    assert report.audioscore == score.version
    text = (workspace.root / "pairs.json").read_text()
    assert PairReport.model_validate(json.loads(text)) == report
    assert pair(workspace, PairSettings()) == report  # the same again, not twice
    assert workspace.read(Pair) == [only]
    margin = pair(workspace, PairSettings(pairing={"name": "margin", "margin": 0.1}))
    assert margin.settings["pairing"]["name"] == "margin"


def test_groups_do_not_depend_on_how_many_rows_are_held(tmp_path, monkeypatch):
    values = scored.rule_values(300)[NAME] * 8 - 2
    workspace, _ = scored.fill(tmp_path / "w", 60, {NAME: values})
    transparent(workspace)
    whole, pairs = pair(workspace, PairSettings()), workspace.read(Pair)
    assert len(pairs) > 30
    for rows in (1, 7, 10):
        monkeypatch.setattr(pair_stage, "ROWS_AT_ONCE", rows)
        assert pair(workspace, PairSettings()) == whole
        assert workspace.read(Pair) == pairs


def test_candidates_can_be_picked(tmp_path):
    workspace, candidates = scored.fill(tmp_path / "w", 2, {NAME: np.array([1, -1, 1, -1])}, num_candidates=2)
    transparent(workspace)
    clip = scored.make_clip(0)
    tuned = scored.make_candidate(clip, 7, weights="tuned")
    truth = scored.make_candidate(clip, 0, model=GROUND_TRUTH)
    workspace.append([tuned, truth])
    workspace.append(
        [Score.make(c.candidate_id, "world_semantic", "1", "similarity", 9.0) for c in (tuned, truth)]
    )
    pair(workspace, PairSettings())
    assert {q.chosen for q in workspace.read(Pair)} == {tuned.candidate_id, candidates[2].candidate_id}
    pair(workspace, PairSettings(weights="base"))
    assert {q.chosen for q in workspace.read(Pair)} == {candidates[i].candidate_id for i in (0, 2)}
    workspace.append([scored.make_candidate(clip, 1, model="mmaudio")])
    with pytest.raises(ValueError, match="several models"):
        pair(workspace, PairSettings())
    assert pair(workspace, PairSettings(model="world", weights="base")).pairs == {"auto": 2}
    with pytest.raises(ValueError, match="foleypref sample"):
        pair(workspace, PairSettings(weights="no such"))


def test_the_error_names_the_missing_stage(tmp_path):
    workspace, _ = scored.fill(tmp_path / "w", 2, {NAME: np.array([1, -1, 1, -1.0])}, num_candidates=2)
    with pytest.raises(ValueError, match="foleypref fit"):
        pair(workspace, PairSettings())
    transparent(workspace, version="2")
    with pytest.raises(ValueError, match="of version 2, these candidates have 1"):
        pair(workspace, PairSettings())
    transparent(workspace, name=scored.JUDGES[1])
    with pytest.raises(ValueError, match="foleypref score"):
        pair(workspace, PairSettings())
    transparent(workspace)
    with pytest.raises(ValueError, match="no clips of split 'train'; it has align"):
        pair(workspace, PairSettings(split="train"))


CLIP = scored.make_clip(0)
A, B, C = (scored.make_candidate(CLIP, seed).candidate_id for seed in range(3))
CLIPS, CLIP_OF = {CLIP.clip_id: CLIP}, dict.fromkeys((A, B, C), CLIP.clip_id)


def rated(source: str = "human", **labels: list[int]) -> list[Rating]:
    names = {"a": A, "b": B, "c": C}
    rater = "ann" if source == "human" else "simulated-"
    return [
        Rating.make(names[key], f"{rater}{i}", label, source)
        for key, given in labels.items()
        for i, label in enumerate(given)
    ]


def test_pairs_from_ratings():
    (only,) = human_pairs(CLIPS, CLIP_OF, rated(a=[2, 2, 1], b=[1, 1, 1], c=[0, 1, 1]), [])
    assert (only.chosen, only.rejected) == (A, C)  # means 5/3 and 2/3
    assert (only.complexity, only.source) == (0.0, "human")
    assert (only.score_chosen, only.score_rejected) == pytest.approx((2 / 3, 0))
    assert human_pairs(CLIPS, CLIP_OF, rated(a=[2, 1], b=[1, 1]), []) == []  # half a class apart
    assert human_pairs(CLIPS, CLIP_OF, rated(a=[2]), []) == []
    (simulated,) = human_pairs(CLIPS, CLIP_OF, rated("simulated", a=[2], b=[0]), [])
    assert simulated.source == "simulated"
    mixed = [*rated("simulated", a=[2], b=[0]), *rated(a=[0], b=[2])]
    assert [(q.chosen, q.source) for q in human_pairs(CLIPS, CLIP_OF, mixed, [])] == [(B, "human")]


def test_pairs_from_votes():
    def vote(first, second, rater, preference, source="human"):
        return Vote.make(CLIP.clip_id, first, second, rater, preference, source)

    votes = [vote(A, B, "ann", 1), vote(B, A, "bob", -1), vote(A, B, "cat", -1), vote(A, B, "dan", 0)]
    (only,) = human_pairs(CLIPS, CLIP_OF, [], votes)
    assert (only.chosen, only.rejected) == (A, B)
    assert (only.score_chosen, only.score_rejected) == (0.5, 0.25)
    assert human_pairs(CLIPS, CLIP_OF, [], votes[1:3]) == []  # one each
    over = human_pairs(CLIPS, CLIP_OF, rated(a=[2], b=[0]), [vote(A, B, "ann", -1)])
    assert [(q.chosen, q.rejected) for q in over] == [(B, A)]  # a direct comparison outranks ratings
    lost = [vote(A, "gone", "ann", 1), Vote.make("gone", A, B, "ann", 1, "human"), vote(A, A, "ann", 1)]
    assert human_pairs(CLIPS, CLIP_OF, [], lost) == []
    people = [vote(A, B, "simulated-1", 1, "simulated"), vote(A, B, "ann", -1)]
    assert [(q.chosen, q.source) for q in human_pairs(CLIPS, CLIP_OF, [], people)] == [(B, "human")]


def test_raters_overrule_automatic_pairs(tmp_path):
    values = np.tile([1.0, 0, -1], 6)
    workspace, candidates = scored.fill(tmp_path / "w", 6, {NAME: values}, num_candidates=3)
    transparent(workspace)
    scored.rate(workspace, candidates[:9], np.array([0, 1, 2, 2, 0, 1, 1, 1, 1]))
    report = pair(workspace, PairSettings())
    # Clip 0: raters turn the automatic pair around. Clip 1: they decide another pair. Clip 2: no verdict.
    assert report.pairs == {"auto": 5, "human": 2}
    assert report.settled == 1
    assert report.reasons == {"people decided these two candidates": 1}
    assert sum(report.histogram) == 5
    assert {q.complexity for q in workspace.read(Pair) if q.source == "human"} == {0.0}
    assert pair(workspace, PairSettings(human=False)).pairs == {"auto": 6}
    one = pair(workspace, PairSettings(max_human_pairs=1))
    assert one.pairs["human"] == 1
    assert pair(workspace, PairSettings(max_human_pairs=1)) == one
    assert pair(workspace, PairSettings(max_human_pairs=0)).pairs == {"auto": 6}


def test_a_table_of_columns_equals_the_records(tmp_path):
    workspace, candidates = scored.fill(tmp_path / "w", 3, {NAME: np.arange(15.0)})
    workspace.append([candidates[0]])  # once more, in another part
    rows = workspace.table(Score).to_pylist()
    assert [Score(**row) for row in rows] == workspace.read(Score)
    assert workspace.table(Clip, ("prompt",)).column_names == ["clip_id", "prompt"]
    table = workspace.table(type(candidates[0]), ("clip_id",))
    assert table["candidate_id"].to_pylist() == sorted(c.candidate_id for c in candidates)
    assert workspace.table(Vote).num_rows == 0
    assert workspace.table(Vote).column_names == list(Vote.columns())
