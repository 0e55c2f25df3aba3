"""One video in, one with sound out: the picture is copied packet by packet, never encoded again.

A video longer than the model's clip is done in windows that overlap and are cross-faded; one that is shorter
gets sound of its own length. A folder of videos is done file by file; a bad file is said and passed over.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch

from foleytune.flow import Solver, seed_of
from foleytune.media import MediaError, probe, read_clip
from foleytune.models import Media, Model, sample_latents
from foleytune.mux import mux, write_audio
from foleytune.plugins import Settings, build, part_field
from foleytune.stages import progress_bar, say

SOUND_SUFFIXES = (".wav", ".flac")
VIDEO_SUFFIXES = (".mp4", ".mov", ".webm", ".avi", ".mkv", ".m4v", ".flv", ".3gp")
OVERLAP_S = 0.5
MAX_DURATION_S = 600.0


class GenerateSettings(Settings):
    """How the sound is made. `duration_s` None is the whole video."""

    model: part_field("models") = build("models", "world")  # type: ignore[valid-type]
    prompt: str = ""
    negative_prompt: str = ""
    duration_s: float | None = None
    seed: int = 0
    solver: Solver = "euler"
    num_steps: int = 25
    guidance_scale: float = 4.5
    batch_size: int = 8
    device: str = "cpu"


def generate(video: str | Path, out: str | Path, settings: GenerateSettings) -> list[Path]:
    """Make a soundtrack for a video, or for every video of a folder, and write it to `out`.

    `out` is a file (.wav and .flac write the sound alone) or, for a folder, a folder. Returns the files.
    Raises MediaError if the one video cannot be used; in a folder such files are named and the rest goes on.
    """
    source, target = Path(video), Path(out)
    if not source.exists():
        raise ValueError(f"{source} does not exist; give a video file or a folder of them")
    jobs = _jobs(source, target)
    model = cast(Model, settings.model).load(settings.device)
    if model.notice:
        say(model.notice)
    written = []
    with progress_bar("generate", len(jobs)) as advance:
        for path, destination in jobs:
            try:
                written.append(_generate_one(model, path, destination, settings))
            except MediaError as error:
                if not source.is_dir():
                    raise
                say(f"passed over: {error}")
            advance(1)
    if not written:
        raise ValueError(f"{source} has no video that could be used")
    return written


def _jobs(source: Path, target: Path) -> list[tuple[Path, Path]]:
    if not source.is_dir():
        if target.is_dir():
            raise ValueError(f"{target} is a folder; give -o a file name such as {target / source.name}")
        return [(source, target)]
    if target.suffix.lower() in (*VIDEO_SUFFIXES, *SOUND_SUFFIXES):
        raise ValueError(f"{source} is a folder, so -o names a folder too, found {target}")
    videos = sorted(p for p in source.iterdir() if p.suffix.lower() in VIDEO_SUFFIXES)
    if not videos:
        raise ValueError(f"{source} holds no videos ({', '.join(VIDEO_SUFFIXES)})")
    return [(path, target / path.name) for path in videos]


def _generate_one(model: Model, path: Path, destination: Path, settings: GenerateSettings) -> Path:
    info = probe(path)
    if not info.has_video:
        raise MediaError(f"{path}: no video stream that can be decoded; use another file")
    duration = min(settings.duration_s or info.duration_s or model.spec.clip_seconds, MAX_DURATION_S)
    if duration < (info.duration_s or 0) and settings.duration_s is None:
        say(f"{path}: longer than {MAX_DURATION_S:.0f} s; sound is made for its first {duration:.0f} s")
    wave = soundtrack(model, path, duration, settings)
    if destination.suffix.lower() in SOUND_SUFFIXES:
        return write_audio(destination, wave, model.spec.sample_rate)
    return mux(path, wave, model.spec.sample_rate, destination)


def soundtrack(model: Model, path: Path, duration_s: float, settings: GenerateSettings) -> np.ndarray:
    """Sound for the first `duration_s` of a video: (N,) float32 at the model's rate."""
    length = model.spec.clip_seconds
    starts = [0.0]
    while starts[-1] + length < duration_s - 1e-6:
        starts.append(starts[-1] + length - OVERLAP_S)
    windows: list[np.ndarray] = []
    for begin in range(0, len(starts), settings.batch_size):
        batch = starts[begin : begin + settings.batch_size]
        windows += _windows(model, path, batch, begin, settings)
    wave = _cross_fade(windows, starts, model.spec.sample_rate)
    return wave[: round(duration_s * model.spec.sample_rate)]


def _windows(
    model: Model, path: Path, starts: Sequence[float], first: int, settings: GenerateSettings
) -> list[np.ndarray]:
    media = [Media(_frames(model, path, start), None, settings.prompt) for start in starts]
    seeds = [seed_of(settings.seed, first + i) for i in range(len(starts))]
    with torch.inference_mode():
        conditions = model.condition(media)
        negative = None
        if settings.negative_prompt:
            negative = model.condition([Media(prompt=settings.negative_prompt)] * len(starts))
        latents = sample_latents(
            model,
            conditions,
            seeds,
            num_steps=settings.num_steps,
            guidance_scale=settings.guidance_scale,
            solver=settings.solver,
            negative=negative,
        )
        return list(model.decode(latents).cpu().numpy())


def _frames(model: Model, path: Path, start_s: float) -> np.ndarray | None:
    """A window's frames; None where a damaged file ends early, so that the rest still gets its sound."""
    spec = model.spec
    try:
        return read_clip(
            path,
            start_s=start_s,
            duration_s=spec.clip_seconds,
            fps=spec.frames.fps,
            size=spec.frames.size,
            audio=False,
        ).frames
    except MediaError as error:
        if start_s == 0:
            raise
        say(f"sound without picture from {start_s:g} s on: {error}")
        return None


def _cross_fade(windows: Sequence[np.ndarray], starts: Sequence[float], rate: int) -> np.ndarray:
    """Overlap-add with linear ramps that sum to one."""
    total = round(starts[-1] * rate) + len(windows[-1])
    wave = np.zeros(total, np.float32)
    overlap = round(OVERLAP_S * rate)
    ramp = np.linspace(0, 1, overlap, dtype=np.float32)
    for index, (window, start) in enumerate(zip(windows, starts)):
        piece = window.astype(np.float32).copy()
        if index > 0:
            piece[:overlap] *= ramp
        if index + 1 < len(windows):
            piece[-overlap:] *= 1 - ramp
        begin = round(start * rate)
        wave[begin : begin + len(piece)] += piece
    return wave
