"""Decode candidates and clips for playing: waves, pictures, silent videos."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from foleypref.flow.convention import Latents
from foleypref.media.clip import MediaError, probe, read_clip, read_wave
from foleypref.media.mux import write_video
from foleypref.models.backbones import Model
from foleypref.workspace.paths import WorkspacePaths
from foleypref.workspace.records import GROUND_TRUTH, Candidate, Clip
from foleypref.workspace.store import Workspace
from foleypref.workspace.walk import progress_bar, say

Waves = Callable[[Sequence[str]], Mapping[str, tuple[np.ndarray, int]]]
"""candidate_ids -> {candidate_id: (wave (N,) float32, sample rate in Hz)}, without ids that fail."""

Pictures = Callable[[Sequence[str]], Mapping[str, tuple[np.ndarray, float]]]
"""candidate_ids -> {candidate_id: (frames (T, H, W, 3) uint8, frames per second)} of a joint model."""

MAX_SIDE = 480  # pixels of the longer side of the gallery's videos


class ModelMedia:
    """Candidates' sound and pictures, decoded by the model, which is loaded at the first use."""

    def __init__(self, workspace: Workspace, model: Model, device: str = "cpu") -> None:
        self._workspace, self._model, self._device = workspace, model, device
        self._candidates, self._clips = workspace.by_id(Candidate), workspace.by_id(Clip)
        self._loaded: Model | None = None

    def waves(self, candidate_ids: Sequence[str]) -> dict[str, tuple[np.ndarray, int]]:
        """Implement `Waves`: decode candidates from latents, read ground truths from their clips."""
        waves: dict[str, tuple[np.ndarray, int]] = {}
        rate = self._model.spec.sample_rate
        generated = self._generated(candidate_ids)
        if generated:
            decoded = self._decode(generated, lambda model, latents: model.decode(latents).float())
            waves = {c.candidate_id: (wave, rate) for c, wave in zip(generated, decoded)}
        for candidate_id in set(candidate_ids) - waves.keys():
            clip = self._clips[self._candidates[candidate_id].clip_id]
            seconds = self._model.spec.clip_seconds
            try:
                path = self._workspace.clip_file(clip)
                wave, _ = read_wave(path, rate, start_s=clip.start_s, duration_s=seconds)
            except MediaError as error:
                say(f"report: {error}")
                continue
            waves[candidate_id] = (wave, rate)
        return waves

    def pictures(self, candidate_ids: Sequence[str]) -> dict[str, tuple[np.ndarray, float]]:
        """Implement `Pictures` for a joint model; ground truths have none."""
        video, generated = self._model.spec.video, self._generated(candidate_ids)
        if not generated or video is None:
            return {}
        decoded = self._decode(generated, lambda model, latents: model.decode_video(latents))
        return {c.candidate_id: (frames, video.fps) for c, frames in zip(generated, decoded)}

    def _generated(self, candidate_ids: Sequence[str]) -> list[Candidate]:
        candidates = (self._candidates[i] for i in candidate_ids)
        return [candidate for candidate in candidates if candidate.model != GROUND_TRUTH]

    def _decode(
        self, candidates: Sequence[Candidate], decode: Callable[[Model, Latents], Tensor]
    ) -> np.ndarray:
        if self._loaded is None:
            self._loaded = self._model.load(self._device)
        rows = self._workspace.rows(candidates).items()
        with torch.inference_mode():
            return decode(self._loaded, {k: v.float().to(self._device) for k, v in rows}).cpu().numpy()


def write_videos(workspace: WorkspacePaths, clips: Sequence[Clip], media: Path) -> dict[str, str]:
    """Write clips without sound as media/<clip_id>.mp4 unless there; return the failures by clip_id."""
    failures: dict[str, str] = {}
    todo = [clip for clip in clips if not (media / f"{clip.clip_id}.mp4").exists()]

    def write(clip: Clip) -> tuple[str, str]:
        try:
            _write_silent(workspace.clip_file(clip), clip, media / f"{clip.clip_id}.mp4")
        except MediaError as error:
            return clip.clip_id, str(error)
        return clip.clip_id, ""

    with _workers() as pool, progress_bar("videos", len(todo)) as advance:
        for clip_id, reason in pool.map(write, todo):
            if reason:
                failures[clip_id] = reason
            advance(1)
    return failures


def _write_silent(source: Path, clip: Clip, path: Path) -> None:
    info = probe(source)
    size = _fit(info.height or clip.height, info.width or clip.width)
    clip_media = read_clip(source, start_s=clip.start_s, duration_s=clip.duration_s, size=size, audio=False)
    if clip_media.frames is None:
        raise MediaError(f"{source}: has no picture")
    write_video(path, clip_media.frames, info.fps or clip.fps or 25.0)


def _fit(height: int, width: int) -> tuple[int, int]:
    """Scale (height, width) so that the longer side is at most MAX_SIDE and both are even, as H.264 needs."""
    scale = min(1.0, MAX_SIDE / max(height, width))
    return max(2, round(height * scale / 2) * 2), max(2, round(width * scale / 2) * 2)


@contextmanager
def _workers() -> Iterator[ThreadPoolExecutor]:
    """Yield a pool of threads (codecs release Python's lock); Ctrl-C waits only for files in progress."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def event_times(clip: Clip) -> list[float]:
    """Return the true event times of a clip in seconds; [] unless its metadata has them."""
    times = clip.meta.get("event_times_s") or ()
    return [float(t) for t in times if isinstance(t, int | float)]
