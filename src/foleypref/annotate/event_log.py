"""The event log: raters, their tasks and every event they sent, append-only, in SQLite or PostgreSQL.

An event that `append` has returned is on disk: SQLite runs with a write-ahead log and synchronous=FULL,
PostgreSQL with synchronous_commit. Threads that wait for the disk at the same time share one transaction,
so fifty raters cost little more than one. An event is identified by (rater, client_id): a post that is sent
twice counts once.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from foleypref.annotate import require
from foleypref.annotate.rows import Appended, NewEvent, Rater, StoredEvent, Task, Track
from foleypref.media.files import write_atomic
from foleypref.workspace.paths import WorkspacePaths

FORMAT = "1"
BUSY_S = 20.0  # how long one process waits for another one's transaction

_SEQ = sa.BigInteger().with_variant(sa.Integer(), "sqlite")  # SQLite autoincrements INTEGER columns only

METADATA = sa.MetaData()
ABOUT = sa.Table(
    "annotate_about",
    METADATA,
    sa.Column("key", sa.String(32), primary_key=True),
    sa.Column("value", sa.String(200)),
)
RATERS = sa.Table(
    "annotate_raters",
    METADATA,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("token_hash", sa.String(64), nullable=False, unique=True),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
)
TASKS = sa.Table(
    "annotate_tasks",
    METADATA,
    sa.Column("task_id", sa.String(32), primary_key=True),
    sa.Column("campaign", sa.String(32), nullable=False),
    sa.Column("rater", sa.String(64), nullable=False, index=True),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("clip_id", sa.String(64), nullable=False),
    sa.Column("tracks", sa.Text, nullable=False),
    sa.Column("repeat_of", sa.String(32)),
    sa.Column("claim", sa.String(64)),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("campaign", "rater", "number"),
    sa.UniqueConstraint("campaign", "claim"),  # a claimed clip has one rater, even if two ask at once
)
EVENTS = sa.Table(
    "annotate_events",
    METADATA,
    sa.Column("seq", _SEQ, primary_key=True, autoincrement=True),
    sa.Column("rater", sa.String(64), nullable=False),
    sa.Column("client_id", sa.String(36), nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("task_id", sa.String(32), nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("undoes", _SEQ),
    sa.Column("server_time_ms", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("rater", "client_id"),
    sa.Index("annotate_events_of_rater", "rater", "seq"),
)


class Conflict(ValueError):
    """Another event was sent under the same client_id before."""


class EventLog:
    """The log of one workspace. Many threads may use it, and several servers may share one database."""

    def __init__(self, url: str) -> None:
        """Open or create the log at an SQLAlchemy URL. Raises ValueError if the database does not answer."""
        self.engine, name = _engine(url), f"the event log at {_printable(url)}"
        self.is_shared = self.engine.dialect.name != "sqlite"  # other servers may write to it
        self._insert: Any = postgresql.insert if self.is_shared else sqlite.insert
        self._pending: list[tuple[Callable[[Any], Any], Future[Any]]] = []
        self._pending_lock, self._write_lock = threading.Lock(), threading.Lock()
        try:
            METADATA.create_all(self.engine)
            with self.engine.begin() as db:
                row = self._insert(ABOUT).values(key="format", value=FORMAT)
                db.execute(row.on_conflict_do_nothing())
                on_disk = db.execute(sa.select(ABOUT.c.value).where(ABOUT.c.key == "format")).scalar_one()
        except SQLAlchemyError as error:
            raise ValueError(f"{name} cannot be opened: {_reason(error)}") from error
        if on_disk != FORMAT:
            raise ValueError(f"{name} has format {on_disk}, this foleypref reads {FORMAT}")

    @classmethod
    def of(cls, root: Path, database: str = "") -> EventLog:
        """Open a workspace's log: at `database`, else where it was before, else at annotate/book.sqlite.

        The address of a PostgreSQL log is remembered in annotate/database.url without its password, which
        later runs take from PGPASSWORD or ~/.pgpass.
        """
        folder = WorkspacePaths(root).annotate
        remembered = folder / "database.url"
        if database:
            log = cls(database)
            write_atomic(remembered, (_printable(database, stars=False) + "\n").encode())
            return log
        if remembered.exists():
            return cls(remembered.read_text().strip())
        folder.mkdir(parents=True, exist_ok=True)
        return cls(f"sqlite:///{folder / 'book.sqlite'}")

    def close(self) -> None:
        """Close all connections to the database."""
        self.engine.dispose()

    def append(self, new: NewEvent) -> Appended:
        """Write an event; return once it is on disk. Raises Conflict if its client_id names another event."""
        result = self._write(lambda db: self._add(db, new))
        if isinstance(result, Conflict):
            raise result
        return cast(Appended, result)

    def _write(self, work: Callable[[Any], Any]) -> Any:
        """Return `work(db)` after the commit of a transaction shared with all other waiting threads."""
        future: Future[Any] = Future()
        with self._pending_lock:
            self._pending.append((work, future))
        with self._write_lock:
            if not future.done():  # else the thread before committed this work with its own
                with self._pending_lock:
                    batch, self._pending = self._pending, []
                self._commit(batch)
        return future.result()

    def _commit(self, batch: list[tuple[Callable[[Any], Any], Future[Any]]]) -> None:
        try:
            with self.engine.begin() as db:
                results = [work(db) for work, _ in batch]
        except Exception as error:
            for _, future in batch:
                future.set_exception(error)
        else:
            for (_, future), result in zip(batch, results):
                future.set_result(result)

    def _add(self, db: Any, new: NewEvent) -> Appended | Conflict:
        now = _now_ms()
        row = self._insert(EVENTS).values(**new._asdict(), server_time_ms=now)
        seq = db.execute(row.on_conflict_do_nothing().returning(EVENTS.c.seq)).scalar()
        if seq is not None:
            return Appended(seq, False, now)
        same_id = sa.select(EVENTS).where(EVENTS.c.rater == new.rater, EVENTS.c.client_id == new.client_id)
        stored = db.execute(same_id).one()
        if stored.body != new.body:
            return Conflict("client_id was used for another event")
        return Appended(stored.seq, True, stored.server_time_ms)

    def events(self, rater: str | None = None, after: int = 0) -> list[StoredEvent]:
        """Return events with `seq` > `after` in that order, of one rater or of all."""
        query = sa.select(EVENTS).where(EVENTS.c.seq > after).order_by(EVENTS.c.seq)
        if rater is not None:
            query = query.where(EVENTS.c.rater == rater)
        with self.engine.connect() as db:
            rows = db.execute(query).all()
        return [StoredEvent(**{**row._asdict(), "body": json.loads(row.body)}) for row in rows]

    def add_task(self, task: Task) -> bool:
        """Write a task; return False if its number is taken or another rater has claimed its clip."""
        values = {column.name: getattr(task, column.name) for column in TASKS.c}
        values |= {"tracks": json.dumps(task.tracks), "created_ms": _now_ms()}
        row = self._insert(TASKS).values(**values).on_conflict_do_nothing().returning(TASKS.c.task_id)
        return self._write(lambda db: db.execute(row).scalar()) is not None

    def tasks(self, rater: str | None = None) -> list[Task]:
        """Return tasks in the order they were assigned, of one rater or of all."""
        query = sa.select(TASKS).order_by(TASKS.c.created_ms, TASKS.c.rater, TASKS.c.number)
        if rater is not None:
            query = query.where(TASKS.c.rater == rater)
        with self.engine.connect() as db:
            rows = db.execute(query).all()
        tracks = [tuple(Track(*track) for track in json.loads(row.tracks)) for row in rows]
        return [Task(**{**row._asdict(), "tracks": of_task}) for row, of_task in zip(rows, tracks)]

    def claims(self, campaign_id: str) -> set[str]:
        """Return the ids of a campaign's clips that belong to one rater."""
        query = sa.select(TASKS.c.claim).where(TASKS.c.campaign == campaign_id, TASKS.c.claim.is_not(None))
        with self.engine.connect() as db:
            return set(db.execute(query).scalars())

    def raters(self) -> list[Rater]:
        """Return everybody who has an address, including the operator, by name."""
        with self.engine.connect() as db:
            return [Rater(*row) for row in db.execute(sa.select(RATERS).order_by(RATERS.c.name))]

    def put_rater(self, name: str, role: str, token_hash: str) -> None:
        """Add a rater, or replace the token of one who exists."""
        row = self._insert(RATERS).values(name=name, role=role, token_hash=token_hash, created_ms=_now_ms())
        with self.engine.begin() as db:
            db.execute(row.on_conflict_do_update(index_elements=["name"], set_={"token_hash": token_hash}))


