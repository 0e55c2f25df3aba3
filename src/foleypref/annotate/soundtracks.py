"""The tool's media on disk: a silent video a clip, and level-matched soundtracks with their outlines.

    WORKSPACE/annotate/media/<clip_id>.mp4
    WORKSPACE/annotate/media/<name>.wav, .json    16-bit PCM; seconds, gain, outline

A soundtrack's name is a hash of its candidate and of how it was degraded; no name ever comes from a browser.
What is there is not made again.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from foleypref.annotate.degrade import degrade
from foleypref.annotate.levels import levelled
from foleypref.annotate.tasks import Plan, Unit
from foleypref.flow.convention import seed_of
from foleypref.media.clip import MediaError
from foleypref.media.files import write_atomic
from foleypref.media.mux import write_audio
from foleypref.media.pictures import peaks
from foleypref.models.playback import Waves, write_videos
from foleypref.workspace.records import Clip, Failure, digest
from foleypref.workspace.store import Workspace
from foleypref.workspace.walk import progress_bar, say

VERSION = 1  # raise it when the same candidate gives other samples
NUM_PEAKS = 600
STAGE = "annotate"


class Soundtrack(NamedTuple):
    """One soundtrack as it is served."""

    path: Path
    seconds: float
    gain_db: float
    peaks: list[list[float]]  # (NUM_PEAKS, 2) lowest and highest


@lru_cache(maxsize=512)  # outlines are long, and overlapping clips are asked for again and again
def _read(about: Path) -> Soundtrack:
    said = json.loads(about.read_text())
    return Soundtrack(about.with_suffix(".wav"), said["seconds"], said["gain_db"], said["peaks"])


class Studio:
    """Makes media when they are wanted, one clip at a time, whichever thread asks."""

    def __init__(self, workspace: Workspace, waves: Waves) -> None:
        self.workspace, self.waves = workspace, waves
        self.folder = workspace.annotate / "media"
        self.ready: set[str] = set()  # clips whose media were there when somebody last looked
        self._lock = threading.Lock()  # a model decodes for one thread at a time

    def video(self, clip: Clip) -> Path:
        """Where the silent video of a clip lies."""
        return self.folder / f"{clip.clip_id}.mp4"

    def is_ready(self, unit: Unit) -> bool:
        """Whether nothing has to be made for a clip."""
        return self.has(unit.clip, [(i, "") for i in unit.candidates])

    def has(self, clip: Clip, tracks: Sequence[tuple[str, str]]) -> bool:
        """Whether the video and these (candidate, how it is degraded) are there."""
        return self.video(clip).exists() and all(self._about(*track).exists() for track in tracks)

    def make(self, unit: Unit, degraded: Sequence[tuple[str, str]] = ()) -> None:
        """Make what is missing of a clip, and (candidate, how) degraded soundtracks. Raises MediaError."""
        wanted = [(i, "") for i in unit.candidates] + list(degraded)
        if not self.has(unit.clip, wanted):
            with self._lock:
                self._make(unit.clip, [track for track in wanted if not self._about(*track).exists()])
        self.ready.add(unit.clip.clip_id)

    def _make(self, clip: Clip, todo: Sequence[tuple[str, str]]) -> None:
        wrong = write_videos(self.workspace.root, [clip], self.folder)
        if wrong:
            raise MediaError(wrong[clip.clip_id])
        waves = self.waves(sorted({candidate_id for candidate_id, _ in todo})) if todo else {}
        for candidate_id, how in todo:
            if candidate_id not in waves or not len(waves[candidate_id][0]):
                raise MediaError(f"candidate {candidate_id} has no sound")
            self._write(candidate_id, how, *waves[candidate_id])

    def soundtrack(self, candidate_id: str, how: str = "") -> Soundtrack:
        """A soundtrack that was made. Raises MediaError for another."""
        about = self._about(candidate_id, how)
        if not about.exists():
            raise MediaError(f"the sound of candidate {candidate_id} is gone from {self.folder}")
        return _read(about)

    def _about(self, candidate_id: str, how: str = "") -> Path:
        return self.folder / f"{digest('soundtrack', VERSION, candidate_id, how)}.json"

    def _write(self, candidate_id: str, how: str, wave: np.ndarray, sample_rate: int) -> None:
        about = self._about(candidate_id, how)
        if how:
            wave = degrade(wave, sample_rate, how, seed_of("degraded", candidate_id, how))
        level = levelled(wave, sample_rate)
        write_audio(about.with_suffix(".wav"), level.wave, sample_rate)
        said = {
            "candidate_id": candidate_id,
            "degraded": how,
            "seconds": round(len(level.wave) / sample_rate, 4),
            "gain_db": round(level.gain_db, 3),
            "lufs": None if level.lufs is None else round(level.lufs, 2),
            "peaks": np.round(peaks(level.wave, NUM_PEAKS).astype(np.float64), 3).tolist(),
        }
        write_atomic(about, json.dumps(said).encode())  # last: it says all is there


def prepare(
    studio: Studio, plan: Plan, clip_ids: Sequence[str], stop: Callable[[], bool] = lambda: False
) -> None:
    """Make the media of clips, with a bar; a clip whose media cannot be made is recorded and left out."""
    todo = [i for i in clip_ids if i not in studio.ready and not _is_there(studio, plan, i)]
    with progress_bar("annotate: media", len(todo)) as advance:
        for clip_id in todo:
            if stop():
                return
            make_or_drop(studio, plan, clip_id)
            advance(1)


def _is_there(studio: Studio, plan: Plan, clip_id: str) -> bool:
    unit = plan.units.get(clip_id)
    if unit is not None and studio.is_ready(unit):
        studio.ready.add(clip_id)
    return clip_id in studio.ready


def make_or_drop(studio: Studio, plan: Plan, clip_id: str, degraded: Sequence[tuple[str, str]] = ()) -> bool:
    """Make a clip's media; False after it was left out, with its reason among the workspace's failures."""
    unit = plan.units.get(clip_id)
    if unit is None:
        return False
    try:
        studio.make(unit, degraded)
    except ValueError as error:  # a shard that is gone is one too
        say(f"annotate: {error}")
        studio.workspace.append([Failure.make(STAGE, clip_id, str(error))])
        plan.drop(clip_id)
        return False
    return True
