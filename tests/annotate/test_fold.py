"""Events to records: undo, the last verdict, ranks as votes, checks left out, other records kept."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from foleypref.annotate.campaign import Campaign
from foleypref.annotate.fold import sync
from foleypref.annotate.history import BREAK_MS, History
from foleypref.annotate.rows import StoredEvent, Task, Track
from foleypref.annotate.sync import sync_labels
from foleypref.fit import FitSettings, fit
from foleypref.pair import PairSettings, pair
from foleypref.scoring.human_labels import human_pairs
from foleypref.workspace.records import Candidate, Clip, Pair, Rating, Vote
from tests.annotate_workspace import all_heard, event, fill, make_campaign, rate_all, without_media
from tests.scored_workspace import fill as fill_scores
from tests.scored_workspace import rule_labels, rule_values


def say(
    campaign: Campaign, kind: str, task: dict[str, Any], rater: str = "ann", **fields: Any
) -> dict[str, Any]:
    heard = {} if kind == "skip" else {"heard": all_heard(task)}
    return campaign.post(rater, event(kind, task_id=task["task_id"], **heard, **fields))


def candidate_of(campaign: Campaign, task: dict[str, Any], label: str, rater: str = "ann") -> str:
    return campaign.histories.of(rater).tasks[task["task_id"]].genuine[label]


def test_the_last_word_counts_and_undo_brings_back_the_one_before(tmp_path: Path) -> None:
    campaign = without_media(make_campaign(fill(tmp_path / "w")))
    (task,) = campaign.next_tasks("ann")
    say(campaign, "rate", task, label="A", value=0, seconds=4.5)
    say(campaign, "rate", task, label="B", value=1)
    say(campaign, "rate", task, label="A", value=2, seconds=1.5)
    a, b = (candidate_of(campaign, task, label) for label in "AB")
    workspace = campaign.media.workspace

    def ratings() -> dict[str, tuple[int, float]]:
        sync(workspace)
        return {r.candidate_id: (r.label, r.seconds) for r in workspace.read(Rating)}

    assert ratings() == {a: (2, 1.5), b: (1, 0.0)}
    campaign.post("ann", event("undo"))
    assert ratings() == {a: (0, 4.5), b: (1, 0.0)}
    assert campaign.next_tasks("ann")[0]["tracks"][0]["given"] == 0
    campaign.post("ann", event("undo"))
    assert ratings() == {a: (0, 4.5)}
    campaign.post("ann", event("undo"))
    assert ratings() == {}
    assert not campaign.me("ann")["can_undo"]
    assert all(r.source == "human" and r.rater == "ann" for r in workspace.read(Rating))


def test_an_undo_that_is_sent_twice_takes_back_one_thing(tmp_path: Path) -> None:
    campaign = without_media(make_campaign(fill(tmp_path / "w")))
    (task,) = campaign.next_tasks("ann")
    say(campaign, "rate", task, label="A", value=0)
    say(campaign, "rate", task, label="B", value=1)
    one = event("undo")
    first, again = campaign.post("ann", one), campaign.post("ann", one)
    assert (again["seq"], again.get("replayed"), first.get("replayed")) == (first["seq"], True, None)
    assert [t["given"] for t in campaign.next_tasks("ann")[0]["tracks"]] == [0, None, None]
    last = event("undo")
    assert not campaign.post("ann", last)["can_undo"]
    assert campaign.post("ann", last)["replayed"]  # though by now there is nothing left to undo


def test_a_second_round_on_the_same_clips_overrules_the_first(tmp_path: Path) -> None:
    """And a later word on the first round's page overrules that again."""
    workspace = fill(tmp_path / "w", num_clips=1)
    labels = []
    campaigns = [without_media(make_campaign(workspace, ("ann",), name=name)) for name in ("main", "second")]
    shown = [campaign.next_tasks("ann")[0] for campaign in campaigns]
    for place, value in ((0, 0), (1, 1), (0, 2)):
        first = campaigns[0].histories.of("ann").tasks[shown[0]["task_id"]].genuine["A"]
        genuine = campaigns[place].histories.of("ann").tasks[shown[place]["task_id"]].genuine
        label = next(a for a, candidate_id in genuine.items() if candidate_id == first)
        campaigns[place].histories._histories.clear()
        say(campaigns[place], "rate", shown[place], label=label, value=value)
        sync(workspace)
        labels.append({r.candidate_id: r.label for r in workspace.read(Rating)}[first])
    assert labels == [0, 1, 2]


