"""Which rater gets which clip: overlap, claims, blind order, hidden checks, uncertainty, resuming."""

from __future__ import annotations

import math
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foleypref.annotate.assignments import clip_uncertainty, make_assignments
from foleypref.annotate.campaign import Campaign, Refused
from foleypref.annotate.media_store import MediaStore
from foleypref.annotate.rows import Task
from foleypref.annotate.settings import AnnotateSettings
from foleypref.fit import FitSettings, fit
from foleypref.workspace.records import GROUND_TRUTH, Candidate, Clip, Failure
from tests.annotate_workspace import (
    all_heard,
    event,
    fake_waves,
    fill,
    make_campaign,
    rate_all,
    without_media,
)
from tests.scored_workspace import fill as fill_scores
from tests.scored_workspace import rate, rule_labels, rule_values


def work_through(campaign: Campaign, raters: tuple[str, ...], rounds: int = 1000) -> dict[str, list[Task]]:
    """Let raters take turns until no tasks are left; return each rater's tasks in order."""
    for _ in range(rounds):
        idle = 0
        for rater in raters:
            shown = campaign.next_tasks(rater)
            idle += not shown
            if shown:
                rate_all(campaign, rater, shown[0])
        if idle == len(raters):
            break
    return {
        rater: list(campaign.histories.of(rater).assigned[campaign.settings.campaign_id]) for rater in raters
    }


def test_the_overlap_goes_to_everybody_and_the_rest_to_one_each(tmp_path: Path) -> None:
    workspace = fill(tmp_path / "w", num_clips=20, num_candidates=2)
    campaign = without_media(make_campaign(workspace, ("ann", "bob", "eve"), overlap=0.25))
    tasks = work_through(campaign, ("ann", "bob", "eve"))
    seen = Counter(task.clip_id for mine in tasks.values() for task in mine)
    assert Counter(seen.values()) == {3: 5, 1: 15}  # 5 of 20 by all three, 15 by one
    assert [len(mine) for mine in tasks.values()] == [10, 10, 10]
    for rater, mine in tasks.items():
        assert [task.number for task in mine] == list(range(1, 11))
        assert len({task.clip_id for task in mine}) == 10
        assert campaign.me(rater)["done"] == campaign.me(rater)["total"] == 10


def test_progress_counts_what_is_shared_out(tmp_path: Path) -> None:
    campaign = make_campaign(fill(tmp_path / "w", num_clips=20, num_candidates=2), overlap=0.25)
    assert campaign.me("ann")["total"] == 5 + 8  # half of 15, rounded up
    work_through(campaign, ("ann",), rounds=7)
    assert (campaign.me("ann")["done"], campaign.me("ann")["total"], campaign.me("bob")["total"]) == (
        7,
        13,
        13,
    )
    work_through(campaign, ("ann",), rounds=8)  # faster than her half: 10 of 15
    assert (campaign.me("ann")["done"], campaign.me("bob")["total"]) == (15, 5 + 5)
    assert campaign.me("ann")["can_undo"]


def test_a_rater_may_come_later(tmp_path: Path) -> None:
    workspace = fill(tmp_path / "w", num_clips=12, num_candidates=2)
    campaign = make_campaign(workspace, ("ann",), overlap=0.25)
    work_through(campaign, ("ann",), rounds=6)
    campaign.tokens.new_token("late")
    tasks = work_through(campaign, ("ann", "late"))
    seen = Counter(task.clip_id for mine in tasks.values() for task in mine)
    assert Counter(seen.values()) == {2: 3, 1: 9}
    assert {t.clip_id for t in tasks["late"][:3]} == set(campaign.assignments.overlap)


