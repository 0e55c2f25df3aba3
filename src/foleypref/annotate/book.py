"""The book: raters, their tasks, and every event they sent, append-only, in SQLite or PostgreSQL.

What `append` has returned is on disk: SQLite runs with a write-ahead log and synchronous=FULL, PostgreSQL
with synchronous_commit. Threads that wait for the disk at the same time share one transaction, so fifty
raters cost little more than one. An event is found by (rater, client_id): a post sent twice counts once.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from sqlalchemy import Engine, create_engine, event, insert, make_url, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import NoSuchModuleError, SQLAlchemyError

from foleypref.annotate import require
from foleypref.annotate.rows import Appended, NewEvent, Rater, StoredEvent, Task
from foleypref.annotate.tables import ABOUT, EVENTS, METADATA, RATERS, TASKS
from foleypref.media.files import write_atomic
from foleypref.workspace.paths import WorkspacePaths

FORMAT = "1"
BUSY_S = 20.0  # how long one process waits for another that writes


class Conflict(ValueError):
    """Another event was sent under the same client_id before."""


class EventBook:
    """One workspace's book. Safe to use from many threads, and from several servers on one database."""

    def __init__(self, url: str) -> None:
        """Open or make the book at an SQLAlchemy URL. Raises ValueError if the database does not answer."""
        self.engine = _engine(url)
        self.is_shared = self.engine.dialect.name != "sqlite"  # other servers may write to it
        self._insert: Any = sqlite.insert if self.engine.dialect.name == "sqlite" else postgresql.insert
        self._waiting: list[_Waiting] = []
        self._list_lock, self._write_lock = threading.Lock(), threading.Lock()
        try:
            METADATA.create_all(self.engine)
            with self.engine.begin() as db:
                row = self._insert(ABOUT).values(key="format", value=FORMAT)
                db.execute(row.on_conflict_do_nothing())
                found = db.execute(select(ABOUT.c.value).where(ABOUT.c.key == "format")).scalar_one()
        except SQLAlchemyError as error:
            raise ValueError(f"the book at {_shown(url)} cannot be opened: {_reason(error)}") from error
        if found != FORMAT:
            raise ValueError(f"the book at {_shown(url)} is of format {found}, this foleypref reads {FORMAT}")

    @classmethod
    def of(cls, root: Path, database: str = "") -> EventBook:
        """The book of a workspace: where `database` says, where it was before, or annotate/book.sqlite.

        The place of a PostgreSQL book is noted in annotate/database.url without its password, which later
        comes from PGPASSWORD or ~/.pgpass.
        """
        folder = WorkspacePaths(root).annotate
        note = folder / "database.url"
        if database:
            book = cls(database)
            write_atomic(note, (_shown(database, hide=False) + "\n").encode())
            return book
        if note.exists():
            return cls(note.read_text().strip())
        folder.mkdir(parents=True, exist_ok=True)
        return cls(f"sqlite:///{folder / 'book.sqlite'}")

    def close(self) -> None:
        """Give back every connection."""
        self.engine.dispose()

    # -- events ----------------------------------------------------------------------------------------------

    def append(self, new: NewEvent) -> Appended:
        """Write an event and return when it is on disk. Raises Conflict for a client_id used otherwise."""
        result = self._together(lambda db: self._add(db, new))
        if isinstance(result, Conflict):
            raise result
        return cast(Appended, result)

    def _together(self, work: Callable[[Any], Any]) -> Any:
        """Do `work` in a transaction, with all that other threads want to write by then."""
        mine = _Waiting(work)
        with self._list_lock:
            self._waiting.append(mine)
        with self._write_lock:
            if not mine.done:  # the one before did not take it along
                with self._list_lock:
                    batch, self._waiting = self._waiting, []
                self._write(batch)
        if mine.error is not None:
            raise mine.error
        return mine.result

    def _write(self, batch: list[_Waiting]) -> None:
        error: Exception | None = None
        results: list[Any] = [None] * len(batch)
        try:
            with self.engine.begin() as db:
                results = [waiting.work(db) for waiting in batch]
        except Exception as caught:
            error = caught
        for waiting, result in zip(batch, results):
            waiting.result, waiting.error, waiting.done = result, error, True

    def _add(self, db: Any, new: NewEvent) -> Appended | Conflict:
        now = _now_ms()
        row = self._insert(EVENTS).values(**new._asdict(), server_time_ms=now)
        seq = db.execute(row.on_conflict_do_nothing().returning(EVENTS.c.seq)).scalar()
        if seq is not None:
            return Appended(seq, False, now)
        there = db.execute(_find(new.rater, new.client_id)).one()
        if there.body != new.body:
            return Conflict("client_id was used for another event")
        return Appended(there.seq, True, there.server_time_ms)

    def events(self, rater: str | None = None, after: int = 0) -> list[StoredEvent]:
        """Events in the order of `seq`, of one rater or of all, from beyond `after` on."""
        query = select(EVENTS).where(EVENTS.c.seq > after).order_by(EVENTS.c.seq)
        if rater is not None:
            query = query.where(EVENTS.c.rater == rater)
        with self.engine.connect() as db:
            return [_event(row) for row in db.execute(query)]

    # -- tasks -----------------------------------------------------------------------------------------------

    def add_task(self, task: Task) -> bool:
        """Write a task; False if the rater has one of this number, or another rater has its clip."""
        row = {column.name: getattr(task, column.name) for column in TASKS.c}
        row |= {"tracks": task.packed(), "created_ms": _now_ms()}
        wanted = self._insert(TASKS).values(**row).on_conflict_do_nothing().returning(TASKS.c.task_id)
        return self._together(lambda db: db.execute(wanted).scalar()) is not None

    def tasks(self, rater: str | None = None) -> list[Task]:
        """Tasks in the order they were assigned, of one rater or of all."""
        query = select(TASKS).order_by(TASKS.c.created_ms, TASKS.c.rater, TASKS.c.number)
        if rater is not None:
            query = query.where(TASKS.c.rater == rater)
        with self.engine.connect() as db:
            rows = db.execute(query).all()
        return [Task(**{**row._asdict(), "tracks": Task.unpacked(row.tracks)}) for row in rows]

    def claims(self, campaign: str) -> set[str]:
        """Clips of a campaign that were dealt to somebody."""
        query = select(TASKS.c.claim).where(TASKS.c.campaign == campaign, TASKS.c.claim.is_not(None))
        with self.engine.connect() as db:
            return set(db.execute(query).scalars())

    # -- raters ----------------------------------------------------------------------------------------------

    def raters(self) -> list[Rater]:
        """Everybody with an address, the operator too, by name."""
        with self.engine.connect() as db:
            return [Rater(*row) for row in db.execute(select(RATERS).order_by(RATERS.c.name))]

    def put_rater(self, name: str, role: str, token_hash: str) -> None:
        """Add a rater, or give one another token; the old one ends."""
        with self.engine.begin() as db:
            there = db.execute(update(RATERS).where(RATERS.c.name == name).values(token_hash=token_hash))
            if there.rowcount == 0:
                row = {"name": name, "role": role, "token_hash": token_hash, "created_ms": _now_ms()}
                db.execute(insert(RATERS).values(**row))


