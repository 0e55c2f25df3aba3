"""Captions and splits for a folder of videos, from `metadata.csv` or `metadata.jsonl`.

The layout is that of the `datasets` library's media folders: one row per file, `file_name` relative to the
folder. `prompt` (or `caption`) and `split` are our columns; every other column is kept as it is.
"""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path, PurePosixPath
from typing import Any

FILES = ("metadata.csv", "metadata.jsonl")


@dataclasses.dataclass(frozen=True)
class Row:
    """The metadata of one file."""

    prompt: str = ""
    split: str = ""  # "" leaves the choice to the content hash
    meta: dict[str, Any] = dataclasses.field(default_factory=dict)


def read_metadata(folder: Path) -> dict[str, Row]:
    """Return a Row by file_name (POSIX, relative to `folder`); {} without metadata. Raises ValueError."""
    paths = [folder / name for name in FILES if (folder / name).is_file()]
    if not paths:
        return {}
    if len(paths) > 1:
        raise ValueError(f"{folder}: has both {FILES[0]} and {FILES[1]}; keep one")
    path = paths[0]
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not UTF-8 at byte {error.start}; save it as UTF-8") from None
    records = _csv(path, text) if path.suffix == ".csv" else _jsonl(path, text)
    rows: dict[str, Row] = {}
    for number, record in records:
        name = str(record.pop("file_name", None) or "").strip()
        if not name:
            raise ValueError(f"{path}: line {number} has no file_name; each row names one file")
        name = PurePosixPath(name).as_posix()
        if name in rows:
            raise ValueError(f"{path}: line {number} names {name} a second time; keep one row per file")
        rows[name] = _row(record)
    return rows


def _row(record: dict[str, Any]) -> Row:
    caption = record.pop("caption", None)
    prompt = record.pop("prompt", None)
    if prompt and caption:
        record["caption"] = caption  # both given: the prompt is used, the caption is an extra column
    split = record.pop("split", None)
    return Row(str(prompt or caption or "").strip(), str(split or "").strip(), record)


def _csv(path: Path, text: str) -> list[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(text.splitlines(keepends=True))
    if "file_name" not in (reader.fieldnames or ()):
        raise ValueError(f"{path}: has no file_name column, found {reader.fieldnames}; add it")
    records = []
    for record in reader:
        if None in record:
            raise ValueError(
                f"{path}: line {reader.line_num} has more cells than the header; quote commas in captions"
            )
        records.append((reader.line_num, dict(record)))
    return records


def _jsonl(path: Path, text: str) -> list[tuple[int, dict[str, Any]]]:
    records = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path}: line {number} is not JSON ({error.msg}); write one object per line"
            ) from None
        if not isinstance(record, dict):
            raise ValueError(f"{path}: line {number} is a {type(record).__name__}; write one object per line")
        records.append((number, record))
    return records
