"""The log: every acknowledged event is there once, in SQLite and in PostgreSQL, also after kill -9."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from foleypref.annotate.event_log import METADATA, Conflict, EventLog
from foleypref.annotate.rows import NewEvent, Task, Track
from foleypref.annotate.tokens import REFRESH_S, Tokens, hash_of
from tests import annotate_postgres

WRITER = """
import sys
from foleypref.annotate.event_log import EventLog
from foleypref.annotate.rows import NewEvent
log = EventLog(sys.argv[1])
for i in range(1_000_000):
    name = f"{sys.argv[2]}-{i}"
    log.append(NewEvent("ann", name, "listen", "t", "{}"))
    print(name, flush=True)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    reason = annotate_postgres.why_not()
    if reason:
        pytest.skip(reason)
    with annotate_postgres.postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'book.sqlite'}"
    address: str = request.getfixturevalue("server")
    log = EventLog(address)
    METADATA.drop_all(log.engine)
    log.close()
    return address


@pytest.fixture
def log(url: str) -> Iterator[EventLog]:
    log = EventLog(url)
    yield log
    log.close()


def new(client_id: str, body: str = "{}", rater: str = "ann") -> NewEvent:
    return NewEvent(rater, client_id, "rate", "t1", body)


def test_a_post_that_comes_twice_counts_once(log: EventLog) -> None:
    first = log.append(new("x", '{"value":1}'))
    again = log.append(new("x", '{"value":1}'))
    assert (again.seq, again.replayed, again.server_time_ms) == (first.seq, True, first.server_time_ms)
    with pytest.raises(Conflict):
        log.append(new("x", '{"value":2}'))
    other = log.append(new("x", '{"value":2}', rater="bob"))  # each rater has their own ids
    assert other.seq > first.seq
    assert [(e.rater, e.body) for e in log.events()] == [("ann", {"value": 1}), ("bob", {"value": 2})]
    assert [e.rater for e in log.events("bob")] == ["bob"]
    assert [e.seq for e in log.events(after=first.seq)] == [other.seq]