def test_a_restart_goes_on_where_everybody_was(tmp_path: Path) -> None:
    """Another campaign on the same log, as after kill -9: the same tasks, letters, answers, seconds heard."""
    workspace = fill(tmp_path / "w", num_clips=8)
    campaign = make_campaign(workspace, repeats=0.3, degraded=0.3)
    work_through(campaign, ("ann", "bob"), rounds=2)
    (task, *_) = campaign.next_tasks("ann", ahead=2)
    label = task["tracks"][1]["label"]
    campaign.post("ann", event("listen", task_id=task["task_id"], label=label, seconds=0.75))
    campaign.post(
        "ann",
        event("rate", task_id=task["task_id"], label=label, value=1, heard={label: 1.0}),
    )
    before = [campaign.next_tasks(rater, ahead=2) for rater in ("ann", "bob")], campaign.me("ann")
    again = make_campaign(workspace, repeats=0.3, degraded=0.3)
    after = [again.next_tasks(rater, ahead=2) for rater in ("ann", "bob")], again.me("ann")
    assert after == before
    assert after[0][0][0]["tracks"][1]["given"] == 1
    assert after[0][0][0]["heard"] == {label: 1.0}
    one, other = work_through(campaign, ("ann",)), work_through(again, ("ann",))
    assert [t.task_id for t in one["ann"]] == [t.task_id for t in other["ann"]]


def test_the_order_of_soundtracks_is_blind_and_each_rater_s_own(tmp_path: Path) -> None:
    workspace = fill(tmp_path / "w", num_clips=40, num_candidates=4)
    campaign = without_media(make_campaign(workspace, overlap=1.0))
    tasks = work_through(campaign, ("ann", "bob"))
    first = Counter()
    for ann, bob in zip(tasks["ann"], tasks["bob"]):
        assert ann.clip_id == bob.clip_id
        assert {t.candidate_id for t in ann.tracks} == {t.candidate_id for t in bob.tracks}
        assert ann.labels == ("A", "B", "C", "D")
        first[sorted(t.candidate_id for t in ann.tracks).index(ann.tracks[0].candidate_id)] += 1
    assert max(first.values()) < 20  # 10 each are expected
    assert sum(a.tracks != b.tracks for a, b in zip(tasks["ann"], tasks["bob"])) > 30  # 23 in 24 differ
    shown = str(campaign.next_tasks("ann")) + str(
        make_campaign(workspace, overlap=1.0, name="again").next_tasks("ann")
    )
    for candidate in workspace.read(Candidate):
        assert candidate.candidate_id not in shown
        assert candidate.clip_id not in shown


def test_a_share_of_tasks_is_repeated_and_a_share_has_a_degraded_soundtrack(tmp_path: Path) -> None:
    workspace = fill(tmp_path / "w", num_clips=150, num_candidates=3)
    campaign = without_media(make_campaign(workspace, ("ann",), repeats=0.2, degraded=0.2, num_tracks=3))
    tasks = work_through(campaign, ("ann",))["ann"]
    repeats = [task for task in tasks if task.repeat_of]
    degraded = [task for task in tasks if len(task.genuine) < len(task.tracks)]
    assert 0.12 < len(repeats) / len(tasks) < 0.28
    assert 0.12 < len(degraded) / len(tasks) < 0.28
    by_id = {task.task_id: task for task in tasks}
    for task in repeats:
        first = by_id[str(task.repeat_of)]
        assert first.clip_id == task.clip_id
        assert task.number - first.number > 5
        assert sorted(task.genuine.values()) == sorted(first.genuine.values())
    assert len({task.repeat_of for task in repeats}) == len(repeats)
    assert any(by_id[str(t.repeat_of)].tracks != t.tracks for t in repeats)  # in another order
    for task in degraded:
        (bad,) = [track for track in task.tracks if track.degraded]
        assert bad.candidate_id in task.genuine.values()  # beside what it was made of
        assert len(task.tracks) == 3
    assert {track.degraded for task in degraded for track in task.tracks} >= {"noise", "low_pass", "late"}
    dealt = [task.clip_id for task in tasks if task.counts]
    assert len(dealt) == len(set(dealt)) == 150


