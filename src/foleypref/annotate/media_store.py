"""The rating tool's media on disk: one silent video per clip, and level-matched soundtracks with outlines.

    WORKSPACE/annotate/media/<clip_id>.mp4
    WORKSPACE/annotate/media/<name>.wav, .json    16-bit PCM; seconds, gain, outline

A soundtrack's name is a hash of its candidate and of its degradation; a browser never sends a file name.
Files that exist are not made again.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from foleypref.annotate.assignments import Assignments, ClipTask
from foleypref.annotate.degrade import degrade
from foleypref.annotate.levels import levelled
from foleypref.flow.convention import seed_of
from foleypref.media.clip import MediaError
from foleypref.media.files import write_atomic
from foleypref.media.mux import write_audio
from foleypref.media.pictures import peaks
from foleypref.models.playback import Waves, write_videos
from foleypref.workspace.records import Clip, Failure, digest
from foleypref.workspace.store import Workspace
from foleypref.workspace.walk import progress_bar, say

VERSION = 1  # to be raised when the same candidate would give other samples
NUM_PEAKS = 600
STAGE = "annotate"


class Soundtrack(NamedTuple):
    """A level-matched soundtrack on disk."""

    path: Path
    seconds: float
    peaks: list[list[float]]  # (NUM_PEAKS, 2) lowest and highest sample


@lru_cache(maxsize=512)  # outlines are long, and clips of the overlap set are asked for again and again
def _read_soundtrack(path: Path) -> Soundtrack:
    info = json.loads(path.read_text())
    return Soundtrack(path.with_suffix(".wav"), info["seconds"], info["peaks"])


class MediaStore:
    """Makes media when a task needs them, one clip at a time, whichever thread asks."""

    def __init__(self, workspace: Workspace, waves: Waves) -> None:
        self.workspace, self.waves = workspace, waves
        self.folder = workspace.annotate / "media"
        self.ready: set[str] = set()  # clips whose media were on disk when last looked at
        self._lock = threading.Lock()  # a model decodes for one thread at a time

    def video(self, clip: Clip) -> Path:
        """Return the path of a clip's silent video, which need not exist."""
        return self.folder / f"{clip.clip_id}.mp4"

    def has(self, clip: Clip, tracks: Sequence[tuple[str, str]]) -> bool:
        """Return whether the video and these (candidate id, degradation) soundtracks are on disk."""
        return self.video(clip).exists() and all(self._json_path(*track).exists() for track in tracks)

    def make(self, clip_task: ClipTask, degraded: Sequence[tuple[str, str]] = ()) -> None:
        """Make what a clip lacks, and these (candidate id, degradation) soundtracks. Raises MediaError."""
        clip, tracks = clip_task.clip, [*((i, "") for i in clip_task.candidates), *degraded]
        if not self.has(clip, tracks):
            with self._lock:
                self._make(clip, [track for track in tracks if not self._json_path(*track).exists()])
        self.ready.add(clip.clip_id)

    def _make(self, clip: Clip, tracks: Sequence[tuple[str, str]]) -> None:
        reasons = write_videos(self.workspace, [clip], self.folder)
        if reasons:
            raise MediaError(reasons[clip.clip_id])
        waves = self.waves(sorted({candidate_id for candidate_id, _ in tracks})) if tracks else {}
        for candidate_id, how in tracks:
            if candidate_id not in waves or not len(waves[candidate_id][0]):
                raise MediaError(f"candidate {candidate_id} has no sound")
            self._write(candidate_id, how, *waves[candidate_id])

    def soundtrack(self, candidate_id: str, how: str = "") -> Soundtrack:
        """Return a soundtrack that was made before. Raises MediaError if it was not."""
        path = self._json_path(candidate_id, how)
        if not path.exists():
            raise MediaError(f"the sound of candidate {candidate_id} is gone from {self.folder}")
        return _read_soundtrack(path)

    def _json_path(self, candidate_id: str, how: str = "") -> Path:
        return self.folder / f"{digest('soundtrack', VERSION, candidate_id, how)}.json"

    def _write(self, candidate_id: str, how: str, wave: np.ndarray, sample_rate: int) -> None:
        path = self._json_path(candidate_id, how)
        if how:
            wave = degrade(wave, sample_rate, how, seed_of("degraded", candidate_id, how))
        level = levelled(wave, sample_rate)
        write_audio(path.with_suffix(".wav"), level.wave, sample_rate)
        info = {
            "candidate_id": candidate_id,
            "degraded": how,
            "seconds": round(len(level.wave) / sample_rate, 4),
            "gain_db": round(level.gain_db, 3),
            "lufs": None if level.lufs is None else round(level.lufs, 2),
            "peaks": np.round(peaks(level.wave, NUM_PEAKS).astype(np.float64), 3).tolist(),
        }
        write_atomic(path, json.dumps(info).encode())  # last: its presence means that the sound is complete


def prepare(
    media: MediaStore,
    assignments: Assignments,
    clip_ids: Sequence[str],
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Make the media of clips, with a progress bar; see `make_or_drop` for clips that fail."""
    missing = [i for i in clip_ids if i not in media.ready and not _is_on_disk(media, assignments, i)]
    with progress_bar("annotate: media", len(missing)) as advance:
        for clip_id in missing:
            if stop():
                return
            make_or_drop(media, assignments, clip_id)
            advance(1)


def _is_on_disk(media: MediaStore, assignments: Assignments, clip_id: str) -> bool:
    clip_task = assignments.clip_tasks.get(clip_id)
    if clip_task is not None and media.has(clip_task.clip, [(i, "") for i in clip_task.candidates]):
        media.ready.add(clip_id)
    return clip_id in media.ready


def make_or_drop(
    media: MediaStore, assignments: Assignments, clip_id: str, degraded: Sequence[tuple[str, str]] = ()
) -> None:
    """Make a clip's media; if that fails, record the failure and drop the clip from the assignments."""
    clip_task = assignments.clip_tasks.get(clip_id)
    if clip_task is None:
        return
    try:
        media.make(clip_task, degraded)
    except ValueError as error:  # MediaError, or a shard that is gone
        say(f"annotate: {error}")
        media.workspace.append([Failure.make(STAGE, clip_id, str(error))])
        assignments.drop(clip_id)
