"""The server against hostile requests: tokens, paths, malformed and oversized bodies, other sites' pages."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from foleypref.annotate.guard import MAX_BODY
from tests.annotate_http import Client, served
from tests.annotate_site import Site, first_task
from tests.annotate_workspace import HOSTILE, fill, make_campaign


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
    for fields in (
        {"kind": "rate", "label": "A", "value": 2, "heard": {"A": 9.0}},
        {"kind": "listen", "label": "A", "seconds": 2},
        {"kind": "skip", "reason": "other"},
    ):
        answer = site.bob.say(**fields, task_id=hers["task_id"])
        assert (answer.status, answer.json) == (404, {"reason": "there is no such task"})
    assert not site.campaign.log.events()
    assert not site.bob.say("undo").json.get("accepted")  # he can take back only his own


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
    content, reason = MALFORMED[name]
    if isinstance(content, dict):
        good = {"kind": "rate", "client_id": str(uuid4()), "client_time_ms": 1, "label": "A", "value": 2}
        content = {**good, "task_id": first_task(quiet.ann)["task_id"], "heard": {"A": 9.0}, **content}
        if content["kind"] == "skip":
            del content["label"], content["value"]
        content = json.dumps(content).replace('"@', "").replace('@"', "").encode()
    answer = quiet.ann.post("/api/events", content)
    assert answer.status == 422
    assert reason in answer.json["reason"]
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


def test_another_site_s_page_is_refused(site: Site) -> None:
    task = first_task(site.ann)
    rating = {
        "kind": "rate", "client_id": str(uuid4()), "client_time_ms": 5, "task_id": task["task_id"],
        "label": "A", "value": 2, "heard": {"A": 9.0},
    }  # fmt: skip
    own = f"127.0.0.1:{site.ann.port}"
    for origin in (
        "http://evil.example", "null", f"http://{own}.evil.example", f"http://127.0.0.1:{site.ann.port + 1}",
        f"ftp://{own}", "http://[", own, "",
    ):  # fmt: skip
        assert site.ann.post("/api/events", rating, Origin=origin).status in (400, 403), origin
        assert site.ann.request("OPTIONS", "/api/events", headers={"Origin": origin}).status in (400, 403)
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
        answer = site.ann.post("/api/events", rating, **{"Content-Type": kind})
        assert (answer.status, answer.json) == (415, {"reason": "send application/json"})
    assert site.ann.get("/api/me", Host="evil.example").status == 400  # a name rebound to this address
    assert site.ann.get("/api/me", Host="[::1").status == 400
    assert not site.campaign.log.events()
    assert "access-control-allow-origin" not in site.ann.get("/api/me").headers
    typed = {"Content-Type": "application/json; charset=utf-8"}
    assert site.ann.post("/api/events", rating, Origin=f"http://{own}", **typed).status == 200


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
