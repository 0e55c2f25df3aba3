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
from collections.abc import Callable, Mapping, Sequence
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
SPECTROGRAM = (720, 120)  # pixels


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
    wrong = {}
    for clip in clips:
        path = media / f"{clip.clip_id}.mp4"
        if path.exists():
            continue
        try:
            source = root / clip.path
            info = probe(source)
            found = read_clip(
                source,
                start_s=clip.start_s,
                duration_s=clip.duration_s,
                size=_fitted(info.height or clip.height, info.width or clip.width),
                audio=False,
            )
            if found.frames is None:
                raise MediaError(f"{source}: has no picture")
            write_video(path, found.frames, info.fps or clip.fps or 25.0)
        except MediaError as error:
            wrong[clip.clip_id] = str(error)
            say(f"report: {error}")
    return wrong


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
    with progress_bar("report", len(todo)) as advance:
        for begin in range(0, len(todo), batch_size):
            batch = todo[begin : begin + batch_size]
            made = waves(batch)
            for candidate_id in batch:
                if candidate_id in made and len(made[candidate_id][0]):
                    _write_sound(media, candidate_id, *made[candidate_id], sounds[candidate_id], audio_format)
                else:
                    lost.append(candidate_id)
            advance(len(batch))
    return lost


def _sound_files(media: Path, candidate_id: str, audio_format: str) -> tuple[Path, Path]:
    return media / f"{candidate_id}.{audio_format}.js", media / f"{candidate_id}.webp"


def _write_sound(
    media: Path, candidate_id: str, wave: np.ndarray, sample_rate: int, clip: Clip, audio_format: str
) -> None:
    script, picture = _sound_files(media, candidate_id, audio_format)
    wave = np.clip(np.nan_to_num(np.asarray(wave, np.float32)), -1, 1)
    spectrogram_image(wave, sample_rate, picture, *SPECTROGRAM, event_times_s=event_times(clip))
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


def link(path: Path, kind: str, inline: bool) -> str:
    """A relative link to a file in media/, or its bytes as a data address."""
    if not inline:
        return f"media/{path.name}"
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
