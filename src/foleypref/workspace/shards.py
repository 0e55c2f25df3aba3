"""Tensor rows on disk: safetensors shards with rows of equal size, written atomically and read by offset.

Any tool opens a shard, as it is a safetensors file. The reader does not memory-map: random rows that are not
in memory come 10 to 30 times faster through `preadv` at the header's offsets, with a read-ahead hint for the
whole batch (figures in `docs/design/001-storage.md`).
"""

from __future__ import annotations

import json
import os
import resource
import struct
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from foleypref.media.files import write_atomic

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
_ALLOWED, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
MAX_OPEN_FILES = 8192 if _ALLOWED == resource.RLIM_INFINITY else max(16, min(8192, _ALLOWED // 4))
HINTED = 128  # rows per read-ahead hint; their files are open together
USUAL_HEADER = 1024  # bytes of the first read; a longer header needs a second


def write_shard(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write one shard of tensors (N, ...) with the same N; row i of all of them belongs to one item."""
    lengths = {key: tensor.shape[0] for key, tensor in tensors.items()}
    assert len(set(lengths.values())) == 1, f"tensors of one shard have one length, found {lengths}"
    write_atomic(path, save({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}))


@dataclass(frozen=True)
class _Layout:
    dtype: torch.dtype
    row_shape: tuple[int, ...]
    num_rows: int
    offset: int  # of row 0 in the file, bytes
    row_bytes: int


class ShardReader:
    """Reads random rows from the shards under one folder.

    The most recently used files stay open. Headers stay in memory for all files, so reading from more shards
    than can be open costs opening a file per row, not parsing its header again.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self._layouts: dict[str, dict[str, _Layout]] = {}
        self._open: OrderedDict[str, int] = OrderedDict()

    def keys(self, shard: str) -> list[str]:
        """Return the names of the tensors in a shard."""
        self._file(shard)
        return sorted(self._layouts[shard])

    def rows(self, places: Sequence[tuple[str, int]], key: str) -> Tensor:
        """Return rows (shard, row) of tensor `key`, stacked: (len(places), *row_shape)."""
        if not places:
            raise ValueError("no rows asked for")
        first = self._layout(*places[0], key)
        rows = torch.empty(len(places), *first.row_shape, dtype=first.dtype)
        into = rows.view(torch.uint8).numpy().reshape(-1).data if first.row_bytes else memoryview(b"")
        at_once = min(HINTED, MAX_OPEN_FILES)
        for begin in range(0, len(places), at_once):
            part = places[begin : begin + at_once]
            for at, (descriptor, offset) in enumerate(self._hinted(part, key, first), begin):
                target = into[at * first.row_bytes : (at + 1) * first.row_bytes]
                if os.preadv(descriptor, [target], offset) != first.row_bytes:
                    shard, row = places[at]
                    raise ValueError(
                        f"{self.root / shard}.safetensors is cut short: row {row} of {key!r} is missing"
                    )
        return rows

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close every open file; the reader may be used again."""
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def _hinted(self, places: Sequence[tuple[str, int]], key: str, like: _Layout) -> list[tuple[int, int]]:
        """Return (descriptor, offset) of each row, after hinting all of them to the disk."""
        located = []
        for shard, row in places:
            descriptor, layout = self._file(shard), self._layout(shard, row, key)
            if (layout.dtype, layout.row_shape) != (like.dtype, like.row_shape):
                raise ValueError(
                    f"rows of {key!r} differ: {shard} has {layout.dtype} {layout.row_shape}, "
                    f"{places[0][0]} has {like.dtype} {like.row_shape}"
                )
            offset = layout.offset + row * layout.row_bytes
            os.posix_fadvise(descriptor, offset, layout.row_bytes, os.POSIX_FADV_WILLNEED)
            located.append((descriptor, offset))
        return located

    def _layout(self, shard: str, row: int, key: str) -> _Layout:
        if shard not in self._layouts:
            self._file(shard)
        layouts = self._layouts[shard]
        layout = layouts.get(key)
        if layout is None:
            raise ValueError(f"shard {shard} has no tensor {key!r}; it has {', '.join(sorted(layouts))}")
        if not 0 <= row < layout.num_rows:
            raise ValueError(f"shard {shard} has {layout.num_rows} rows of {key!r}, row {row} was asked for")
        return layout

    def _file(self, shard: str) -> int:
        """Return the descriptor of a shard, which is opened if it is not open yet."""
        if shard in self._open:
            self._open.move_to_end(shard)
            return self._open[shard]
        path = f"{self.root}/{shard}.safetensors"
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError as error:
            raise ValueError(f"{path} is missing: its rows were recorded but the file is gone") from error
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        if len(self._open) >= MAX_OPEN_FILES:
            os.close(self._open.popitem(last=False)[1])
        try:
            if shard not in self._layouts:
                self._layouts[shard] = _read_header(descriptor)
        except (struct.error, ValueError, KeyError) as error:
            os.close(descriptor)
            raise ValueError(f"{path} is not a whole safetensors file: its header cannot be read") from error
        self._open[shard] = descriptor
        return descriptor


def _read_header(descriptor: int) -> dict[str, _Layout]:
    start = os.pread(descriptor, USUAL_HEADER, 0)
    (length,) = struct.unpack_from("<Q", start)
    text = start[8 : 8 + length] if 8 + length <= len(start) else os.pread(descriptor, length, 8)
    layouts = {}
    for key, entry in json.loads(text).items():
        if key == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        num_rows, *row_shape = entry["shape"]
        row_bytes = (end - begin) // num_rows if num_rows else 0
        dtype, offset = DTYPES[entry["dtype"]], 8 + length + begin
        layouts[key] = _Layout(dtype, tuple(row_shape), num_rows, offset, row_bytes=row_bytes)
    return layouts
