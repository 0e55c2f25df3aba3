"""The workspace: tables of records as Parquet parts, rows of tensors as safetensors shards.

Everything is written atomically, so a file that can be seen is whole. A part's name is the hash of its ids:
writing the same records twice gives the same file, and nothing is ever stored twice.
"""

from __future__ import annotations

import fcntl
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from torch import Tensor

from foleypref.media.files import remove_leftovers, write_atomic
from foleypref.workspace.columns import from_arrow, read_part, to_arrow
from foleypref.workspace.paths import WorkspacePaths
from foleypref.workspace.records import RECORDS, Candidate, Feature, Record, digest
from foleypref.workspace.shards import ShardReader, write_shard

FORMAT_VERSION = 1
BLOCK_ROWS = 50_000
R = TypeVar("R", bound=Record)

Shard = tuple[int, int]
"""One share of a stage's work: (i, n) is share i of n, counted from 0."""
WHOLE: Shard = (0, 1)


class Workspace(WorkspacePaths):
    """A folder that holds one project: its clips, candidates, scores, pairs, runs and reports."""

    def __init__(self, root: str | Path, *, create: bool = True) -> None:
        super().__init__(root)
        if self.marker.exists():
            version = json.loads(self.marker.read_text()).get("format_version")
            if version != FORMAT_VERSION:
                raise ValueError(
                    f"{self.root} is a workspace of format {version}, this foleypref reads {FORMAT_VERSION}"
                )
        elif not create:
            raise ValueError(
                f"{self.root} is not a workspace (no workspace.json); run `foleypref ingest` first"
            )
        elif self.root.exists() and (not self.root.is_dir() or _holds_anything(self.root)):
            raise ValueError(f"{self.root} exists and is not a workspace; choose an empty or new folder")
        else:
            write_atomic(self.marker, json.dumps({"format_version": FORMAT_VERSION}).encode())
        self.shards = ShardReader(self.tensors)
        self._parts: dict[str, dict[str, list[Any]]] = {}

    # -- tables ---------------------------------------------------------------------------------------------

    def append(self, records: Sequence[Record]) -> list[Path]:
        """Write records and return the files: one atomic part per table, in the order of first records.

        Put the records that mark an item as done last: after a crash, the ones they refer to are then there.
        """
        groups: dict[type[Record], list[Record]] = {}
        for record in records:
            groups.setdefault(type(record), []).append(record)
        paths = []
        for cls, group in groups.items():
            name = digest(sorted(r.record_id for r in group), length=24)
            sink = io.BytesIO()
            pq.write_table(to_arrow(cls, group), sink, compression="zstd")
            paths.append(self._folder_of(cls) / f"{name}.parquet")
            write_atomic(paths[-1], sink.getvalue())
        return paths

    def read(self, cls: type[R], where: pc.Expression | None = None) -> list[R]:
        """Return a table's records in the order of their ids, whatever the order of writing was.

        A read of the whole table stays in memory for the next one. With `where` only the matching records are
        built, and none stay.
        """
        if where is not None:
            return from_arrow(cls, self.table(cls, where=where))
        by_id: dict[str, R] = {}
        cache = self._parts.setdefault(cls.table, {})
        for path in self._part_files(cls):
            if path.name not in cache:
                cache[path.name] = from_arrow(cls, read_part(cls, path))
            for record in cache[path.name]:
                by_id.setdefault(record.record_id, record)
        return [by_id[key] for key in sorted(by_id)]

    def ids(self, cls: type[Record]) -> set[str]:
        """Return the ids of a table."""
        return set(self.table(cls, ())[cls.id_field].to_pylist())

    def by_id(self, cls: type[R]) -> dict[str, R]:
        """Return a table as a mapping from id to record."""
        return {record.record_id: record for record in self.read(cls)}

    def table(
        self,
        cls: type[Record],
        columns: Sequence[str] | None = None,
        where: pc.Expression | None = None,
    ) -> pa.Table:
        """Return a table as Arrow columns, each id once, in the order of ids.

        For stages with too many rows for Python objects. The id column is always there; `dict` columns stay
        JSON text.
        """
        selected = list(dict.fromkeys([cls.id_field, *(cls.columns() if columns is None else columns)]))
        parts = [to_arrow(cls, []).select(selected)]
        if where is None:
            parts += [read_part(cls, path, selected) for path in self._part_files(cls)]
        else:  # the condition may name columns that are not selected
            parts += [block.filter(where).select(selected) for block in self._blocks(cls)]
        whole = pa.concat_tables(parts)
        order = pc.sort_indices(whole[cls.id_field])  # stable: the first part wins, as in `read`
        ids = whole[cls.id_field].take(order).combine_chunks()
        if len(ids) > 1:
            new = pc.not_equal(ids.slice(1), ids.slice(0, len(ids) - 1))
            order = order.filter(pa.concat_arrays([pa.array([True]), pa.array(new)]))
        return whole.take(order)

    def replace_table(self, cls: type[R], records: Sequence[R]) -> None:
        """Make `records` the whole table, for tables that are a function of others, like pairs."""
        old = self._part_files(cls)
        new = self.append(records)
        for path in set(old).difference(new):
            path.unlink()
        self._parts.pop(cls.table, None)

    def _blocks(self, cls: type[Record]) -> Iterator[pa.Table]:
        """Yield a table's rows, many parts at a time: a condition on 100,000 ids is slow part by part."""
        parts, rows = [], 0
        for path in self._part_files(cls):
            parts.append(read_part(cls, path))
            rows += len(parts[-1])
            if rows >= BLOCK_ROWS:
                yield pa.concat_tables(parts)
                parts, rows = [], 0
        if parts:
            yield pa.concat_tables(parts)

    def _part_files(self, cls: type[Record]) -> list[Path]:
        return sorted(self._folder_of(cls).glob("*.parquet"))

    def _folder_of(self, cls: type[Record]) -> Path:
        assert RECORDS.get(cls.table) is cls, f"{cls.__name__} has no table"
        return self.table_folder(cls.table)

    # -- tensors --------------------------------------------------------------------------------------------

    def write_rows(self, kind: str, ids: Iterable[str], tensors: dict[str, Tensor]) -> str:
        """Write one shard whose rows belong to `ids`; returns its name, for the records that point at it."""
        shard = f"{kind}/{digest(list(ids), length=24)}"
        write_shard(self.tensors / f"{shard}.safetensors", tensors)
        return shard

    def write_features(
        self, kind: str, key: str, item_ids: Sequence[str], tensors: dict[str, Tensor]
    ) -> list[Feature]:
        """Write one shard with a row per item; returns the records that point at the rows."""
        ids = [Feature.make_id(item_id, key) for item_id in item_ids]
        shard = self.write_rows(kind, ids, tensors)
        return [
            Feature(feature_id, item_id, key, shard, row=row)
            for row, (feature_id, item_id) in enumerate(zip(ids, item_ids))
        ]

    def rows(self, records: Sequence[Candidate | Feature]) -> dict[str, Tensor]:
        """Return the rows that records point at, in their order: {"audio": (B, L, D)} for latents.

        The shards of the records must hold the same keys.
        """
        places = [(record.shard, record.row) for record in records]
        return {key: self.shards.rows(places, key) for key in self.shards.keys(places[0][0])}

    # -- locks ----------------------------------------------------------------------------------------------

    @contextmanager
    def lock(self, stage: str, shard: Shard = WHOLE) -> Iterator[None]:
        """Hold a stage's lock, so that two processes never do the same work. Raises ValueError if it is held.

        The system frees it when the process ends. Other shards of the stage may be held at the same time, the
        whole stage may not.
        """
        self.locks.mkdir(parents=True, exist_ok=True)
        index, num = shard
        whole = fcntl.LOCK_EX if num == 1 else fcntl.LOCK_SH
        with (
            (self.locks / f"{stage}.lock").open("w") as file,
            (self.locks / f"{stage}-{index}-of-{num}.lock").open("w") as part,
        ):
            try:
                fcntl.flock(file, whole | fcntl.LOCK_NB)
                fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ValueError(
                    f"another process is running {stage!r} on {self.root}; wait for it or stop it"
                ) from error
            if num == 1:  # other shards may still be writing
                remove_leftovers([*self.root.glob(".*.tmp*"), *self.root.glob("*/*/.*.tmp*")])
            yield


def _holds_anything(folder: Path) -> bool:
    """Whether a folder holds anything but the first write of a process that was killed in it."""
    return any(not (p.name.startswith(".workspace.json.") and p.suffix == ".tmp") for p in folder.iterdir())
