"""Make the sound of a video: the picture is copied packet by packet and never encoded again.

A video longer than the model's clip is covered by windows that overlap and are cross-faded; a shorter one
gets sound of its own length. In a folder of videos, windows of several files share a batch, and a bad file
is named and passed over. Without a video, only the prompt conditions the sound. A joint model makes its own
picture too, in one pass; it uses a video only as far as it conditions on one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from pydantic import Field

from foleypref.flow.convention import seed_of
from foleypref.flow.solvers import AnySolver
from foleypref.media.clip import MediaError, probe
from foleypref.media.mux import mux, suffix_for, write_audio, write_video
from foleypref.media.windows import Windows, cross_fade, windows_for
from foleypref.models.backbones import Media, Model, ModelPart
from foleypref.models.tools import SHORT_S, sample_latents
from foleypref.settings.parts import Settings
from foleypref.workspace.walk import progress_bar, say

SOUND_SUFFIXES = (".wav", ".flac")
PICTURE_SUFFIXES = (".mp4", ".mov", ".mkv")  # that a joint model's picture and sound are written to
VIDEO_SUFFIXES = (".mp4", ".mov", ".webm", ".avi", ".mkv", ".m4v", ".flv", ".3gp")
MAX_DURATION_S = 600.0


class GenerateSettings(Settings):
    """Settings of the sound, and of a joint model's picture. Times in seconds."""

    model: ModelPart = Field("world", validate_default=True)
    prompt: str = ""
    negative_prompt: str = ""
    duration: float | None = Field(None, gt=0)  # None: the whole video; without one, the model's own length
    window: float | None = Field(None, gt=0)  # the longest; None: half as much again as the model's length
    seed: int = 0
    solver: AnySolver = "euler"
    num_steps: int = Field(25, ge=1)
    guidance_scale: float = 4.5
    batch_size: int = Field(8, ge=1)  # windows, of one video or of several
    device: str = "cpu"


@dataclass
class Job:
    """One soundtrack to make; `path` is None if only a prompt is given."""

    path: Path | None
    destination: Path
    duration_s: float
    windows: Windows
    waves: list[np.ndarray] = field(default_factory=list)
    frames: np.ndarray | None = None  # (T, H, W, 3) uint8, a joint model's


@dataclass(frozen=True)
class Piece:
    """One window of a job, with its frames."""

    job: Job
    index: int
    seconds: float
    media: Media


def generate(video: str | Path | None, out: str | Path, settings: GenerateSettings) -> list[Path]:
    """Make a soundtrack for a video, for each video of a folder, or for just the prompt; return the files.

    `out` is a file (.wav and .flac hold only the sound) or, if `video` is a folder, a folder.
    Raises MediaError if the one video cannot be used; in a folder such files are named and passed over.
    """
    source = None if video is None else Path(video)
    if source is not None and not source.exists():
        raise ValueError(f"{source} does not exist; give a video file or a folder of them")
    destinations = _destinations(source, Path(out), settings)
    model = settings.model.load(settings.device)
    if model.notice:
        say(model.notice)
    strict = source is None or not source.is_dir()
    jobs = [job for path, target in destinations if (job := _plan(model, path, target, settings, strict))]
    written = []
    with progress_bar("generate", sum(len(job.windows.starts) for job in jobs)) as advance:
        pieces = _read(model, sorted(jobs, key=lambda job: job.windows.seconds), strict)
        for batch in _batches(pieces, settings.batch_size):
            _sample(model, batch, settings)
            jobs_of_batch = {id(piece.job): piece.job for piece in batch}.values()
            finished = [job for job in jobs_of_batch if len(job.waves) == len(job.windows.starts)]
            written += [path for job in finished if (path := _write(model, job, strict))]
            advance(len(batch))
    if not written:
        raise ValueError(f"{source} has no video that could be used")
    return written


def _destinations(
    source: Path | None, target: Path, settings: GenerateSettings
) -> list[tuple[Path | None, Path]]:
    """Return (video or None, file to write) pairs. Raises ValueError if `target` does not suit `source`."""
    if source is None:
        if not settings.prompt.strip():
            raise ValueError("there is neither a video nor a --prompt to make sound from")
        joint = settings.model.spec.video is not None
        allowed = (*SOUND_SUFFIXES, *PICTURE_SUFFIXES) if joint else SOUND_SUFFIXES
        if target.suffix.lower() not in allowed:
            raise ValueError(f"without a video, -o must be {' or '.join(allowed)}, found {target}")
        return [(None, target)]
    if not source.is_dir():
        if target.is_dir():
            raise ValueError(f"{target} is a folder; give -o a file name such as {target / source.name}")
        return [(source, target)]
    if target.suffix.lower() in (*VIDEO_SUFFIXES, *SOUND_SUFFIXES):
        raise ValueError(f"{source} is a folder, so -o names a folder too, found {target}")
    videos = sorted(p for p in source.iterdir() if p.suffix.lower() in VIDEO_SUFFIXES)
    if not videos:
        raise ValueError(f"{source} holds no videos ({', '.join(VIDEO_SUFFIXES)})")
    # some pictures are in containers that we do not write (.flv), or that take no new sound
    return [(path, target / f"{path.name}{suffix_for(path)}") for path in videos]


