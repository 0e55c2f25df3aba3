"""The report's media on disk: silent videos, spectrograms, and soundtracks that switch to the sample.

Sound goes to one small script per soundtrack (`media/<candidate_id>.<format>.js`), not to <audio> elements.
Several <audio> elements cannot be kept together to the sample: each has its own clock and buffer, so a switch
between them is late by an unknown amount, and lateness is what this page is there to make audible. Web Audio
starts all soundtracks of a clip on one clock and a switch only moves gains; but it needs the bytes, and
from file:// `fetch` is refused. A script tag is allowed there, so the bytes travel as base64 in a call,
loaded when the clip is first played. FLAC is the default, as it is lossless and, unlike MP3, has no encoder
delay for browsers to disagree about.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from foleypref.media.files import write_atomic
from foleypref.media.mux import write_audio, write_video
from foleypref.media.pictures import spectrogram_image
from foleypref.models.playback import Pictures, Waves, codec_threads, event_times
from foleypref.workspace.records import Clip
from foleypref.workspace.walk import progress_bar

SPECTROGRAM = (720, 120, 32)  # pixels: width, height, and of the outline below


def write_pictures(
    candidate_ids: Sequence[str], pictures: Pictures, media: Path, batch_size: int = 32
) -> set[str]:
    """Write missing pictures of candidates as media/<candidate_id>.mp4; return the ids that have one."""
    todo = [i for i in candidate_ids if not (media / f"{i}.mp4").exists()]
    for begin in range(0, len(todo), batch_size):
        for candidate_id, (frames, fps) in pictures(todo[begin : begin + batch_size]).items():
            write_video(media / f"{candidate_id}.mp4", frames, fps)
    return {i for i in candidate_ids if (media / f"{i}.mp4").exists()}


def write_sounds(
    sounds: Mapping[str, Clip], waves: Waves, media: Path, audio_format: str, batch_size: int = 32
) -> list[str]:
    """Write missing soundtracks and spectrograms of candidates (id -> clip); return the ids without sound."""
    todo = [i for i in sounds if not all(path.exists() for path in _sound_files(media, i, audio_format))]
    lost = []
    with codec_threads() as pool, progress_bar("sounds", len(todo)) as advance:
        for begin in range(0, len(todo), batch_size):
            decoded = {i: wave for i, wave in waves(todo[begin : begin + batch_size]).items() if len(wave[0])}
            lost += [i for i in todo[begin : begin + batch_size] if i not in decoded]
            works = [
                pool.submit(_write_sound, media, i, *wave, sounds[i], audio_format)
                for i, wave in decoded.items()
            ]
            for work in works:
                work.result()
            advance(len(todo[begin : begin + batch_size]))
    return lost


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
    write_atomic(script, f'foleyprefSound("{candidate_id}","{encoded}")\n'.encode())


def sound_text(media: Path, candidate_id: str, audio_format: str) -> str:
    """Return the sound in a soundtrack's script, as base64."""
    script, _ = _sound_files(media, candidate_id, audio_format)
    return script.read_text().split('","', 1)[1].rpartition('"')[0]


def inlined(path: Path, kind: str) -> str:
    """Return a file's bytes as a data: URL."""
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