def test_a_comparison_with_a_degraded_soundtrack_is_a_check_alone(tmp_path: Path) -> None:
    campaign = make_campaign(
        fill(tmp_path / "w", num_clips=12), ("ann",), task="compare", degraded=0.4, overlap=0
    )
    while shown := campaign.next_tasks("ann"):
        one = shown[0]
        assert [t["label"] for t in one["tracks"]] == ["A", "B"]
        fields = {"task_id": one["task_id"], "first": "A", "second": "B", "value": 1, "heard": all_heard(one)}
        campaign.post("ann", event("compare", **fields))
    tasks = campaign.histories.of("ann").assigned[campaign.settings.campaign_id]
    checks = [task for task in tasks if len(task.genuine) == 1]
    assert checks
    assert all(task.claim is None and not task.shows_clip for task in checks)
    assert len(tasks) - len(checks) == 12  # every clip still came with both of its own
    assert len({task.clip_id for task in tasks if task.claim}) == 12


def test_clips_come_by_uncertainty_with_a_share_at_random(tmp_path: Path) -> None:
    num_clips = 60
    values = rule_values(num_clips * 3)
    workspace, candidates = fill_scores(tmp_path / "w", num_clips, values, num_candidates=3)
    rate(workspace, candidates, rule_labels(values))
    assignments = make_assignments(workspace, AnnotateSettings())
    assert clip_uncertainty(workspace, assignments, "audioscore") == {}
    fit(workspace, FitSettings(folds=2, num_steps=60))
    uncertainty = clip_uncertainty(workspace, assignments, "audioscore")
    assert set(uncertainty) == set(assignments.clip_tasks)
    assert all(0 < entropy < math.log(3) for entropy in uncertainty.values())
    settings = AnnotateSettings(random_share=0.0, overlap=0.0)
    assignments.order(settings, uncertainty)
    assert [uncertainty[i] for i in assignments.rest] == sorted(uncertainty.values(), reverse=True)
    assignments.order(AnnotateSettings(random_share=0.5, overlap=0.0), uncertainty)
    assert sorted(assignments.rest) == sorted(uncertainty)
    rank = np.argsort([-uncertainty[i] for i in assignments.rest]).argsort()
    assert 2 < (rank[:20] > 25).sum() < 15  # of the first 20 half were drawn at random
    campaign = Campaign(settings, None, MediaStore(workspace, fake_waves()), assignments)  # type: ignore[arg-type]
    assert campaign.assignments.rest == sorted(
        uncertainty, key=lambda i: -uncertainty[i]
    )  # the campaign follows a fit by itself


def test_which_candidates_are_shown(tmp_path: Path) -> None:
    workspace = fill(tmp_path / "w", num_clips=3, num_candidates=4)
    clips = workspace.read(Clip)
    lone = Clip("lonely", "videos/clip.mp4", "align", "", 0.0, 1.0, 12.0, 64, 48, True)
    test = Clip("other", "videos/clip.mp4", "test", "", 0.0, 1.0, 12.0, 64, 48, True)
    more = [
        Candidate("one", "lonely", "world", "base", 0, "euler", 25, 4.5, "latents/none", 0),
        Candidate("file", "lonely", "world", "base", 0, "euler", 25, 4.5, "", -1, "sound.wav"),
        Candidate("x1", "other", "world", "base", 0, "euler", 25, 4.5, "latents/none", 0),
        Candidate("x2", "other", "world", "tuned", 0, "euler", 25, 4.5, "latents/none", 0),
        Candidate("m", clips[0].clip_id, "mmaudio", "base", 0, "euler", 25, 4.5, "latents/none", 0),
    ]
    workspace.append([lone, test, *more])
    assignments = make_assignments(workspace, AnnotateSettings(num_tracks=3))
    assert set(assignments.clip_tasks) == {clip.clip_id for clip in clips}
    assert {len(clip_task.candidates) for clip_task in assignments.clip_tasks.values()} == {3}
    assert not {"m", "one", "file"} & {
        i for clip_task in assignments.clip_tasks.values() for i in clip_task.candidates
    }
    truth = {c.candidate_id for c in workspace.read(Candidate) if c.model == GROUND_TRUTH}
    assignments = make_assignments(workspace, AnnotateSettings(num_tracks=3, ground_truth=True))
    assert all(len(truth & set(clip_task.candidates)) == 1 for clip_task in assignments.clip_tasks.values())
    assert len(make_assignments(workspace, AnnotateSettings(num_clips=2)).clip_tasks) == 2
    assert make_assignments(workspace, AnnotateSettings(split="test")).clip_tasks.keys() == {"other"}
    with pytest.raises(ValueError, match="makes a picture with every sound"):
        make_assignments(workspace, AnnotateSettings(model="world_joint"))
    with pytest.raises(ValueError, match="foleypref sample"):
        make_assignments(workspace, AnnotateSettings(split="test", weights="tuned"))
    with pytest.raises(ValueError, match="no clips of split 'nowhere'"):
        make_assignments(workspace, AnnotateSettings(split="nowhere"))