def test_fifty_threads_lose_and_double_nothing(log: EventLog) -> None:
    """Also where two threads send the very same event, and where a conflict shares a transaction."""
    acknowledged: list[tuple[str, int]] = []
    conflicts: list[str] = []

    def write(index: int) -> None:
        for i in range(6):
            name = f"{index // 2}-{i}"  # every event from two threads
            acknowledged.append((name, log.append(new(name)).seq))
        try:
            log.append(new(f"{index // 2}-0", '{"other":1}'))
        except Conflict:
            conflicts.append(str(index))

    threads = [threading.Thread(target=write, args=(i,)) for i in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(acknowledged) == 300
    assert len(conflicts) == 50
    seq_of = {event.client_id: event.seq for event in log.events()}
    assert len(log.events()) == len(seq_of) == 150
    assert all(seq_of[name] == seq for name, seq in acknowledged)


@pytest.mark.parametrize("kills", [2])
def test_what_was_acknowledged_survives_kill_9(url: str, kills: int) -> None:
    acknowledged: list[str] = []
    for index in range(kills):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, url, str(index)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        seen = [process.stdout.readline().strip() for _ in range(10)]
        time.sleep(0.1 * (index + 1))
        os.kill(process.pid, signal.SIGKILL)
        seen += [line.strip() for line in process.stdout if line.endswith("\n")]
        process.wait()
        acknowledged += seen
    log = EventLog(url)
    stored = [event.client_id for event in log.events()]
    log.close()
    assert len(acknowledged) >= 10 * kills
    assert len(stored) == len(set(stored))
    assert set(acknowledged) <= set(stored)
    assert len(stored) <= len(acknowledged) + kills  # at most one event a kill was written and not said


def test_a_dealt_clip_has_one_rater_and_a_number_one_task(log: EventLog) -> None:
    tracks = (Track("A", "c1"), Track("B", "c2", "noise"))
    task = Task("t1", "main", "ann", 1, "rate", "clip", tracks, claim="clip")
    assert log.add_task(task)
    assert not log.add_task(Task("t2", "main", "bob", 1, "rate", "clip", tracks, claim="clip"))
    assert not log.add_task(Task("t3", "main", "ann", 1, "rate", "other", tracks))
    assert log.add_task(Task("t4", "main", "bob", 1, "rate", "clip", tracks))  # overlap: no claim
    assert log.add_task(Task("t5", "again", "bob", 1, "rate", "clip", tracks, claim="clip"))
    (stored,) = log.tasks("ann")
    assert stored == Task(**{**_fields(task), "created_ms": stored.created_ms})
    assert stored.genuine == {"A": "c1"}
    assert log.claims("main") == {"clip"}
    assert [t.task_id for t in log.tasks()] == ["t1", "t4", "t5"]


def _fields(task: Task) -> dict[str, object]:
    return {name: getattr(task, name) for name in Task.__dataclass_fields__}


def test_only_the_hash_of_a_token_is_kept(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = Tokens(log)
    token = tokens.new_token("ann")
    assert len(token) >= 43  # 256 bits
    assert [r.token_hash for r in log.raters()] == [hash_of(token)]
    assert token not in repr(log.raters())
    assert tokens.who(token).name == "ann"  # type: ignore[union-attr]
    for wrong in ("", token[:-1], token + "x", token.swapcase(), "\udcff"):
        assert tokens.who(wrong) is None
    renewed = tokens.new_token("ann")
    assert tokens.who(token) is None
    assert tokens.who(renewed) is not None
    elsewhere = Tokens(log)  # another server on the same log
    other = tokens.new_token("bob")
    assert elsewhere.who(other) is not None
    elsewhere._read_time -= REFRESH_S
    with pytest.raises(ValueError, match="operator's"):
        tokens.new_token("operator")
    with pytest.raises(ValueError, match="letters, digits"):
        tokens.new_token("../ann")
    assert tokens.new_token("operator", "operator")
    assert tokens.names() == ["ann", "bob"]


def test_tokens_are_compared_in_constant_time(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against every rater, also after the right one was met."""
    tokens = Tokens(log)
    first = tokens.new_token("ann")
    tokens.new_token("bob")
    seen: list[str] = []

    def compare(a: str, b: str) -> bool:
        seen.append(a)
        return a == b

    monkeypatch.setattr("foleypref.annotate.tokens.hmac.compare_digest", compare)
    assert tokens.who(first).name == "ann"  # type: ignore[union-attr]
    assert len(seen) == 2


def test_the_place_of_a_server_s_book_is_noted_without_its_password(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    EventLog.of(tmp_path, server.replace("tester@", "tester:secret@")).close()
    note = (tmp_path / "annotate" / "database.url").read_text()
    assert "secret" not in note
    assert "***" not in note
    monkeypatch.setenv("PGPASSWORD", "secret")
    again = EventLog.of(tmp_path)
    assert again.engine.dialect.name == "postgresql"
    again.close()


def test_a_database_that_does_not_answer_is_said_in_a_line(tmp_path: Path) -> None:
    for address, reason in (
        ("postgresql://ann:secret@127.0.0.1:1/nowhere", "cannot be opened"),
        ("mysql://somewhere/x", "database is a sqlite:// or postgresql://"),
        ("no address", "database is a sqlite:// or postgresql://"),
        (f"sqlite:///{tmp_path}/no/such/folder/book.sqlite", "cannot be opened"),
    ):
        with pytest.raises(ValueError, match=reason) as caught:
            EventLog(address)
        assert "secret" not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_sqlite_waits_for_the_disk(tmp_path: Path) -> None:
    log = EventLog(f"sqlite:///{tmp_path / 'book.sqlite'}")
    for _ in range(2):  # on every connection
        with log.engine.connect() as one, log.engine.connect() as two:
            for db in (one, two):
                assert db.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
                assert db.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
    log.close()


def test_a_book_of_another_format_is_refused(url: str) -> None:
    from sqlalchemy import update

    from foleypref.annotate.event_log import ABOUT

    log = EventLog(url)
    with log.engine.begin() as db:
        db.execute(update(ABOUT).values(value="99"))
    log.close()
    with pytest.raises(ValueError, match="format 99"):
        EventLog(url)