def test_what_was_heard_is_never_less_again(tmp_path: Path) -> None:
    campaign = without_media(make_campaign(fill(tmp_path / "w")))
    (task,) = campaign.next_tasks("ann")
    for seconds in (0.25, 0.75, 0.5):
        campaign.post("ann", event("listen", task_id=task["task_id"], label="C", seconds=seconds))
    assert campaign.next_tasks("ann")[0]["heard"] == {"C": 0.75}


def test_undo_goes_back_into_the_task_before(tmp_path: Path) -> None:
    campaign = without_media(make_campaign(fill(tmp_path / "w")))
    first, second = campaign.next_tasks("ann", ahead=1)
    rate_all(campaign, "ann", first)
    assert [t["task_id"] for t in campaign.next_tasks("ann")] == [second["task_id"]]
    assert campaign.me("ann")["done"] == 1
    campaign.post("ann", event("undo"))
    (again,) = campaign.next_tasks("ann")
    assert again["task_id"] == first["task_id"]
    assert [t["given"] for t in again["tracks"]] == [2, 2, None]
    assert campaign.me("ann")["done"] == 0


def test_a_skipped_task_says_nothing_until_the_skip_is_undone(tmp_path: Path) -> None:
    campaign = without_media(make_campaign(fill(tmp_path / "w")))
    workspace = campaign.media.workspace
    (task,) = campaign.next_tasks("ann")
    say(campaign, "rate", task, label="A", value=0)
    say(campaign, "skip", task, reason="cannot tell", note="\u0000 odd \ud83d\ude00")
    assert campaign.me("ann")["done"] == 1
    assert campaign.next_tasks("ann")[0]["task_id"] != task["task_id"]
    sync(workspace)
    assert workspace.read(Rating) == []
    campaign.post("ann", event("undo"))
    sync(workspace)
    assert len(workspace.read(Rating)) == 1
    assert campaign.next_tasks("ann")[0]["task_id"] == task["task_id"]


def test_a_rank_is_a_vote_on_every_two(tmp_path: Path) -> None:
    campaign = without_media(make_campaign(fill(tmp_path / "w", num_candidates=4), task="rank"))
    (task,) = campaign.next_tasks("ann")
    say(campaign, "rank", task, order=[["C"], ["A", "D"], ["B"]], seconds=9.0)
    place = {
        candidate_of(campaign, task, label): rank
        for rank, group in enumerate(("C", "AD", "B"))
        for label in group
    }
    workspace = campaign.media.workspace
    sync(workspace)
    votes = workspace.read(Vote)
    assert {(v.first, v.second) for v in votes} == set(combinations(sorted(place), 2))
    for vote in votes:
        gap = place[vote.second] - place[vote.first]
        assert vote.preference == (gap > 0) - (gap < 0)
        assert (vote.rater, vote.source, vote.seconds) == ("ann", "human", 9.0)
    clips, candidates = workspace.by_id(Clip), workspace.by_id(Candidate)
    clip_of = {i: c.clip_id for i, c in candidates.items()}
    pairs = human_pairs(clips, clip_of, [], votes)
    assert len(pairs) == 5  # 6 less the tie
    assert all(place[p.chosen] < place[p.rejected] and p.complexity == 0.0 for p in pairs)


@pytest.mark.parametrize("value", [1, 0, -1])
def test_a_comparison_is_a_vote_whichever_way_it_stood(tmp_path: Path, value: int) -> None:
    campaign = without_media(make_campaign(fill(tmp_path / "w"), task="compare", overlap=1.0))
    for rater in ("ann", "bob"):
        for task in campaign.next_tasks(rater, ahead=3):
            say(campaign, "compare", task, rater, first="B", second="A", value=value)
    workspace = campaign.media.workspace
    sync(workspace)
    votes = workspace.read(Vote)
    assert len(votes) == 8
    for vote in votes:
        assert vote.first < vote.second
        task = next(t for t in campaign.histories.of(vote.rater).tasks.values() if t.clip_id == vote.clip_id)
        better = task.genuine["B" if value == 1 else "A"]
        assert vote.preference == (0 if value == 0 else 1 if vote.first == better else -1)


