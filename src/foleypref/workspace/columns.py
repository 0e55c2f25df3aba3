"""Records to Arrow columns and back; a part of a table is one such set of columns in a Parquet file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from foleypref.workspace.records import Record

R = TypeVar("R", bound=Record)

_ARROW = {
    "str": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_(),
    "float | None": pa.float64(), "dict[str, Any]": pa.string(),
}  # fmt: skip


def among(column: str, values: Iterable[str]) -> pc.Expression:
    """Return the condition, for `where`, that a column holds one of these values."""
    return pc.field(column).isin(pa.array(sorted(values), pa.string()))


def read_part(cls: type[Record], path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Return columns of a part; a column that it was written without is filled with the field's default."""
    with pq.ParquetFile(path, pre_buffer=False) as file:  # small: threads and read-ahead would cost more
        part = file.read(columns=columns, use_threads=False)
    for name in set(columns or cls.columns()) - set(part.column_names):
        field = cls.__dataclass_fields__[name]  # type: ignore[attr-defined]
        part = part.append_column(name, pa.array([field.default] * len(part), _ARROW[str(field.type)]))
    return part.select(columns or cls.columns())


def to_arrow(cls: type[Record], records: Sequence[Record]) -> pa.Table:
    """Return records as columns, one row per record; `dict` columns become JSON text."""
    types = {f.name: str(f.type) for f in fields(cls)}
    columns = {name: [getattr(record, name) for record in records] for name in types}
    for name in _dicts(cls):
        columns[name] = [json.dumps(v, sort_keys=True, ensure_ascii=False) for v in columns[name]]
    return pa.table(columns, pa.schema([(name, _ARROW[types[name]]) for name in types]))


def from_arrow(cls: type[R], table: pa.Table) -> list[R]:
    """Return the records of a table that has all columns: the inverse of `to_arrow`."""
    columns = {name: table.column(name).to_pylist() for name in cls.columns()}
    for name in _dicts(cls):
        columns[name] = [json.loads(v) for v in columns[name]]
    return [cls(*row) for row in zip(*columns.values())]


def _dicts(cls: type[Record]) -> list[str]:
    return [f.name for f in fields(cls) if str(f.type).startswith("dict")]
