"""A blind test between two models: same noise, letters, and a win rate that is right in closed form."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from foleypref import compare
from foleypref.annotate.assignments import draw_task, make_assignments
from foleypref.annotate.settings import AnnotateSettings
from foleypref.cli.main import run
from foleypref.compare import CompareSettings, Contest, contest_of, model_of, outcome, result, workspace_of
from foleypref.models.backbones.world import World
from foleypref.sample import sample
from foleypref.scoring.human_labels import HUMAN, SIMULATED
from foleypref.workspace.records import Candidate, Vote
from foleypref.workspace.store import Workspace
from tests.world_workspace import NUM_CLIPS, world_workspace

pytest.importorskip("sqlalchemy")
from foleypref.annotate.history import History

SETTINGS = CompareSettings(split="align", num_clips=4, num_steps=2, guidance_scale=1.0)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Two runs whose weights differ from the base's and each other's."""
    tuned = world_workspace(tmp_path)
    for name, scale in (("louder", 1.01), ("softer", 0.99)):
        model = World().load()
        with torch.no_grad():
            for parameter in model.network.parameters():
                parameter.mul_(scale)
        folder = tuned.run_folder(name)
        folder.mkdir(parents=True)
        model.export(str(folder / "model.safetensors"))
        (folder / "settings.json").write_text(json.dumps({"model": {"name": "world", "weights": ""}}))
        (folder / "result.json").write_text("{}")
    return tuned


def candidate(clip: str, weights: str, seed: int = 0) -> Candidate:
    candidate_id = Candidate.make_id(clip, "world", weights, seed, "euler", 2, 1.0)
    return Candidate(candidate_id, clip, "world", weights, seed, "euler", 2, 1.0, "shard", 0)


def test_the_win_rate_is_a_mean_over_clips_with_ties_as_halves() -> None:
    a, b = ({clip: candidate(clip, w) for clip in "xyz"} for w in ("A", "B"))
    of = {c.candidate_id: c for c in (*a.values(), *b.values())}

    def vote(clip: str, rater: str, preference: int, *, swapped: bool = False, source: str = HUMAN) -> Vote:
        pair = (b[clip], a[clip]) if swapped else (a[clip], b[clip])
        ids = [c.candidate_id for c in pair]
        return Vote.make(clip, ids[0], ids[1], rater, -preference if swapped else preference, source)

    votes = [
        vote("x", "ann", 1), vote("x", "bob", 1, swapped=True), vote("x", "cat", -1),  # 2/3 for A
        vote("y", "ann", 0), vote("z", "bob", -1, swapped=True),  # a half, none
        vote("z", "robot", 1, source=SIMULATED),
    ]  # fmt: skip
    counted = outcome(votes, of, ("A", "B"))
    assert counted.win_rate == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert (counted.wins, counted.ties, counted.losses) == (2, 1, 2)
    assert (counted.num_clips, counted.num_raters) == (3, 3)
    assert 0 <= counted.low < counted.win_rate < counted.high <= 1
    turned = outcome(votes, of, ("B", "A"))
    assert turned.win_rate == pytest.approx(1 - counted.win_rate)
    assert (turned.wins, turned.losses) == (counted.losses, counted.wins)
    assert math.isnan(outcome([], of, ("A", "B")).win_rate)
    assert "nobody" in outcome([], of, ("A", "B")).line(("A", "B"))


def test_votes_on_other_models_or_other_noise_do_not_count() -> None:
    cs = [candidate("x", "A"), candidate("x", "B", seed=1), candidate("x", "C")]
    of = {c.candidate_id: c for c in cs}
    pairs = [(0, 1), (0, 2)]
    votes = [Vote.make("x", cs[i].candidate_id, cs[j].candidate_id, "ann", 1, HUMAN) for i, j in pairs]
    assert outcome(votes, of, ("A", "B")).num_clips == 0


def test_both_models_sound_the_same_clips_from_the_same_noise(workspace: Workspace) -> None:
    for name, other in (("louder", "base"), ("base", "louder")):
        sample(workspace, compare._sample_settings(model_of(workspace, name, other), SETTINGS))
    contest = contest_of(workspace, "louder", "base")
    asked = AnnotateSettings(task="compare", split="align", versus=contest.weights, overlap=0, degraded=0)
    assignments = make_assignments(workspace, asked)
    assert len(assignments.clip_tasks) == SETTINGS.num_clips
    of = workspace.by_id(Candidate)
    first = []
    for clip_task in assignments.clip_tasks.values():
        pair = [of[i] for i in clip_task.candidates]
        assert {c.weights for c in pair} == set(contest.weights)
        assert len({(c.seed, c.num_steps, c.guidance_scale) for c in pair}) == 1
    for rater in "abcdefgh":
        task = draw_task(assignments, asked, rater, History(), set())
        assert task is not None
        first.append(of[task.tracks[0].candidate_id].weights)
    assert len(set(first)) == 2  # neither model is always A


def test_the_result_is_told_and_written(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    contest = contest_of(workspace, "louder", "softer")
    a, b = (candidate(clip, w) for clip, w in zip(("x", "x"), contest.weights))
    workspace.append([a, b])
    workspace.append([Vote.make("x", b.candidate_id, a.candidate_id, "ann", -1, HUMAN)])
    assert result(workspace, contest).win_rate == 1.0
    written = json.loads((workspace.root / "annotate" / "louder-against-softer.json").read_text())
    assert written["win_rate"] == 1.0
    runs = [str(workspace.run_folder(name)) for name in ("louder", "softer")]
    assert run(["compare", *runs, "--result"]) == 0
    assert "louder is preferred to softer in 100.0 %" in capsys.readouterr().out


def test_what_cannot_be_compared(workspace: Workspace, tmp_path: Path) -> None:
    runs = workspace.root / "runs"
    assert workspace_of(str(runs / "louder"), "base") == (workspace.root.resolve(), "louder", "base")
    for pair in (("base", "base"), (str(runs / "louder"), str(tmp_path / "x")), ("louder", "base")):
        with pytest.raises(ValueError, match="folders of two runs of one workspace"):
            workspace_of(*pair)
    with pytest.raises(ValueError, match="no training run; runs here: louder, softer"):
        contest_of(workspace, "louderer", "base")
    (runs / "softer" / "result.json").unlink()
    with pytest.raises(ValueError, match="has not ended"):
        contest_of(workspace, "softer", "base")
    with pytest.raises(ValueError, match="same weights"):
        contest_of(workspace, "louder", "louder")
    with pytest.raises(ValueError, match="fingerprints of two different models"):
        AnnotateSettings(versus=("a",))
    assert Contest(("a", "b"), ("1", "2")).title == "a-against-b"
    assert (SETTINGS.num_clips or 0) <= NUM_CLIPS
