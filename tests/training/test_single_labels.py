"""Labels by hand-worked numbers: raters' majority, AudioScore's thresholds, who outranks whom, refusals."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from foleypref.training.single_labels import LabelSettings, read_labels
from foleypref.workspace.dimensions import Dimension
from foleypref.workspace.records import GROUND_TRUTH, Candidate, Clip, Rating, Score
from foleypref.workspace.store import Workspace
from tests.test_pair import NAME, transparent

CLIPS = [
    Clip(Clip.make_id(f"l{i}", 0, 1), f"{i}.mp4", "align", "", 0, 1, 2, 8, 8, True, {}) for i in range(3)
]


def add(
    workspace: Workspace, clip: Clip, number: int, score: float | None, *labels: int, **changes: str
) -> str:
    """A candidate with a judge's score, rated by people; returns its id."""
    model = changes.pop("model", "m")
    candidate_id = Candidate.make_id(clip.clip_id, model, "w", number, "euler", 1, 1.0)
    made = Candidate(candidate_id, clip.clip_id, model, "w", number, "euler", 1, 1.0, "latents/s", number)
    workspace.append([replace(made, **changes)])
    if score is not None:
        dimension = Dimension.parse(NAME)
        workspace.append([Score.make(candidate_id, dimension.scorer, "1", dimension.name, score)])
    rate(workspace, candidate_id, "human", *labels)
    return candidate_id


def rate(workspace: Workspace, candidate_id: str, source: str, *labels: int) -> None:
    """Add one rating per label, each by another rater."""
    rated = [Rating.make(candidate_id, f"{source}-{i}", label, source) for i, label in enumerate(labels)]
    workspace.append(rated)


@pytest.fixture
def judged(workspace: Workspace) -> Workspace:
    """Three clips, and an AudioScore whose p(Good) of v is e^v / (e^v + 1 + e^−v)."""
    workspace.append(CLIPS)
    transparent(workspace)
    return workspace


def found(workspace: Workspace, **settings: object) -> dict[str, tuple[bool, str]]:
    """Return {candidate: (desirable, source)} of the labels read."""
    labels = read_labels(workspace, LabelSettings.model_validate(settings), "align")
    assert labels == sorted(labels, key=lambda label: label.candidate_id)
    assert all(label.weight == 1 for label in labels)
    return {label.candidate_id: (label.desirable, label.source) for label in labels}


def test_the_majority_labels_what_was_rated_and_medium_is_neither(judged: Workspace) -> None:
    good = add(judged, CLIPS[0], 0, None, 2, 2, 0)
    bad = add(judged, CLIPS[0], 1, None, 0, 0, 1)
    add(judged, CLIPS[1], 0, None, 1, 1, 2)
    add(judged, CLIPS[1], 1, None, 0, 2)  # a tie goes to the class nearest to the mean, the lower first: bad
    tied = Candidate.make_id(CLIPS[1].clip_id, "m", "w", 1, "euler", 1, 1.0)
    assert found(judged) == {good: (True, "human"), bad: (False, "human"), tied: (False, "human")}


def test_audioscore_labels_what_it_is_sure_of(judged: Workspace) -> None:
    good = add(judged, CLIPS[0], 0, 3.0)  # p(Good) 0.950
    bad = add(judged, CLIPS[0], 1, -3.0)
    fair = add(judged, CLIPS[1], 0, 1.0)  # 0.665
    add(judged, CLIPS[1], 1, 0.0)  # a third each
    add(judged, CLIPS[2], 0, None)  # no judge has scored it
    assert found(judged) == {good: (True, "auto"), bad: (False, "auto")}
    at = math.e / (math.e + 1 + 1 / math.e)
    assert fair in found(judged, good_from=at - 1e-9)
    assert fair not in found(judged, good_from=at + 1e-9)
    top = math.e**3 / (math.e**3 + 1 + math.e**-3)
    assert bad in found(judged, bad_from=top - 1e-9)
    with pytest.raises(ValueError, match="0 undesirable"):
        found(judged, bad_from=top + 1e-9)


