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
        rate, seconds = self._model.spec.sample_rate, self._model.spec.clip_seconds
        decoded = self._decode(candidate_ids, lambda model, latents: model.decode(latents).float())
        waves = {candidate_id: (wave, rate) for candidate_id, wave in decoded.items()}
        for candidate_id in set(candidate_ids) - waves.keys():
            clip = self._clips[self._candidates[candidate_id].clip_id]
            source = self._workspace.clip_file(clip)
            try:
                waves[candidate_id] = read_wave(source, rate, start_s=clip.start_s, duration_s=seconds)
            except MediaError as error:
                say(f"report: {error}")
        return waves

    def pictures(self, candidate_ids: Sequence[str]) -> dict[str, tuple[np.ndarray, float]]:
        """Implement `Pictures` for a joint model; ground truths have none."""
        if (video := self._model.spec.video) is None:
            return {}
        decoded = self._decode(candidate_ids, lambda model, latents: model.decode_video(latents))
        return {candidate_id: (frames, video.fps) for candidate_id, frames in decoded.items()}

    def _decode(
        self, candidate_ids: Sequence[str], decode: Callable[[Model, Latents], Tensor]
    ) -> dict[str, np.ndarray]:
        """Decode those candidates that a model generated."""
        candidates = [c for i in candidate_ids if (c := self._candidates[i]).model != GROUND_TRUTH]
        if not candidates:
            return {}
        if self._loaded is None:
            self._loaded = self._model.load(self._device)
        latents = {k: v.float().to(self._device) for k, v in self._workspace.rows(candidates).items()}
        with torch.inference_mode():
            rows = decode(self._loaded, latents).cpu().numpy()
        return {candidate.candidate_id: row for candidate, row in zip(candidates, rows)}


def write_videos(workspace: WorkspacePaths, clips: Sequence[Clip], media: Path) -> dict[str, str]:
    """Write clips without sound as media/<clip_id>.mp4 unless there; return the failures by clip_id."""
    failures: dict[str, str] = {}
    todo = [clip for clip in clips if not (media / f"{clip.clip_id}.mp4").exists()]

    def write(clip: Clip) -> tuple[str, str]:
        source = workspace.clip_file(clip)
        try:
            info = probe(source)
            size = _fit(info.height or clip.height, info.width or clip.width)
            window = read_clip(
                source, start_s=clip.start_s, duration_s=clip.duration_s, size=size, audio=False
            )
            if window.frames is None:
                raise MediaError(f"{source}: has no picture")
            write_video(media / f"{clip.clip_id}.mp4", window.frames, info.fps or clip.fps or 25.0)
        except MediaError as error:
            return clip.clip_id, str(error)
        return clip.clip_id, ""

    with codec_threads() as pool, progress_bar("videos", len(todo)) as advance:
        for clip_id, reason in pool.map(write, todo):
            if reason:
                failures[clip_id] = reason
            advance(1)
    return failures


def _fit(height: int, width: int) -> tuple[int, int]:
    """Scale (height, width) so that the longer side is at most MAX_SIDE and both are even, as H.264 needs."""
    scale = min(1.0, MAX_SIDE / max(height, width))
    return max(2, round(height * scale / 2) * 2), max(2, round(width * scale / 2) * 2)


@contextmanager
def codec_threads() -> Iterator[ThreadPoolExecutor]:
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
