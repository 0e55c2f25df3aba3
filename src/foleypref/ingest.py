"""Stage 1, ingest: a folder of videos -> clips. Each is decoded once, to know that it can be used.

    damaged, cut off or shorter than the trim    a clip as long as its picture lasts, from `min_duration_s` up
    no audio stream, or silent audio             a clip with has_audio False
    no video stream, does not open, hangs or
    crashes a decoder, or duplicate content      a recorded failure

meta["ingest"] notes such damage. A clip's id is the hash of the file's bytes and the trim; its split depends
only on the bytes. So moving or renaming files changes nothing, and all trims of one file are in one split.
Files are hashed again in every run (about 1 GB/s per worker), as sizes and dates can deceive; only new files
are decoded.
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
from foleypref.media.subprocess_probe import ProbedWindow, probe_in_subprocesses
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
    """Which files become clips, and of what length. Times are in seconds, shares are of all files."""

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
    """One file of the plan. `reason` is set if the file is refused before decoding."""

    item: str  # the clip's id, or a hash of the mistake
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
            trials = dict(probe_in_subprocesses(jobs, settings.num_workers, settings.limit_s))
            records = [_record(workspace, settings, entry, trials[i]) for i, entry in enumerate(good)]
            return [*records, *(Failure.make(STAGE, e.item, e.reason) for e in batch if e.reason)]

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
    """Return train, validation or test: a function of the content hash, so a file never changes its split."""
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
        plan.append(_entry(path, name, content, rows.get(name, Row()), settings=settings, first=first))
    for name in sorted(rows.keys() - files.keys()):
        mistake = "it has no video suffix or is hidden" if (folder / name).exists() else "it is not there"
        reason = f"{name}: named in {' or '.join(FILES)}, but {mistake}"
        plan.append(Entry(digest("missing", name), folder / name, rows[name], reason=reason))
    unnamed = len(files.keys() - rows.keys())
    if rows and unnamed:
        say(f"{STAGE}: {unnamed} files have no metadata row; their prompt is empty")
    return plan


def _files(workspace: Workspace, folder: Path, suffixes: set[str]) -> dict[str, Path]:
    """Return videos by POSIX name relative to the folder, without hidden ones and the workspace's own."""
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
    """Return the SHA-256 of a file's bytes as hex, or "" if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _entry(
    path: Path, name: str, content: str, row: Row, *, settings: IngestSettings, first: dict[str, str]
) -> Entry:
    """Return a file's entry of the plan. `first` maps each content to the first file that has it."""
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


def _record(workspace: Workspace, settings: IngestSettings, entry: Entry, trial: ProbedWindow) -> Record:
    if trial.reason:
        return Failure.make(STAGE, entry.item, trial.reason)
    trim_s = settings.duration_s
    # The last frame is shown for one period more than its time says, so a trim may end one frame early.
    is_whole = trial.video_s >= trim_s - 1 / max(trial.fps, 1.0)
    covered_s = trim_s if is_whole else math.floor(trial.video_s * 1e3 + 1e-6) / 1e3
    if covered_s < min(settings.min_duration_s, trim_s):
        reason = (
            f"{entry.path}: only {trial.video_s:.2f} s of its picture decode from {settings.start_s:g} s on, "
            f"{settings.min_duration_s:g} s are asked for"
        )
        return Failure.make(STAGE, entry.item, reason)
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
        duration_s=covered_s,
        fps=trial.fps,
        width=trial.width,
        height=trial.height,
        has_audio=trial.has_audio,
        meta=meta,
    )
