"""The tables of the book, the same in SQLite and PostgreSQL."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

_SEQ = BigInteger().with_variant(Integer(), "sqlite")  # SQLite counts up by itself in an INTEGER alone

METADATA = MetaData()
ABOUT = Table(
    "annotate_about", METADATA, Column("key", String(32), primary_key=True), Column("value", String(200))
)
RATERS = Table(
    "annotate_raters",
    METADATA,
    Column("name", String(64), primary_key=True),
    Column("role", String(16), nullable=False),
    Column("token_hash", String(64), nullable=False, unique=True),
    Column("created_ms", BigInteger, nullable=False),
)
TASKS = Table(
    "annotate_tasks",
    METADATA,
    Column("task_id", String(32), primary_key=True),
    Column("campaign", String(32), nullable=False),
    Column("rater", String(64), nullable=False, index=True),
    Column("number", Integer, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("clip_id", String(64), nullable=False),
    Column("tracks", Text, nullable=False),
    Column("repeat_of", String(32)),
    Column("claim", String(64)),
    Column("created_ms", BigInteger, nullable=False),
    UniqueConstraint("campaign", "rater", "number"),
    UniqueConstraint("campaign", "claim"),  # a dealt clip has one rater, whoever asks at the same time
)
EVENTS = Table(
    "annotate_events",
    METADATA,
    Column("seq", _SEQ, primary_key=True, autoincrement=True),
    Column("rater", String(64), nullable=False),
    Column("client_id", String(36), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("task_id", String(32), nullable=False),
    Column("body", Text, nullable=False),
    Column("undoes", _SEQ),
    Column("server_time_ms", BigInteger, nullable=False),
    UniqueConstraint("rater", "client_id"),
    Index("annotate_events_of_rater", "rater", "seq"),
)