class _Waiting:
    """Something on its way to disk, and what became of it."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        self.work = work
        self.done = False
        self.result: Any = None
        self.error: Exception | None = None


def _engine(url: str) -> Engine:
    try:
        made = make_url(url)
        if made.get_backend_name() not in ("sqlite", "postgresql"):
            raise ValueError(f"database is a sqlite:// or postgresql:// address, found {_shown(url)}")
        if made.get_backend_name() == "postgresql":
            require("psycopg")
            made = made.set(drivername="postgresql+psycopg")
            options = {"options": "-c synchronous_commit=on"}
            return create_engine(
                made, pool_size=10, max_overflow=30, pool_pre_ping=True, connect_args=options
            )
    except (SQLAlchemyError, NoSuchModuleError) as error:
        raise ValueError(f"database is a sqlite:// or postgresql:// address: {_reason(error)}") from error
    engine = create_engine(made, pool_size=10, max_overflow=30, connect_args={"timeout": BUSY_S})
    event.listen(engine, "connect", _durable)
    return engine


def _durable(connection: Any, _record: Any) -> None:
    """What SQLite has to be told on every connection."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


def _find(rater: str, client_id: str) -> Any:
    return select(EVENTS).where(EVENTS.c.rater == rater, EVENTS.c.client_id == client_id)


def _event(row: Any) -> StoredEvent:
    return StoredEvent(**{**row._asdict(), "body": json.loads(row.body)})


def _now_ms() -> int:
    return int(time.time() * 1000)


def _shown(url: str, hide: bool = True) -> str:
    """An address without its password: for messages with stars in its place, for a file with nothing."""
    made = make_url(url)
    return (made if hide else made._replace(password=None)).render_as_string(hide_password=hide)


def _reason(error: BaseException) -> str:
    return str(getattr(error, "orig", None) or error).strip().splitlines()[0]
