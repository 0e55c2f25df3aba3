"""Exports and imports people's ratings and votes: as Parquet, CSV, or Label Studio's JSON, by the suffix.

One row per rating or vote: kind, clip_id, candidate_id, second (of a vote), rater, value (rating: 0 bad,
1 medium, 2 good; vote: 1 first better, -1 second, 0 tie), source, seconds, prompt, video. Label Studio has
one task per soundtrack or pair, with one annotation per rater. Ids are the workspace's; sound is not copied.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from foleypref.annotate.label_studio import from_label_studio, to_label_studio
from foleypref.annotate.settings import check_name
from foleypref.annotate.sync import sync_labels
from foleypref.media.files import write_atomic
from foleypref.scoring.human_labels import HUMAN, SIMULATED
from foleypref.workspace.records import LABELS, Candidate, Clip, Failure, Rating, Vote
from foleypref.workspace.store import Workspace
from foleypref.workspace.walk import StageCount, say

STAGE = "import_labels"
FORMATS = {
    "parquet": (".parquet", "application/vnd.apache.parquet"),
    "csv": (".csv", "text/csv; charset=utf-8"),
    "labelstudio": (".json", "application/json"),
}
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("kind", "clip_id", "candidate_id", "second", "rater")),
        *(("value", pa.int64()), ("source", pa.string()), ("seconds", pa.float64())),
        *((name, pa.string()) for name in ("prompt", "video")),
    ]
)
REQUIRED = ("kind", "candidate_id", "rater", "value")
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would run a cell that begins with one of these
NUM_PRINTED = 5  # failures that are printed; all are recorded


def export_labels(workspace: Workspace, path: str | Path) -> Path:
    """Write every rating and vote by people, from the tool or imported; return the file's path.

    Raises ValueError for another suffix, or if there are none.
    """
    path, format_name = Path(path), _format_of(Path(path))
    sync_labels(workspace)
    ratings = [r for r in workspace.read(Rating) if r.source == HUMAN]
    votes = [v for v in workspace.read(Vote) if v.source == HUMAN]
    if not ratings and not votes:
        raise ValueError(
            f"{workspace.root} has no ratings or votes by people; `foleypref annotate` collects some"
        )
    write_atomic(path, render(format_name, workspace, ratings, votes))
    say(f"annotate: {len(ratings)} ratings and {len(votes)} votes -> {path}")
    return path


def render(format_name: str, workspace: Workspace, ratings: Sequence[Rating], votes: Sequence[Vote]) -> bytes:
    """Return the content of a file in one of FORMATS; the same bytes for the same labels."""
    rows = _rows(workspace, ratings, votes)
    if format_name == "labelstudio":
        return json.dumps(to_label_studio(rows), indent=1).encode()
    if format_name == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, SCHEMA.names, lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
        return text.getvalue().encode()
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), sink, compression="zstd")
    return sink.getvalue()


def _rows(workspace: Workspace, ratings: Sequence[Rating], votes: Sequence[Vote]) -> list[dict[str, Any]]:
    clips, candidates = workspace.by_id(Clip), workspace.by_id(Candidate)

    def row(clip_id: str, candidate_id: str, second: str, record: Rating | Vote) -> dict[str, Any]:
        clip = clips.get(clip_id)
        return {
            "kind": "vote" if second else "rating",
            "clip_id": clip_id,
            "candidate_id": candidate_id,
            "second": second,
            "rater": record.rater,
            "value": _value(record),
            "source": record.source,
            "seconds": record.seconds,
            "prompt": clip.prompt if clip else "",
            "video": clip.path if clip else "",
        }

    known = sorted((r for r in ratings if r.candidate_id in candidates), key=lambda r: r.rating_id)
    rows = [row(candidates[r.candidate_id].clip_id, r.candidate_id, "", r) for r in known]
    rows += [row(v.clip_id, v.first, v.second, v) for v in sorted(votes, key=lambda v: v.vote_id)]
    return sorted(rows, key=lambda r: (r["kind"], r["clip_id"], r["candidate_id"], r["second"]))


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def import_labels(workspace: Workspace, path: str | Path) -> StageCount:
    """Add a file's ratings and votes to the workspace; a bad row becomes a recorded failure with its place.

    A label that exists is skipped; one that contradicts the same rater's earlier label is a failure. Raises
    ValueError if the file cannot be read or lacks a column.
    """
    path, count = Path(path), StageCount(STAGE)
    rows = _read_rows(path, _format_of(path))
    sync_labels(workspace)
    new: list[Rating | Vote] = []
    failures: list[Failure] = []
    with workspace.lock(STAGE):
        candidates = workspace.by_id(Candidate)
        existing: dict[str, Rating | Vote] = {**workspace.by_id(Rating), **workspace.by_id(Vote)}
        for place, row in rows:
            try:
                record = _record(row, candidates)
                before = existing.setdefault(record.record_id, record)
                if _value(before) != _value(record):
                    raise ValueError(f"{record.rater} gave this another label before; the first one stays")
                if before is record:
                    new.append(record)
                else:
                    count.skipped += 1
            except ValueError as error:
                failures.append(Failure.make(STAGE, f"{path}:{place}", str(error)))
        workspace.append([*failures, *new])
    for failure in failures[:NUM_PRINTED]:
        say(f"annotate: {failure.item}: {failure.reason}")
    if len(failures) > NUM_PRINTED:
        say(f"annotate: … and {len(failures) - NUM_PRINTED} more; `foleypref show` counts them")
    count.done, count.failed = len(new), len(failures)
    say(count.line())
    return count


def _format_of(path: Path) -> str:
    for format_name, (suffix, _) in FORMATS.items():
        if path.suffix.lower() == suffix:
            return format_name
    suffixes = ", ".join(suffix for suffix, _ in FORMATS.values())
    raise ValueError(f"{path}: labels are {suffixes} files, found {path.suffix or 'no suffix'!r}")


def _read_rows(path: Path, format_name: str) -> list[tuple[str, Mapping[str, Any]]]:
    """Return (place, row) of every row. Raises ValueError if the file is not in this format."""
    try:
        if format_name == "labelstudio":
            return list(from_label_studio(json.loads(path.read_text(encoding="utf-8-sig"))))
        if format_name == "parquet":
            table = pq.read_table(path)
            _check_columns(path, table.column_names)
            return [(f"row {number}", row) for number, row in enumerate(table.to_pylist(), 1)]
        return list(_read_csv(path))
    except (UnicodeDecodeError, json.JSONDecodeError, csv.Error, pa.ArrowException, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def _read_csv(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        _check_columns(path, reader.fieldnames or ())
        line = reader.line_num + 1
        for row in reader:
            yield f"line {line}", row
            line = reader.line_num + 1  # a quoted cell may have several


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        present = ", ".join(columns) or "none"
        raise ValueError(f"{path} lacks the column {', '.join(missing)}; it has {present}")


def _record(row: Mapping[str, Any], candidates: Mapping[str, Candidate]) -> Rating | Vote:
    """Return the record of a row. Raises ValueError that says what is wrong with the row."""
    if row.get("mistake"):
        raise ValueError(row["mistake"])
    first, rater = str(row.get("candidate_id") or ""), check_name(str(row.get("rater") or ""))
    source, seconds = str(row.get("source") or HUMAN), _seconds(row.get("seconds"))
    if source not in (HUMAN, SIMULATED):
        raise ValueError(f"source is {HUMAN} or {SIMULATED}, found {source!r}")
    if first not in candidates:
        raise ValueError(f"no candidate {first!r} in this workspace")
    clip_id = str(row.get("clip_id") or candidates[first].clip_id)
    kind, second = row.get("kind"), str(row.get("second") or "")
    if kind not in ("rating", "vote"):
        raise ValueError(f"kind is rating or vote, found {kind!r}")
    if kind == "vote" and (second not in candidates or second == first):
        raise ValueError(f"second is another candidate of the clip, found {second!r}")
    for candidate_id in (first, second) if kind == "vote" else (first,):
        if candidates[candidate_id].clip_id != clip_id:
            raise ValueError(f"candidate {candidate_id} belongs to another clip than {clip_id!r}")
    if kind == "rating":
        label = _whole_number(row.get("value"), words=LABELS)
        return Rating.make(first, rater, label, source=source, seconds=seconds)
    preference = _whole_number(row.get("value"))
    if first > second:  # the rating tool's order, so that the same comparison has the same id
        first, second, preference = second, first, -preference
    return Vote.make(clip_id, first, second, rater, preference=preference, source=source, seconds=seconds)


def _whole_number(value: Any, words: Sequence[str] = ()) -> int:
    """Return a whole number, or the index of one of the words. Raises ValueError for anything else."""
    if isinstance(value, str) and value.strip().lower() in words:
        return words.index(value.strip().lower())
    try:
        if float(value) == int(float(value)):
            return int(float(value))
    except (TypeError, ValueError, OverflowError):
        pass
    allowed = f" or one of {', '.join(words)}" if words else ""
    raise ValueError(f"value is a whole number{allowed}, found {value!r}")


def _seconds(value: Any) -> float:
    try:
        seconds = float(value or 0.0)
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 <= seconds <= 86_400:
        raise ValueError(f"seconds is a number from 0 to 86400, found {value!r}")
    return seconds


def _value(record: Rating | Vote) -> int:
    return record.label if isinstance(record, Rating) else record.preference
