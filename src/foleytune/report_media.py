"""The report's media on disk: silent videos, spectrograms, and soundtracks that switch to the sample.

Sound goes to one small script a soundtrack (`media/<candidate_id>.<format>.js`), not to <audio> elements.
Several <audio> elements cannot be kept together to the sample: each has its own clock and buffer, and a
switch between them is late by an unknown amount, which is just what this page is for hearing. Web Audio
starts all soundtracks of a clip on one clock and a switch only moves gains; but it needs the bytes, and
from file:// `fetch` is refused. A script tag is allowed there, so the bytes travel as base64 in a call,
loaded when the clip is first played. FLAC is the default, as it is lossless and, unlike MP3, has no encoder
delay for browsers to disagree about.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from foleytune.flow import Latents
from foleytune.media import MediaError, probe, read_clip, read_wave
from foleytune.models import Model
from foleytune.mux import write_audio, write_video
from foleytune.pictures import spectrogram_image
from foleytune.records import GROUND_TRUTH, Candidate, Clip
from foleytune.shards import write_atomic
from foleytune.stages import progress_bar, say
from foleytune.store import Workspace

Waves = Callable[[Sequence[str]], Mapping[str, tuple[np.ndarray, int]]]
"""candidate_ids -> {candidate_id: (wave (N,) float32, sample rate in Hz)}; ids it cannot make are absent."""

Pictures = Callable[[Sequence[str]], Mapping[str, tuple[np.ndarray, float]]]
"""candidate_ids -> {candidate_id: (frames (T, H, W, 3) uint8, frames a second)} of a joint model."""

MAX_SIDE = 480  # pixels of the longer side of the gallery's video
SPECTROGRAM = (720, 120, 32)  # pixels: width, height, and of the outline below


class ModelMedia:
    """What candidates sound and look like, decoded by the model, which is loaded once it is needed."""

    def __init__(self, workspace: Workspace, model: Model, device: str = "cpu") -> None:
        self._workspace, self._model, self._device = workspace, model, device
        self._candidates, self._clips = workspace.by_id(Candidate), workspace.by_id(Clip)
        self._loaded: Model | None = None

    def waves(self, candidate_ids: Sequence[str]) -> dict[str, tuple[np.ndarray, int]]:
        """`Waves`: decoded from latents, of the ground truth read from the clip."""
        found: dict[str, tuple[np.ndarray, int]] = {}
        rate = self._model.spec.sample_rate
        made = self._made(candidate_ids)
        if made:
            decoded = self._decoded(made, lambda model, latents: model.decode(latents).float())
            found = {c.candidate_id: (wave, rate) for c, wave in zip(made, decoded)}
        for candidate_id in set(candidate_ids) - found.keys():
            clip = self._clips[self._candidates[candidate_id].clip_id]
            seconds = self._model.spec.clip_seconds
            try:
                wave, _ = read_wave(
                    self._workspace.root / clip.path, rate, start_s=clip.start_s, duration_s=seconds
                )
            except MediaError as error:
                say(f"report: {error}")
                continue
            found[candidate_id] = (wave, rate)
        return found

    def pictures(self, candidate_ids: Sequence[str]) -> dict[str, tuple[np.ndarray, float]]:
        """`Pictures` of a joint model; of the ground truth there is none."""
        video, made = self._model.spec.video, self._made(candidate_ids)
        if not made or video is None:
            return {}
        decoded = self._decoded(made, lambda model, latents: model.decode_video(latents))
        return {c.candidate_id: (frames, video.fps) for c, frames in zip(made, decoded)}

    def _made(self, candidate_ids: Sequence[str]) -> list[Candidate]:
        found = (self._candidates[i] for i in candidate_ids)
        return [candidate for candidate in found if candidate.model != GROUND_TRUTH]

    def _decoded(self, made: Sequence[Candidate], decode: Callable[[Model, Latents], Tensor]) -> np.ndarray:
        if self._loaded is None:
            self._loaded = self._model.load(self._device)
        rows = self._workspace.latents(made).items()
        with torch.inference_mode():
            return decode(self._loaded, {k: v.float().to(self._device) for k, v in rows}).cpu().numpy()


def write_pictures(
    candidate_ids: Sequence[str], pictures: Pictures, media: Path, batch_size: int = 32
) -> set[str]:
    """Candidates' own pictures as media/<candidate_id>.mp4, where absent; returns the ids that have one."""
    todo = [i for i in candidate_ids if not (media / f"{i}.mp4").exists()]
    for begin in range(0, len(todo), batch_size):
        for candidate_id, (frames, fps) in pictures(todo[begin : begin + batch_size]).items():
            write_video(media / f"{candidate_id}.mp4", frames, fps)
    return {i for i in candidate_ids if (media / f"{i}.mp4").exists()}


