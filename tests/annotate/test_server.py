"""The server as a browser meets it, and as somebody with bad intentions does."""

from __future__ import annotations

import io
import json
import socket
import wave as wave_files
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import pytest

from foleypref.annotate.campaign import Campaign
from foleypref.annotate.guard import MAX_BODY
from foleypref.annotate.labels import import_labels
from foleypref.annotate.settings import OPERATOR
from foleypref.workspace.records import Candidate
from tests.annotate_http import Client, served
from tests.annotate_workspace import HOSTILE, all_heard, fill, make_campaign


class Site(NamedTuple):
    """A running server and everybody's way to it."""

    campaign: Campaign
    ann: Client
    bob: Client
    operator: Client
    stranger: Client


def open_site(folder: Path) -> Iterator[Site]:
    workspace = fill(folder / "w", num_clips=4, prompt=HOSTILE)
    campaign = make_campaign(workspace, raters=())
    tokens = [campaign.tokens.new_token(name) for name in ("ann", "bob")]
    static = folder / "static"
    static.mkdir()
    (static / "index.html").write_text("<!doctype html><title>rate</title>")
    (static / "operator.html").write_text("<!doctype html><title>operator</title>")
    (static / "app.js").write_text("export const x = 1;\n")
    (folder / "secret.txt").write_text("secret")
    (static / "out.txt").symlink_to(folder / "secret.txt")
    operator = campaign.tokens.new_token(OPERATOR, OPERATOR)
    with served(campaign, static) as port:
        yield Site(campaign, *(Client(port, t) for t in (*tokens, operator)), Client(port))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    yield from open_site(tmp_path)


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One site for all tests that must leave nothing in its log."""
    for found in open_site(tmp_path_factory.mktemp("quiet")):
        yield found
        assert not found.campaign.log.events()


def first_task(client: Client) -> dict[str, Any]:
    return client.get("/api/tasks/next").json["tasks"][0]


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
    # Two of the other three are hers by now, and the third is anybody's.
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
    """Ids, models, scores and checks are nowhere in what a rater gets."""
    raw = site.ann.get("/api/tasks/next?ahead=3").body.decode()
    for candidate in site.campaign.media.workspace.read(Candidate):
        for word in (candidate.candidate_id, candidate.clip_id, candidate.model, candidate.shard):
            assert not word or word not in raw
    for word in ("degraded", "repeat", "candidate", "weights"):
        assert word not in raw


def test_pages_come_without_a_token_and_nothing_else_does(site: Site) -> None:
    for path, kind in (("/", "text/html"), ("/operator", "text/html"), ("/static/app.js", "javascript")):
        answer = site.stranger.get(path)
        assert answer.status == 200
        assert kind in answer.headers["content-type"]
    task_id = first_task(site.ann)["task_id"]
    paths = ["/api/me", "/api/tasks/next", f"/media/{task_id}/video", f"/media/{task_id}/A"]
    operators = ["/api/operator/summary", "/api/operator/export?format=csv"]
    for client in (site.stranger, Client(site.ann.port, "x" * 43), Client(site.ann.port, "")):
        for path in paths + operators:
            answer = client.get(path)
            assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
        for path in ("/api/events", "/api/operator/raters"):
            assert client.post(path, {}).status == 401
    for path in operators:
        assert site.ann.get(path).status == 403
    assert site.ann.post("/api/operator/raters", {"name": "eve"}).status == 403
    assert site.operator.get("/api/me").status == 403
    assert site.operator.say("undo").status == 403
    for path in ("/docs", "/redoc", "/openapi.json", "/nothing"):
        assert site.stranger.get(path).status == 404


def test_a_token_counts_in_its_header_alone(site: Site) -> None:
    token = site.ann.token
    assert site.stranger.get(f"/api/me?token={token}").status == 401
    assert site.stranger.get("/api/me", Cookie=f"token={token}").status == 401
    assert site.stranger.get("/api/me", Authorization=f"Basic {token}").status == 401
    assert site.stranger.get("/api/me", Authorization=f"bearer {token}").status == 200


def test_another_rater_s_task_is_no_task(site: Site) -> None:
    hers, his = first_task(site.ann), first_task(site.bob)
    assert hers["task_id"] != his["task_id"]
    for which in ("video", "A"):
        assert site.bob.get(f"/media/{hers['task_id']}/{which}").status == 404
    for said in (
        {"kind": "rate", "label": "A", "value": 2, "heard": {"A": 9.0}},
        {"kind": "listen", "label": "A", "seconds": 2},
        {"kind": "skip", "reason": "other"},
    ):
        answer = site.bob.say(**said, task_id=hers["task_id"])
        assert (answer.status, answer.json) == (404, {"reason": "there is no such task"})
    assert not site.campaign.log.events()
    assert not site.bob.say("undo").json.get("accepted")  # and nobody's words but his own


TRAVERSALS = [
    "/media/../../secret.txt",
    "/media/{task}/../../../secret.txt",
    "/media/{task}/..%2f..%2f..%2fsecret.txt",
    "/media/{task}/%2e%2e%2f%2e%2e%2fsecret.txt",
    "/media/..%2f..%2f/video",
    "/media/%2e%2e/video",
    "/media/{task}/..",
    "/media/{task}/%00",
    "/media/{task}/A%00.wav",
    "/media/{task}/video/../../..",
    "/media/{task}/AA",
    "/media/{task}/../book.sqlite",
    "/static/../secret.txt",
    "/static/..%2fsecret.txt",
    "/static/%2e%2e/secret.txt",
    "/static//etc/passwd",
    "/static/..%5csecret.txt",
    "/%2e%2e/secret.txt",
    "/static/out.txt",  # a link
]


@pytest.mark.parametrize("path", TRAVERSALS)
def test_no_path_leads_to_another_file(quiet: Site, path: str) -> None:
    answer = quiet.ann.get(path.format(task=first_task(quiet.ann)["task_id"]))
    assert answer.status in (400, 404)
    assert b"secret" not in answer.body.replace(b"secret.txt", b"")
    assert b"root:" not in answer.body


MALFORMED: dict[str, tuple[Any, str]] = {
    "no json": (b"{", "JSON"),
    "bytes": (b"\xff\xfe\x00", "JSON"),
    "nothing": (b"", "JSON"),
    "a list": ([], "event"),
    "no kind": ({"kind": None}, "kind"),
    "another kind": ({"kind": "drop table"}, "kind"),
    "one field more": ({"admin": True}, "admin"),
    "value": ({"value": 3}, "value"),
    "value as word": ({"value": "2"}, "value"),
    "value as bool": ({"value": True}, "value"),
    "value as half": ({"value": 1.5}, "value"),
    "label": ({"label": "../A"}, "label"),
    "long label": ({"label": "A" * 1000}, "label"),
    "no label": ({"label": None}, "label"),
    "negative": ({"seconds": -1}, "seconds"),
    "infinite": ({"seconds": "@1e999@"}, "seconds"),
    "not a number": ({"seconds": float("nan")}, "seconds"),
    "client_id": ({"client_id": "1; DROP TABLE annotate_events"}, "client_id"),
    "time": ({"client_time_ms": 10**30}, "client_time_ms"),
    "task": ({"task_id": "../../x"}, "task_id"),
    "long task": ({"task_id": "a" * 65}, "task_id"),
    "heard": ({"heard": {"A": "x"}}, "heard"),
    "much heard": ({"heard": {chr(65 + i % 26) * (1 + i // 26): 1 for i in range(60)}}, "heard"),
    "note": ({"kind": "skip", "reason": "other", "note": "x" * 501}, "skip.note"),
    "deep": (b'{"heard":' + b'{"A":' * 5000 + b"1" + b"}" * 5000 + b"}", ""),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_event_is_refused_in_a_line(quiet: Site, name: str) -> None:
    content, said = MALFORMED[name]
    if isinstance(content, dict):
        good = {"kind": "rate", "client_id": str(uuid4()), "client_time_ms": 1, "label": "A", "value": 2}
        content = {**good, "task_id": first_task(quiet.ann)["task_id"], "heard": {"A": 9.0}, **content}
        if content["kind"] == "skip":
            del content["label"], content["value"]
        content = json.dumps(content).replace('"@', "").replace('@"', "").encode()
    answer = quiet.ann.post("/api/events", content)
    assert answer.status == 422
    assert said in answer.json["reason"]
    assert "\n" not in answer.json["reason"]
    assert len(answer.json["reason"]) <= 300
    assert not quiet.campaign.log.events()


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("compare", {"first": "A", "second": "A", "value": 1}),
        ("compare", {"first": "A", "second": "B", "value": 2}),
        ("rank", {"order": []}),
        ("rank", {"order": [["A"], []]}),
        ("rank", {"order": [["A"], ["A", "B", "C"]]}),
        ("rank", {"order": [["A"]] * 1000}),
    ],
)
def test_malformed_comparisons_and_ranks(quiet: Site, kind: str, fields: dict[str, Any]) -> None:
    assert quiet.ann.say(kind, task_id=first_task(quiet.ann)["task_id"], **fields).status == 422


def test_an_oversized_post_is_refused_before_it_is_read(site: Site) -> None:
    big = b'{"kind":"skip","note":"' + b"x" * MAX_BODY + b'"}'
    answer = site.ann.post("/api/events", big)
    assert (answer.status, answer.headers["connection"]) == (413, "close")
    # Said to be large and never sent: the answer comes at once.
    head = f"POST /api/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {site.ann.token}\r\n"
    typed = head + "Content-Type: application/json\r\n"
    assert b" 413 " in raw(site, f"{typed}Content-Length: 99999999999\r\n\r\n".encode())
    # In pieces and without a length: refused when there is too much.
    piece = b"1000\r\n" + b"x" * 0x1000 + b"\r\n"
    assert b" 413 " in raw(site, f"{typed}Transfer-Encoding: chunked\r\n\r\n".encode() + piece * 20)
    assert site.ann.get("/api/me").status == 200


def raw(site: Site, sent: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", site.ann.port), 10) as connection:
        connection.sendall(sent)
        return connection.recv(4096)


def test_a_replayed_post_counts_once(site: Site) -> None:
    task = first_task(site.ann)
    said = {
        "kind": "rate", "client_id": str(uuid4()), "client_time_ms": 5, "task_id": task["task_id"],
        "label": "A", "value": 2, "seconds": 1.0, "heard": {"A": 9.0},
    }  # fmt: skip
    first = site.ann.post("/api/events", said)
    again = site.ann.post("/api/events", said)
    assert (again.status, again.json) == (200, {**first.json, "replayed": True})
    other = site.ann.post("/api/events", {**said, "value": 0})
    assert (other.status, other.json) == (409, {"reason": "client_id was used for another event"})
    assert len(site.campaign.log.events()) == 1
    assert site.bob.post("/api/events", said).status == 404  # somebody else's words are not his


def test_another_site_s_page_is_refused(site: Site) -> None:
    task = first_task(site.ann)
    said = {
        "kind": "rate", "client_id": str(uuid4()), "client_time_ms": 5, "task_id": task["task_id"],
        "label": "A", "value": 2, "heard": {"A": 9.0},
    }  # fmt: skip
    own = f"127.0.0.1:{site.ann.port}"
    for origin in (
        "http://evil.example", "null", f"http://{own}.evil.example", f"http://127.0.0.1:{site.ann.port + 1}",
        f"ftp://{own}", "http://[", own, "",
    ):  # fmt: skip
        assert site.ann.post("/api/events", said, Origin=origin).status in (400, 403), origin
        assert site.ann.request("OPTIONS", "/api/events", headers={"Origin": origin}).status in (400, 403)
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
        answer = site.ann.post("/api/events", said, **{"Content-Type": kind})
        assert (answer.status, answer.json) == (415, {"reason": "send application/json"})
    assert site.ann.get("/api/me", Host="evil.example").status == 400  # a name rebound to this address
    assert site.ann.get("/api/me", Host="[::1").status == 400
    assert not site.campaign.log.events()
    assert "access-control-allow-origin" not in site.ann.get("/api/me").headers
    typed = {"Content-Type": "application/json; charset=utf-8"}
    assert site.ann.post("/api/events", said, Origin=f"http://{own}", **typed).status == 200


def test_behind_a_proxy_its_own_name_is_known(tmp_path: Path) -> None:
    campaign = make_campaign(fill(tmp_path / "w"), raters=(), public_url="https://rate.example.org")
    token = campaign.tokens.new_token("ann")
    with served(campaign) as port:
        ann = Client(port, token)
        proxied = {"Host": "rate.example.org", "Origin": "https://rate.example.org"}
        assert ann.request("POST", "/api/events", b"{}", proxied).status == 415  # past the guard
        assert ann.post("/api/events", {}, Origin="https://evil.example").status == 403


def test_every_answer_carries_the_policy(site: Site) -> None:
    task_id = first_task(site.ann)["task_id"]
    answers = [
        site.stranger.get("/"), site.stranger.get("/static/app.js"), site.ann.get("/api/me"),
        site.ann.get(f"/media/{task_id}/A"), site.stranger.get("/api/me"), site.stranger.get("/nothing"),
        site.ann.post("/api/events", {}, Origin="http://evil.example"),
    ]  # fmt: skip
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        for part in ("default-src 'self'", "media-src 'self' blob:", "frame-ancestors 'none'"):
            assert part in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "server" not in answer.headers or answer.headers["server"] == "uvicorn"


def test_a_caption_is_text_and_nothing_else(site: Site) -> None:
    """It comes back to the letter inside JSON that no browser takes for a page."""
    answer = site.ann.get("/api/tasks/next")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json["tasks"][0]["clip"]["prompt"] == HOSTILE
    answer = site.ann.say("skip", task_id="ab", reason=HOSTILE)
    assert answer.headers["content-type"] == "application/json"


def test_the_operator_sees_adds_and_exports(site: Site, tmp_path: Path) -> None:
    for client in (site.ann, site.bob):
        task = first_task(client)
        for label in "ABC":
            client.say(
                "rate", task_id=task["task_id"], label=label, value=1, heard=all_heard(task), seconds=2
            )
    found = site.operator.get("/api/operator/summary").json
    assert [(r["name"], r["done"]) for r in found["raters"]] == [("ann", 1), ("bob", 1)]
    assert found["totals"]["verdicts"] == 6
    made = site.operator.post("/api/operator/raters", {"name": "eve"}).json
    base, _, token = made["url"].partition("/#token=")
    assert (made["name"], base) == ("eve", f"http://127.0.0.1:{site.ann.port}")
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
    said = {
        "kind": "rate", "client_id": str(uuid4()), "client_time_ms": 5, "task_id": task["task_id"],
        "label": "A", "value": 2, "heard": {"A": 9.0},
    }  # fmt: skip

    def gone(*args: Any) -> None:
        raise OperationalError("insert", {}, Exception("the disk is full"))

    monkeypatch.setattr(site.campaign.log, "_add", gone)
    answer = site.ann.post("/api/events", said)
    assert answer.status == 503
    assert "nothing was written" in answer.json["reason"]
    monkeypatch.setattr(site.campaign.log, "_add", append)
    assert site.ann.post("/api/events", said).json["seq"] == 1
    assert len(json.loads(site.ann.get("/api/tasks/next").body)["tasks"]) == 1