def _engine(address: str) -> sa.Engine:
    try:
        url = sa.make_url(address)
        if url.get_backend_name() not in ("sqlite", "postgresql"):
            raise ValueError(f"database is a sqlite:// or postgresql:// address, found {_printable(address)}")
        if url.get_backend_name() == "postgresql":
            require("psycopg")
            url = url.set(drivername="postgresql+psycopg")
            options = {"options": "-c synchronous_commit=on"}
            return sa.create_engine(
                url, pool_size=10, max_overflow=30, pool_pre_ping=True, connect_args=options
            )
    except SQLAlchemyError as error:
        raise ValueError(f"database is a sqlite:// or postgresql:// address: {_reason(error)}") from error
    engine = sa.create_engine(url, pool_size=10, max_overflow=30, connect_args={"timeout": BUSY_S})
    sa.event.listen(engine, "connect", _make_durable)
    return engine


def _make_durable(connection: Any, _record: Any) -> None:
    """Set SQLite's durability, which holds for one connection only."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")


def _now_ms() -> int:
    return int(time.time() * 1000)


def _printable(url: str, stars: bool = True) -> str:
    """Return a URL whose password is replaced by stars, or left out for a file."""
    parsed = sa.make_url(url)
    return (parsed if stars else parsed._replace(password=None)).render_as_string(hide_password=stars)


def _reason(error: BaseException) -> str:
    return str(getattr(error, "orig", None) or error).strip().splitlines()[0]