def test_repeats_and_degraded_soundtracks_never_become_records(tmp_path: Path) -> None:
    workspace = fill(tmp_path / "w", num_clips=40)
    campaign = without_media(make_campaign(workspace, ("ann",), repeats=0.3, degraded=0.3, num_tracks=3))
    while shown := campaign.next_tasks("ann"):
        task = campaign.histories.of("ann").tasks[shown[0]["task_id"]]
        special = {track.label for track in task.tracks if track.degraded or not task.counts}
        rate_all(campaign, "ann", shown[0], lambda label, special=special: 0 if label in special else 2)
    tasks = campaign.histories.of("ann").assigned[campaign.settings.campaign_id]
    assert any(task.repeat_of for task in tasks)
    assert any(track.degraded for task in tasks for track in task.tracks)
    sync(workspace)
    assert {r.label for r in workspace.read(Rating)} == {2}  # every 0 was said of a check


def test_what_is_not_the_tool_s_stays(tmp_path: Path) -> None:
    workspace = fill(tmp_path / "w")
    candidates = workspace.read(Candidate)
    others = [
        Rating.make(candidates[0].candidate_id, "simulated-1", 1, "simulated"),
        Rating.make(candidates[0].candidate_id, "imported", 2, "human"),
        Vote.make(candidates[0].clip_id, "x", "y", "imported", 1, "human"),
    ]
    workspace.append(others)
    sync_labels(workspace)  # without an event log nothing is made
    assert not (workspace.root / "annotate").exists()
    campaign = without_media(make_campaign(workspace))
    rate_all(campaign, "ann", campaign.next_tasks("ann")[0])
    before = sorted(workspace.root.glob("tables/votes/*"))
    sync_labels(workspace)
    assert len(workspace.read(Rating)) == 5
    assert sorted(workspace.root.glob("tables/votes/*")) == before  # untouched
    for _ in range(3):
        campaign.post("ann", event("undo"))
    sync_labels(workspace)
    assert {r.rater for r in workspace.read(Rating)} == {"simulated-1", "imported"}
    assert len(workspace.read(Vote)) == 1


def test_fit_and_pair_read_the_book_with_no_extra_step(tmp_path: Path) -> None:
    """With ratings from the tool only, AudioScore and pairs with complexity 0 come out."""
    num_clips = 20
    values = rule_values(num_clips * 3)
    workspace, candidates = fill_scores(tmp_path / "w", num_clips, values, num_candidates=3)
    label_of = dict(zip((c.candidate_id for c in candidates), rule_labels(values).tolist()))
    campaign = without_media(make_campaign(workspace, ("ann",)))
    while shown := campaign.next_tasks("ann"):
        genuine = campaign.histories.of("ann").tasks[shown[0]["task_id"]].genuine
        rate_all(campaign, "ann", shown[0], lambda label, genuine=genuine: label_of[genuine[label]])
    assert workspace.read(Rating) == []
    report = fit(workspace, FitSettings(folds=2, num_steps=80))
    assert (report.num_ratings, report.num_raters, report.sources) == (60, 1, {"human": 60})
    task = next(iter(campaign.histories.of("ann").tasks.values()))
    one = {"task_id": task.task_id, "label": "A", "value": 0, "heard": {"A": 9.0}}
    campaign.post("ann", event("rate", **one))
    pair(workspace, PairSettings())
    assert {r.candidate_id: r.label for r in workspace.read(Rating)}[task.genuine["A"]] == 0
    human = [p for p in workspace.read(Pair) if p.source == "human"]
    assert human
    assert all(p.complexity == 0.0 for p in human)
    assert all(label_of[p.chosen] > label_of[p.rejected] for p in human if p.clip_id != task.clip_id)


def test_pace_leaves_pauses_out() -> None:
    tracks = (Track("A", "c1"), Track("B", "c2"))
    tasks = [Task(f"{i}", "main", "ann", i + 1, "compare", f"clip{i}", tracks) for i in range(4)]
    history = History(tasks)
    times = [0, 30_000, 30_000 + 3 * BREAK_MS, 60_000 + 3 * BREAK_MS]
    for seq, (task, time_ms) in enumerate(zip(tasks, times), 1):
        body = {"first": "A", "second": "B", "value": 1, "seconds": 1.0}
        history.apply(StoredEvent(seq, "ann", str(seq), "compare", task.task_id, body, None, time_ms))
    active_h = (30_000 + BREAK_MS + 30_000) / 3_600_000
    assert history.per_hour("main") == pytest.approx(4 / active_h, abs=0.1)
    assert history.per_hour("other") is None
