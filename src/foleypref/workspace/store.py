"""The workspace: tables of records as Parquet parts, rows of tensors as safetensors shards.

Everything is written tmp → fsync → rename, so what can be seen is whole. A part's name is the hash of its
ids: writing the same records twice gives the same file, and nothing is ever doubled.
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

    def append(self, records: Sequence[Record]) -> None:
        """Write records, one atomic part a table, tables in the order they first appear.

        Put the records that mark an item as done last: after a crash, what they refer to is then there.
        """
        groups: dict[type[Record], list[Record]] = {}
        for record in records:
            groups.setdefault(type(record), []).append(record)
        for cls, group in groups.items():
            name = digest(sorted(r.record_id for r in group), length=24)
            sink = io.BytesIO()
            pq.write_table(to_arrow(cls, group), sink, compression="zstd")
            write_atomic(self._folder_of(cls) / f"{name}.parquet", sink.getvalue())

    def read(self, cls: type[R], where: pc.Expression | None = None) -> list[R]:
        """Records of a table, in the order of their ids (so the order of writing does not matter).

        All of them are kept for the next time; those picked by `where` are made anew, and no others.
        """
        if where is not None:
            return from_arrow(cls, self.table(cls, where=where))
        found: dict[str, R] = {}
        cache = self._parts.setdefault(cls.table, {})
        for path in self._part_files(cls):
            if path.name not in cache:
                cache[path.name] = from_arrow(cls, read_part(cls, path))
            for record in cache[path.name]:
                found.setdefault(record.record_id, record)
        return [found[key] for key in sorted(found)]

    def ids(self, cls: type[Record]) -> set[str]:
        """The ids of a table."""
        return set(self.table(cls, ())[cls.id_field].to_pylist())

    def by_id(self, cls: type[R]) -> dict[str, R]:
        """A table as a mapping from id to record."""
        return {record.record_id: record for record in self.read(cls)}

    def table(
        self,
        cls: type[Record],
        columns: Sequence[str] | None = None,
        where: pc.Expression | None = None,
    ) -> pa.Table:
        """A table as Arrow columns, each id once, in the order of ids: for stages whose rows are too many
        for Python objects. The id column always comes along; `dict` columns stay JSON text."""
        names = cls.columns() if columns is None else columns
        wanted = [cls.id_field, *(name for name in names if name != cls.id_field)]
        parts = [to_arrow(cls, []).select(wanted)]
        if where is None:
            parts += [read_part(cls, path, wanted) for path in self._part_files(cls)]
        else:  # it may ask for other columns than are wanted
            parts += [some.filter(where).select(wanted) for some in self._blocks(cls)]
        whole = pa.concat_tables(parts)
        order = pc.sort_indices(whole[cls.id_field])  # stable: the first part wins, as in `read`
        ids = whole[cls.id_field].take(order).combine_chunks()
        if len(ids) > 1:
            new = pc.not_equal(ids.slice(1), ids.slice(0, len(ids) - 1))
            order = order.filter(pa.concat_arrays([pa.array([True]), pa.array(new)]))
        return whole.take(order)

    def replace_table(self, cls: type[R], records: Sequence[R]) -> None:
        """Make `records` the whole table: for results that are a function of the others, like pairs."""
        folder = self._folder_of(cls)
        old = set(folder.glob("*.parquet"))
        if records:
            self.append(list(records))
            old -= {folder / f"{digest(sorted(r.record_id for r in records), length=24)}.parquet"}
        for path in old:
            path.unlink()
        self._parts.pop(cls.table, None)

    def _blocks(self, cls: type[Record]) -> Iterator[pa.Table]:
        """A table's rows, many parts at a time: a condition may name a hundred thousand ids."""
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
        assert RECORDS.get(cls.table) is cls, f"{cls.__name__} is no table"
        return self.table_folder(cls.table)

    # -- tensors --------------------------------------------------------------------------------------------

    def write_rows(self, kind: str, ids: Iterable[str], tensors: dict[str, Tensor]) -> str:
        """Write one shard whose rows belong to `ids`; returns its name for the records that point at it."""
        shard = f"{kind}/{digest(list(ids), length=24)}"
        write_shard(self.tensors / f"{shard}.safetensors", tensors)
        return shard

    def latents(self, candidates: Sequence[Candidate]) -> dict[str, Tensor]:
        """Latents of candidates, keyed by modality: {"audio": (B, L, D)}."""
        return self.rows(candidates)

    def rows(self, records: Sequence[Candidate | Feature]) -> dict[str, Tensor]:
        """Every tensor of the rows that records point at, in their order; their shards hold the same keys."""
        places = [(record.shard, record.row) for record in records]
        return {key: self.shards.rows(places, key) for key in self.shards.keys(places[0][0])}

    # -- locks ----------------------------------------------------------------------------------------------

    @contextmanager
    def lock(self, stage: str, shard: Shard = WHOLE) -> Iterator[None]:
        """Hold a stage, as two processes on it would do the same work. Freed when the process ends.

        Shard i of n is held beside the other shards, but not beside the whole stage.
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
            if num == 1:  # a shard's neighbours are writing, perhaps on other machines
                remove_leftovers([*self.root.glob(".*.tmp*"), *self.root.glob("*/*/.*.tmp*")])
            yield


def _holds_anything(folder: Path) -> bool:
    """Whether a folder holds more than the first write of a process that was killed in it."""
    return any(not (p.name.startswith(".workspace.json.") and p.suffix == ".tmp") for p in folder.iterdir())