def test_what_no_judge_has_scored_is_not_labelled_however_sure_audioscore_is(judged: Workspace) -> None:
    score = transparent(judged)
    with torch.no_grad():
        score.fitted.network.out.bias.copy_(torch.tensor([0.0, 0.0, 2.5]))  # p(Good) 0.859 without a score
    score.save(judged.root / "audioscore" / "audioscore.safetensors")
    scored, bad = add(judged, CLIPS[0], 0, 0.0), add(judged, CLIPS[0], 1, -5.0)
    add(judged, CLIPS[1], 0, None)
    assert found(judged) == {scored: (True, "auto"), bad: (False, "auto")}


def test_people_outrank_simulated_raters_and_raters_outrank_audioscore(judged: Workspace) -> None:
    doubted = add(judged, CLIPS[0], 0, 3.0, 0)  # AudioScore finds it good, one person bad
    rate(judged, doubted, "simulated", 2, 2, 2)
    medium = add(judged, CLIPS[0], 1, 3.0, 1)  # and this one medium
    simulated = add(judged, CLIPS[1], 0, -3.0)
    rate(judged, simulated, "simulated", 2)
    bad = add(judged, CLIPS[1], 1, -3.0)
    assert found(judged) == {
        doubted: (False, "human"),
        simulated: (True, "simulated"),
        bad: (False, "auto"),
    }
    assert medium not in found(judged)
    alone = found(judged, sources=("auto",))
    assert alone == {c: (c in (doubted, medium), "auto") for c in (doubted, medium, simulated, bad)}
    assert found(judged, sources=("simulated", "auto"))[doubted] == (True, "simulated")


def test_what_cannot_be_trained_on_is_left_out(judged: Workspace) -> None:
    good, bad = add(judged, CLIPS[0], 0, 3.0), add(judged, CLIPS[0], 1, -3.0)
    add(judged, CLIPS[1], 0, 3.0, 2, model=GROUND_TRUTH)
    add(judged, CLIPS[1], 1, 3.0, 2, shard="", sound="a.wav")
    elsewhere = replace(CLIPS[2], split="test")
    judged.append([replace(elsewhere, clip_id=Clip.make_id("x", 0, 1))])
    add(judged, replace(elsewhere, clip_id=Clip.make_id("x", 0, 1)), 0, 3.0)
    assert set(found(judged)) == {good, bad}
    add(judged, CLIPS[2], 0, 3.0, model="other")
    with pytest.raises(ValueError, match=r"several models \(m, other\); name one in labels.model"):
        found(judged)
    assert set(found(judged, model="m")) == {good, bad}
    with pytest.raises(ValueError, match="0 candidates"):
        found(judged, model="m", weights="another")


def test_both_classes_are_needed(judged: Workspace) -> None:
    add(judged, CLIPS[0], 0, 3.0)
    with pytest.raises(ValueError, match="1 desirable and 0 undesirable; both are needed"):
        found(judged)


def test_ratings_are_enough_where_no_audioscore_was_fitted(workspace: Workspace) -> None:
    workspace.append(CLIPS)
    good, bad = add(workspace, CLIPS[0], 0, 3.0, 2), add(workspace, CLIPS[0], 1, 3.0, 0)
    add(workspace, CLIPS[0], 2, 3.0)
    assert set(found(workspace)) == {good, bad}
    with pytest.raises(ValueError, match="holds no AudioScore"):
        found(workspace, sources=("human", "auto"))


def test_scores_of_another_version_are_refused(judged: Workspace) -> None:
    add(judged, CLIPS[0], 0, 3.0)
    transparent(judged, version="2")
    with pytest.raises(ValueError, match=r"fitted on .* of version 2, these candidates have 1"):
        found(judged)