def write_videos(root: Path, clips: Sequence[Clip], media: Path) -> dict[str, str]:
    """The silent pictures of clips as media/<clip_id>.mp4, where absent; returns what is wrong by clip_id."""
    wrong: dict[str, str] = {}
    todo = [clip for clip in clips if not (media / f"{clip.clip_id}.mp4").exists()]

    def write(clip: Clip) -> tuple[str, str]:
        try:
            _write_silent(root / clip.path, clip, media / f"{clip.clip_id}.mp4")
        except MediaError as error:
            return clip.clip_id, str(error)
        return clip.clip_id, ""

    with _workers() as pool, progress_bar("videos", len(todo)) as advance:
        for clip_id, reason in pool.map(write, todo):
            if reason:
                wrong[clip_id] = reason
            advance(1)
    return wrong


def _write_silent(source: Path, clip: Clip, path: Path) -> None:
    info = probe(source)
    size = _fitted(info.height or clip.height, info.width or clip.width)
    found = read_clip(source, start_s=clip.start_s, duration_s=clip.duration_s, size=size, audio=False)
    if found.frames is None:
        raise MediaError(f"{source}: has no picture")
    write_video(path, found.frames, info.fps or clip.fps or 25.0)


def _fitted(height: int, width: int) -> tuple[int, int]:
    """(height, width) with the longer side at most MAX_SIDE, both even as H.264 wants."""
    scale = min(1.0, MAX_SIDE / max(height, width))
    return max(2, round(height * scale / 2) * 2), max(2, round(width * scale / 2) * 2)


def write_sounds(
    sounds: Mapping[str, Clip], waves: Waves, media: Path, audio_format: str, batch_size: int = 32
) -> list[str]:
    """Soundtracks and spectrograms of candidates (id -> clip), where absent; returns ids without sound."""
    todo = [i for i in sounds if not all(path.exists() for path in _sound_files(media, i, audio_format))]
    lost = []
    with _workers() as pool, progress_bar("sounds", len(todo)) as advance:
        for begin in range(0, len(todo), batch_size):
            made = {i: wave for i, wave in waves(todo[begin : begin + batch_size]).items() if len(wave[0])}
            lost += [i for i in todo[begin : begin + batch_size] if i not in made]
            works = [
                pool.submit(_write_sound, media, i, *wave, sounds[i], audio_format)
                for i, wave in made.items()
            ]
            for work in works:
                work.result()
            advance(len(todo[begin : begin + batch_size]))
    return lost


@contextmanager
def _workers() -> Iterator[ThreadPoolExecutor]:
    """Threads, as codecs work outside of Python's lock; Ctrl-C waits for files at work and not for all."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _sound_files(media: Path, candidate_id: str, audio_format: str) -> tuple[Path, Path]:
    return media / f"{candidate_id}.{audio_format}.js", media / f"{candidate_id}.webp"


def _write_sound(
    media: Path, candidate_id: str, wave: np.ndarray, sample_rate: int, clip: Clip, audio_format: str
) -> None:
    script, picture = _sound_files(media, candidate_id, audio_format)
    wave = np.clip(np.nan_to_num(np.asarray(wave, np.float32)), -1, 1)
    width, height, outline = SPECTROGRAM
    times = event_times(clip)
    spectrogram_image(wave, sample_rate, picture, width, height, event_times_s=times, outline=outline)
    sound = media / f"{candidate_id}.{audio_format}"
    write_audio(sound, wave, sample_rate)
    encoded = base64.b64encode(sound.read_bytes()).decode()
    sound.unlink()
    write_atomic(script, f'foleytuneSound("{candidate_id}","{encoded}")\n'.encode())


def event_times(clip: Clip) -> list[float]:
    """The true event times of a clip in seconds, if its metadata has them."""
    times = clip.meta.get("event_times_s") or ()
    return [float(t) for t in times if isinstance(t, int | float)]


def sound_text(media: Path, candidate_id: str, audio_format: str) -> str:
    """The sound of a soundtrack's script as base64."""
    script, _ = _sound_files(media, candidate_id, audio_format)
    return script.read_text().split('","', 1)[1].rpartition('"')[0]


def inlined(path: Path, kind: str) -> str:
    """A file's bytes as a data address."""
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