def test_another_task_or_name_begins_anew(tmp_path: Path) -> None:
    workspace = fill(tmp_path / "w", num_clips=4)
    work_through(make_campaign(workspace), ("ann",), rounds=2)
    assert make_campaign(workspace).me("ann")["done"] == 2
    assert make_campaign(workspace, overlap=0.9, port=1).me("ann")["done"] == 2
    for settings in ({"task": "rank"}, {"name": "second"}, {"num_tracks": 2}, {"ground_truth": True}):
        fresh = make_campaign(workspace, **settings)
        assert fresh.me("ann")["done"] == 0
        assert not fresh.me("ann")["can_undo"]
        assert fresh.next_tasks("ann")[0]["number"] == 1


def test_a_clip_whose_media_cannot_be_made_is_recorded_and_left_out(tmp_path: Path) -> None:
    workspace = fill(tmp_path / "w", num_clips=4)
    campaign = make_campaign(workspace, overlap=1.0)
    lost = next(iter(campaign.assignments.clip_tasks[campaign.assignments.overlap[0]].candidates))
    campaign.media.waves = fake_waves(broken=[lost])
    (task,) = campaign.next_tasks("ann")
    assert len(campaign.assignments.overlap) == 3
    assert campaign.me("ann")["total"] == 3
    (failure,) = workspace.read(Failure)
    assert (failure.stage, lost in failure.reason) == ("annotate", True)
    assert task["number"] == 1


