"""The first stage: a folder of videos becomes clips, each decoded once to know that it can be used.

Handling, by what is found:
    damaged or cut off, shorter than the trim    a clip as long as its picture lasts, from `min_duration_s` up
    no audio stream, silent audio                a clip with has_audio False
    no video stream, does not open, hangs or
    crashes a decoder, duplicate content         a recorded failure

meta["ingest"] notes what was found. A clip's id is the hash of the file's bytes and the trim, and its split a
function of the bytes alone: moving or renaming files changes nothing, and two trims of one file never land in
different splits. Files are hashed again at every run (about 1 GB/s a worker), as sizes and dates lie; only
what is new is decoded.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pydantic import Field

from foleypref.media.metadata import FILES, Row, read_metadata
from foleypref.media.trial import Trial, try_all
from foleypref.settings.parts import Settings
from foleypref.workspace.records import Clip, Failure, Record, digest
from foleypref.workspace.store import Workspace
from foleypref.workspace.walk import Stage, StageCount, say

STAGE = "ingest"
BATCH = 32  # clips appended at once; fixed, so that the parts of a resumed run equal those of an unbroken one
SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".flv", ".3gp", ".mpg", ".mpeg", ".ts", ".wmv", ".ogv",
)  # fmt: skip


class IngestSettings(Settings):
    """Which files become clips, and how long. Times in seconds, shares of all files."""

    folder: Path
    start_s: float = Field(0.0, ge=0)
    duration_s: float = Field(4.0, gt=0)
    min_duration_s: float = Field(1.0, gt=0)
    validation_share: float = Field(0.05, ge=0, le=1)
    test_share: float = Field(0.05, ge=0, le=1)
    suffixes: tuple[str, ...] = SUFFIXES
    num_workers: int = Field(2, ge=1)
    limit_s: float = Field(30.0, gt=0)  # a file that takes longer is recorded as a failure


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line of the plan. `reason` is set when the file is refused before decoding."""

    item: str  # clip_id, or a hash of what is wrong
    path: Path
    row: Row
    content: str = ""
    reason: str = ""


def ingest(workspace: Workspace, settings: IngestSettings) -> StageCount:
    """Add the folder's videos to the workspace's clips. Raises ValueError for a bad folder or metadata."""
    with workspace.lock(STAGE):
        plan = _plan(workspace, settings)

        def process(batch: list[Entry]) -> list[Record]:
            good = [entry for entry in batch if not entry.reason]
            jobs = [(str(entry.path), settings.start_s, settings.duration_s) for entry in good]
            trials = dict(try_all(jobs, settings.num_workers, settings.limit_s))
            records: list[Record] = [
                _record(workspace, settings, good[index], trials[index]) for index in range(len(good))
            ]
            return records + [Failure.make(STAGE, e.item, e.reason) for e in batch if e.reason]

        stage = Stage(
            name=STAGE,
            plan=plan,
            item_id=lambda entry: entry.item,
            done=workspace.ids(Clip),
            process=process,
            batch_size=BATCH,
        )
        return stage.run(workspace)


def split_of(content: str, validation_share: float, test_share: float) -> str:
    """train, validation or test: a function of the content hash, so a file never changes sides."""
    place = int(digest("split", content, length=12), 16) / 16**12
    if place < test_share:
        return "test"
    return "validation" if place < test_share + validation_share else "train"


def _plan(workspace: Workspace, settings: IngestSettings) -> list[Entry]:
    folder = settings.folder.expanduser().resolve()
    if settings.validation_share + settings.test_share > 1:
        raise ValueError("validation_share and test_share add up to more than 1; lower one")
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; give the folder that holds the videos")
    rows = read_metadata(folder)
    files = _files(workspace, folder, {suffix.lower() for suffix in settings.suffixes})
    if not files:
        raise ValueError(f"{folder}: holds no video ({' '.join(settings.suffixes)}); check the folder")
    with ThreadPoolExecutor(settings.num_workers) as pool:
        hashes = list(pool.map(content_hash, files.values()))
    plan: list[Entry] = []
    first: dict[str, str] = {}
    for (name, path), content in zip(files.items(), hashes):
        entry = _entry(name, path, content, rows.get(name, Row()), settings, first)
        plan.append(entry)
    for name in sorted(rows.keys() - files.keys()):
        what = "it is not there" if not (folder / name).exists() else "it has no video suffix or is hidden"
        reason = f"{name}: named in {' or '.join(FILES)}, but {what}"
        plan.append(Entry(digest("missing", name), folder / name, rows[name], reason=reason))
    unnamed = len(files.keys() - rows.keys())
    if rows and unnamed:
        say(f"{STAGE}: {unnamed} files have no metadata row; their prompt is empty")
    return plan


def _files(workspace: Workspace, folder: Path, suffixes: set[str]) -> dict[str, Path]:
    """Videos by POSIX name relative to the folder, sorted; without hidden ones and the workspace's own."""
    files = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.suffix.lower() not in suffixes or any(part.startswith(".") for part in relative.parts):
            continue
        inside = path.is_relative_to(workspace.root) and not folder.is_relative_to(workspace.root)
        if path.is_file() and not inside:
            files[relative.as_posix()] = path
    return files


def content_hash(path: Path) -> str:
    """SHA-256 of a file's bytes (hex); "" when it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _entry(
    name: str, path: Path, content: str, row: Row, settings: IngestSettings, first: dict[str, str]
) -> Entry:
    """The plan's line for a file; `first` remembers which file showed a content first."""
    shown = name.encode("utf-8", "replace").decode()
    if shown != name:
        return Entry(digest("name", shown), path, row, reason=f"{shown}: its name is not UTF-8; rename it")
    if not content:
        return Entry(
            digest("unreadable", name), path, row, reason=f"{name}: cannot be read; check permissions"
        )
    if content in first:
        reason = f"{name}: same content as {first[content]}, which is kept; remove one"
        return Entry(digest("duplicate", content, name), path, row, reason=reason)
    first[content] = name
    return Entry(Clip.make_id(content, settings.start_s, settings.duration_s), path, row, content)


def _record(workspace: Workspace, settings: IngestSettings, entry: Entry, trial: Trial) -> Record:
    if trial.reason:
        return Failure.make(STAGE, entry.item, trial.reason)
    wanted = settings.duration_s
    # The last frame is shown for one period more than its time says, so a trim may end one frame early.
    covered = (
        wanted
        if trial.video_s >= wanted - 1 / max(trial.fps, 1.0)
        else math.floor(trial.video_s * 1e3 + 1e-6) / 1e3
    )
    if covered < min(settings.min_duration_s, wanted):
        short = (
            f"{entry.path}: only {trial.video_s:.2f} s of its picture decode from {settings.start_s:g} s on"
        )
        return Failure.make(STAGE, entry.item, f"{short}, {settings.min_duration_s:g} s are asked for")
    meta: dict[str, Any] = dict(entry.row.meta)
    if trial.note:
        meta["ingest"] = trial.note
    root = workspace.root
    return Clip(
        clip_id=entry.item,
        path=(entry.path.relative_to(root) if entry.path.is_relative_to(root) else entry.path).as_posix(),
        split=entry.row.split or split_of(entry.content, settings.validation_share, settings.test_share),
        prompt=entry.row.prompt,
        start_s=settings.start_s,
        duration_s=covered,
        fps=trial.fps,
        width=trial.width,
        height=trial.height,
        has_audio=trial.has_audio,
        meta=meta,
    )