def _plan(
    model: Model, path: Path | None, destination: Path, settings: GenerateSettings, strict: bool
) -> Job | None:
    """Choose the sound's duration and windows; None for a bad file, which in `strict` mode is an error."""
    try:
        info = None if path is None else probe(path)
        if info is not None and not info.has_video:
            raise MediaError(f"{path}: no video stream that can be decoded; use another file")
    except MediaError as error:
        if strict:
            raise
        say(f"passed over: {error}")
        return None
    spec, whole = model.spec, info.duration_s if info else 0.0
    if spec.video is not None:
        duration = settings.duration or spec.clip_seconds
    else:
        duration = min(settings.duration or whole or spec.clip_seconds, MAX_DURATION_S)
        if duration < whole and settings.duration is None:
            say(f"{path}: longer than {MAX_DURATION_S:.0f} s; only its first {duration:.0f} s get sound")
    windows = windows_for(duration, spec.clip_seconds, spec.any_length, settings.window)
    if spec.video is not None and len(windows.starts) > 1:  # a cross-fade cannot join pictures
        raise ValueError(
            f"{settings.model.part_name()} makes picture and sound together, about {spec.clip_seconds:g} s, "
            f"asked for {duration:g} s; lower --duration"
        )
    return Job(path, destination, duration, windows)


def _read(model: Model, jobs: Iterable[Job], strict: bool) -> Iterator[Piece]:
    """Yield the windows of all jobs, job by job, decoding each one when it is needed."""
    for job in jobs:
        seconds, is_single = job.windows.seconds, len(job.windows.starts) == 1
        view = model.with_duration(seconds)
        for index, start in enumerate(job.windows.starts):
            try:
                media = Media() if job.path is None else view.read(job.path, start, audio=False)
            except MediaError as error:
                if index == 0 and strict:
                    raise
                if index == 0:
                    say(f"passed over: {error}")
                    break
                # a damaged file ends early: the rest still gets its sound
                say(f"sound without picture from {start:g} s on: {error}")
                media = Media()
            is_cut = is_single and model.spec.any_length
            if is_cut and media.seconds and media.seconds < seconds - SHORT_S:
                seconds = job.duration_s = media.seconds  # the picture is shorter than asked for
            yield Piece(job, index, seconds, media)


def _batches(pieces: Iterable[Piece], size: int) -> Iterator[list[Piece]]:
    """Yield batches of up to `size` windows of one length, across files."""
    batch: list[Piece] = []
    for piece in pieces:
        if batch and (len(batch) == size or piece.seconds != batch[0].seconds):
            yield batch
            batch = []
        batch.append(piece)
    if batch:
        yield batch


def _sample(model: Model, batch: list[Piece], settings: GenerateSettings) -> None:
    """Fill the jobs' waves; a window's noise depends only on the seed and the window's index in its file."""
    view = model.with_duration(batch[0].seconds)
    media = [Media(piece.media.frames, None, settings.prompt) for piece in batch]
    with torch.inference_mode():
        negative = None
        if settings.negative_prompt:
            one = view.condition([Media(prompt=settings.negative_prompt)])
            negative = {key: value.expand(len(batch), *value.shape[1:]) for key, value in one.items()}
        latents = sample_latents(
            view,
            view.condition(media),
            [seed_of(settings.seed, piece.index) for piece in batch],
            num_steps=settings.num_steps,
            guidance_scale=settings.guidance_scale,
            solver=settings.solver,
            negative=negative,
        )
        for piece, wave in zip(batch, view.decode(latents).float().cpu().numpy(), strict=True):
            piece.job.waves.append(wave)
        if view.spec.video is not None:
            for piece, frames in zip(batch, view.decode_video(latents).cpu().numpy(), strict=True):
                piece.job.frames = frames


def _write(model: Model, job: Job, strict: bool) -> Path | None:
    """Write a job's file and return it; None if it cannot be written, which in `strict` mode is an error."""
    rate = model.spec.sample_rate
    wave = cross_fade(job.waves, job.windows.starts, rate)[: round(job.duration_s * rate)]
    job.waves.clear()
    has_picture = job.frames is not None or job.path is not None
    if not has_picture or job.destination.suffix.lower() in SOUND_SUFFIXES:
        return write_audio(job.destination, wave, rate)
    try:
        if job.frames is not None:
            assert model.spec.video is not None
            fps = model.spec.video.fps
            frames = job.frames[: math.ceil(job.duration_s * fps)]
            return write_video(job.destination, frames, fps, wave, rate)
        assert job.path is not None
        return mux(job.path, wave, rate, job.destination)
    except MediaError as error:
        if strict:
            raise
        say(f"passed over: {error}")
        return None