def test_a_task_whose_media_are_gone_does_not_stop_a_rater(tmp_path: Path) -> None:
    workspace = fill(tmp_path / "w", num_clips=4)
    (first, second, *_) = make_campaign(workspace).next_tasks("ann", ahead=1)
    for path in (workspace.root / "annotate" / "media").iterdir():
        path.unlink()
    again = make_campaign(workspace)
    assert [t["task_id"] for t in again.next_tasks("ann", 1)] == [first["task_id"], second["task_id"]]
    for path in (workspace.root / "annotate" / "media").iterdir():
        path.unlink()
    broken = make_campaign(workspace)
    task = broken.histories.of("ann").tasks[first["task_id"]]
    broken.media.waves = fake_waves(broken=list(task.genuine.values()))
    assert broken.next_tasks("ann")[0]["task_id"] == second["task_id"]


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    campaign = make_campaign(fill(tmp_path / "w"), require_listen_s=0.5)
    (task,) = campaign.next_tasks("ann")
    mine = {"task_id": task["task_id"]}

    def refusal(rater: str, kind: str, **fields: Any) -> tuple[int, str]:
        with pytest.raises(Refused) as caught:
            campaign.post(rater, event(kind, **fields))
        return caught.value.status, caught.value.reason

    heard = all_heard(task)
    assert refusal("ann", "rate", **mine, label="B", value=2) == (409, "listen to B first")
    assert refusal("ann", "rate", **mine, label="B", value=2, heard={"A": 1.0, "B": 0.3})[0] == 409
    assert refusal("bob", "rate", **mine, label="B", value=2, heard=heard)[0] == 404
    assert refusal("ann", "rate", task_id="ab", label="B", value=2, heard=heard)[0] == 404
    assert refusal("ann", "rate", **mine, label="D", value=2, heard=heard) == (
        422,
        "this task has no soundtrack D",
    )
    assert refusal("ann", "listen", **mine, label="Z", seconds=1)[0] == 422
    assert refusal("ann", "skip", **mine, reason="bored")[0] == 422
    assert refusal("ann", "compare", **mine, first="A", second="B", value=1, heard=heard)[0] == 422
    assert refusal("ann", "undo") == (409, "there is nothing to undo")
    assert not campaign.log.events()
    campaign.post("ann", event("listen", **mine, label="B", seconds=0.5))
    assert campaign.post("ann", event("rate", **mine, label="B", value=2))["accepted"]
    ranking = make_campaign(fill(tmp_path / "r"), task="rank")
    (task,) = ranking.next_tasks("ann")
    campaign, mine = ranking, {"task_id": task["task_id"], "heard": all_heard(task)}
    assert refusal("ann", "rank", **mine, order=[["A"], ["B"]]) == (422, "order: rank all of A, B, C")


def test_a_short_soundtrack_need_be_heard_to_its_end_only(tmp_path: Path) -> None:
    campaign = make_campaign(fill(tmp_path / "w"), require_listen_s=30.0)
    (task,) = campaign.next_tasks("ann")
    fields = {"task_id": task["task_id"], "label": "A", "value": 2}
    with pytest.raises(Refused, match="listen to A"):
        campaign.post("ann", event("rate", **fields, heard={"A": 0.9}))
    assert campaign.post("ann", event("rate", **fields, heard={"A": 1.0}))["accepted"]


def test_raters_at_the_same_time_never_share_a_dealt_clip(tmp_path: Path) -> None:
    """Two servers on one log: what one deals, the other does not."""
    workspace = fill(tmp_path / "w", num_clips=16, num_candidates=2)
    campaigns = {rater: make_campaign(workspace, overlap=0.0) for rater in ("ann", "bob")}
    for _ in range(20):
        for rater, campaign in campaigns.items():
            for shown in campaign.next_tasks(rater, ahead=1)[:1]:
                rate_all(campaign, rater, shown)
    clips = [
        t.clip_id
        for rater, campaign in campaigns.items()
        for t in campaign.histories.of(rater).assigned[campaign.settings.campaign_id]
    ]
    assert len(clips) == len(set(clips)) == 16


def test_a_verdict_does_not_wait_for_media_that_are_being_made(tmp_path: Path) -> None:
    """A page asks ahead while its rater goes on: decoding takes seconds, a verdict must not."""
    campaign = make_campaign(fill(tmp_path / "w"), ("ann",))
    (task,) = campaign.next_tasks("ann")
    decoding, go_on, waves = threading.Event(), threading.Event(), campaign.media.waves

    def slow(ids: Any) -> Any:
        decoding.set()
        assert go_on.wait(30)
        return waves(ids)

    campaign.media.waves = slow
    results: list[list[dict[str, Any]]] = []
    ahead = [threading.Thread(target=lambda: results.append(campaign.next_tasks("ann", 1))) for _ in range(2)]
    for thread in ahead:
        thread.start()
    assert decoding.wait(30)
    rate_all(campaign, "ann", task)
    assert campaign.me("ann")["done"] == 1
    go_on.set()
    for thread in ahead:
        thread.join(30)
    assert [[t["number"] for t in tasks] for tasks in results] == [[2, 3], [2, 3]]
