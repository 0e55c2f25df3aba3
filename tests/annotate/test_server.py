"""The server as a browser meets it: tasks, media, replays, and the operator's page."""

from __future__ import annotations

import io
import json
import wave as wave_files
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from foleypref.annotate.labels import import_labels
from foleypref.annotate.settings import OPERATOR
from foleypref.workspace.records import Candidate
from tests.annotate_http import Client
from tests.annotate_site import Site, first_task
from tests.annotate_workspace import HOSTILE, all_heard, fill


def test_a_rater_s_way_through_a_task(site: Site) -> None:
    me = site.ann.get("/api/me").json
    assert me == {
        "rater": "ann", "task": "rate", "labels": ["bad", "medium", "good"],
        "skip_reasons": ["does not play", "cannot tell", "nothing to see", "unpleasant", "other"],
        "require_listen_s": 2.0, "pace_per_hour": None, "done": 0, "total": 3, "can_undo": False,
    }  # fmt: skip
    tasks = site.ann.get("/api/tasks/next?ahead=2").json["tasks"]
    assert len(tasks) == 3
    task = tasks[0]
    assert set(task) == {"task_id", "number", "kind", "clip", "tracks", "heard", "events"}
    assert task["clip"] == {"prompt": HOSTILE, "seconds": 1.0, "fps": 12.0}
    assert [t["label"] for t in task["tracks"]] == ["A", "B", "C"]
    assert all(set(t) == {"label", "seconds", "peaks", "given"} for t in task["tracks"])
    assert task["events"] == []  # when things happen is for the rater to see
    refused = site.ann.say("rate", task_id=task["task_id"], label="B", value=2, seconds=1.0)
    assert (refused.status, refused.json) == (409, {"reason": "listen to B first"})
    heard = site.ann.say("listen", task_id=task["task_id"], label="B", seconds=1.0)
    assert heard.json["accepted"]
    done = site.ann.say("rate", task_id=task["task_id"], label="B", value=2, seconds=1.0)
    # Two of the other three clips are hers by now, and the third is free.
    assert done.json == {"accepted": True, "seq": 2, "done": 0, "total": 4, "can_undo": True}
    again = first_task(site.ann)
    assert (again["tracks"][1]["given"], again["heard"]) == (2, {"B": 1.0})
    for label in "AC":
        site.ann.say("rate", task_id=task["task_id"], label=label, value=0, heard=all_heard(task))
    assert first_task(site.ann)["task_id"] == tasks[1]["task_id"]
    assert site.ann.say("undo").json["done"] == 0
    assert first_task(site.ann)["task_id"] == task["task_id"]


def test_media_are_whole_and_seekable_and_dateless(site: Site) -> None:
    task = first_task(site.ann)
    video = site.ann.get(f"/media/{task['task_id']}/video")
    assert (video.status, video.headers["content-type"]) == (200, "video/mp4")
    part = site.ann.get(f"/media/{task['task_id']}/video", Range="bytes=10-19")
    assert (part.status, part.body) == (206, video.body[10:20])
    sound = site.ann.get(f"/media/{task['task_id']}/A")
    assert (sound.status, sound.headers["content-type"]) == (200, "audio/wav")
    with wave_files.open(io.BytesIO(sound.body)) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
    assert not {"last-modified", "etag"} & sound.headers.keys()
    assert "no-store" in sound.headers["cache-control"]


def test_nothing_tells_which_soundtrack_is_which(site: Site) -> None:
    """A rater's tasks contain no ids, models, scores or checks."""
    raw = site.ann.get("/api/tasks/next?ahead=3").body.decode()
    for candidate in site.campaign.media.workspace.read(Candidate):
        for word in (candidate.candidate_id, candidate.clip_id, candidate.model, candidate.shard):
            assert not word or word not in raw
    for word in ("degraded", "repeat", "candidate", "weights"):
        assert word not in raw


def test_a_replayed_post_counts_once(site: Site) -> None:
    task = first_task(site.ann)
    rating = {
        "kind": "rate", "client_id": str(uuid4()), "client_time_ms": 5, "task_id": task["task_id"],
        "label": "A", "value": 2, "seconds": 1.0, "heard": {"A": 9.0},
    }  # fmt: skip
    first = site.ann.post("/api/events", rating)
    again = site.ann.post("/api/events", rating)
    assert (again.status, again.json) == (200, {**first.json, "replayed": True})
    other = site.ann.post("/api/events", {**rating, "value": 0})
    assert (other.status, other.json) == (409, {"reason": "client_id was used for another event"})
    assert len(site.campaign.log.events()) == 1
    assert site.bob.post("/api/events", rating).status == 404  # another rater's event is not his


def test_the_operator_sees_adds_and_exports(site: Site, tmp_path: Path) -> None:
    for client in (site.ann, site.bob):
        task = first_task(client)
        for label in "ABC":
            client.say(
                "rate", task_id=task["task_id"], label=label, value=1, heard=all_heard(task), seconds=2
            )
    view = site.operator.get("/api/operator/summary").json
    assert [(r["name"], r["done"]) for r in view["raters"]] == [("ann", 1), ("bob", 1)]
    assert view["totals"]["verdicts"] == 6
    added = site.operator.post("/api/operator/raters", {"name": "eve"}).json
    base, _, token = added["url"].partition("/#token=")
    assert (added["name"], base) == ("eve", f"http://127.0.0.1:{site.ann.port}")
    eve = Client(site.ann.port, token)
    assert eve.get("/api/me").json["rater"] == "eve"
    assert site.operator.post("/api/operator/raters", {"name": "eve"}).status == 409
    renewed = site.operator.post("/api/operator/raters", {"name": "eve", "renew": True}).json["url"]
    assert eve.get("/api/me").status == 401
    assert Client(site.ann.port, renewed.partition("=")[2]).get("/api/me").status == 200
    for name in ("", "../x", OPERATOR, "a" * 65, "<b>", 3):
        assert site.operator.post("/api/operator/raters", {"name": name}).status == 422, name
    for kind, suffix in (("parquet", "parquet"), ("csv", "csv"), ("labelstudio", "json")):
        answer = site.operator.get(f"/api/operator/export?format={kind}")
        assert f"labels.{suffix}" in answer.headers["content-disposition"]
        path = tmp_path / f"labels.{suffix}"
        path.write_bytes(answer.body)
        fresh = fill(tmp_path / kind, num_clips=4)
        assert import_labels(fresh, path).done == 6
    assert site.operator.get("/api/operator/export?format=exe").status == 422


def test_a_book_that_does_not_answer_is_said_and_the_post_may_come_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy.exc import OperationalError

    task, append = first_task(site.ann), site.campaign.log._add
    rating = {
        "kind": "rate", "client_id": str(uuid4()), "client_time_ms": 5, "task_id": task["task_id"],
        "label": "A", "value": 2, "heard": {"A": 9.0},
    }  # fmt: skip

    def gone(*args: Any) -> None:
        raise OperationalError("insert", {}, Exception("the disk is full"))

    monkeypatch.setattr(site.campaign.log, "_add", gone)
    answer = site.ann.post("/api/events", rating)
    assert answer.status == 503
    assert "nothing was written" in answer.json["reason"]
    monkeypatch.setattr(site.campaign.log, "_add", append)
    assert site.ann.post("/api/events", rating).json["seq"] == 1
    assert len(json.loads(site.ann.get("/api/tasks/next").body)["tasks"]) == 1
