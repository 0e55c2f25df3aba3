"""Frames and waveforms in and out of media files, through PyAV; numpy only, so that it imports at once.

Reading puts picture and sound on one clock: zero is the start of the picture (of the sound where there is no
picture) plus `start_s`. What lies before zero is cut and a late start is filled with silence, so sample
`round(t * rate)` and the frame shown at t belong together whatever the container's timestamps say.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import av
import numpy as np

from foleypref.media.decoding import FramePicker, MediaError, SoundCollector, pick_stream
from foleypref.media.header import MediaInfo, describe, opened, probe, reason_of, zero_of
from foleypref.media.mux import mux, write_audio, write_video

__all__ = [
    "MediaClip",
    "MediaError",
    "MediaInfo",
    "collect_frames",
    "held",
    "mux",
    "probe",
    "read_channels",
    "read_clip",
    "read_wave",
    "write_audio",
    "write_video",
]

P = TypeVar("P")  # a picker: what `FramePicker` does

SEEK_AFTER_S = 3.0  # earlier windows are reached by decoding from the start: exact in every container
PREROLL_S = 1.0  # seek this much before the window, so that sound decoders have settled at its start
SHORT_BY_S = 0.25  # a stream this much shorter than its header says was cut off


@dataclasses.dataclass(frozen=True)
class MediaClip:
    """One window of a file.

    frames: (T, H, W, 3) uint8 RGB, or None without picture; times_s: (T,) when each is shown in the file.
    wave: (N,) float32 mono, (C, N) where all channels were asked for, or None without sound; sample_rate: Hz.
    truncated: damage or a cut-off file ended a stream before the window's end and before its header says.
    video_end_s, audio_end_s: how far into the window each stream reaches (at most duration_s), or None.
    """

    frames: np.ndarray | None
    wave: np.ndarray | None
    times_s: np.ndarray | None
    sample_rate: int | None
    truncated: bool
    video_end_s: float | None
    audio_end_s: float | None
    info: MediaInfo


def read_clip(
    path: str | Path,
    *,
    start_s: float = 0.0,
    duration_s: float | None,
    fps: float | None = None,
    size: int | tuple[int, int] | None = None,
    sample_rate: int | None = None,
    video: bool = True,
    audio: bool = True,
    pad: bool = True,
    channels: bool = False,
) -> MediaClip:
    """Read one window of picture and sound in one pass, decoding no more than it needs.

    duration_s: seconds, None to the end. fps: ffmpeg's `fps` rule; None keeps every frame in the window.
    size: None as shown; int short side then centre square; (height, width) stretched to exactly that.
    sample_rate: Hz; None keeps the file's. pad: fill the sound to round(duration_s * rate) samples, else stop
    at its end. video, audio: False leaves a stream out. channels: keep all of them, the wave is (C, N).
    Frames that the file does not have are not invented: T is then smaller and `video_end_s` says where the
    picture stopped.
    Raises MediaError when the file does not open, has neither stream, or nothing of its picture decodes.
    """
    if start_s < 0 or (duration_s is not None and duration_s <= 0):
        raise MediaError(f"{path}: start_s must be >= 0 and duration_s > 0, got {start_s} and {duration_s}")
    with opened(path) as container:
        v = pick_stream(container.streams.video) if video else None
        a = pick_stream(container.streams.audio) if audio else None
        if v is None and a is None:
            wanted = " or ".join(name for name, on in (("video", video), ("audio", audio)) if on)
            raise MediaError(f"{path}: no {wanted} stream that can be decoded; use another file")
        picker = FramePicker(fps, duration_s, size, v.sample_aspect_ratio) if v is not None else None
        rate = sample_rate or (a.codec_context.sample_rate if a is not None else 0) or 48000
        sound = SoundCollector(rate, duration_s, channels) if a is not None else None
        zero = zero_of(container, pick_stream(container.streams.video) or a)
        zero += Fraction(start_s).limit_denominator(10**6)
        _seek(container, v or a, zero, start_s)
        damage = _decode(container, v, a, picker, sound, zero)
        if picker is not None:
            _check_picture(path, picker, damage, start_s)
        short = _ends_early(container, v, a, picker, sound, zero, duration_s)
        head = picker.head if picker is not None else None
        info = describe(container, v, a, head, picker.period() if picker is not None else 0)
    return _clip(picker, sound, damage is not None or short, duration_s, info, pad)


def read_wave(
    path: str | Path, sample_rate: int | None = None, *, start_s: float = 0.0, duration_s: float | None = None
) -> tuple[np.ndarray, int]:
    """The sound alone: ((N,) float32 mono, rate in Hz), to its end unless duration_s is given."""
    clip = read_clip(path, start_s=start_s, duration_s=duration_s, sample_rate=sample_rate, video=False)
    assert clip.wave is not None
    assert clip.sample_rate is not None
    return clip.wave, clip.sample_rate


def read_channels(
    path: str | Path, *, start_s: float = 0.0, duration_s: float | None = None, pad: bool = False
) -> tuple[np.ndarray, int]:
    """The sound with all its channels at its own rate: ((C, N) float32, Hz), filled to duration_s if `pad`.

    Scorers mix, resample and cut each in its own way. Raises MediaError without a sound that decodes.
    """
    clip = read_clip(path, start_s=start_s, duration_s=duration_s, video=False, pad=pad, channels=True)
    assert clip.wave is not None
    assert clip.sample_rate is not None
    return clip.wave, clip.sample_rate


def collect_frames(path: str | Path, make_picker: Callable[[Any], P], *, start_s: float = 0.0) -> P:
    """Push the picture from `start_s` (seconds) on into `make_picker(stream)` until that is done; returns it.

    Raises MediaError where `read_clip` does.
    """
    if start_s < 0:
        raise MediaError(f"{path}: start_s must be >= 0, got {start_s}")
    with opened(path) as container:
        stream = pick_stream(container.streams.video)
        if stream is None:
            raise MediaError(f"{path}: no video stream that can be decoded; use another file")
        picker: Any = make_picker(stream)
        zero = zero_of(container, stream) + Fraction(start_s).limit_denominator(10**6)
        _seek(container, stream, zero, start_s)
        damage = _decode(container, stream, None, picker, None, zero)
        _check_picture(path, picker, damage, start_s)
    return picker


def held(frames: np.ndarray, num: int) -> np.ndarray:
    """Exactly `num` frames of (T, ...), T ≥ 1: a picture that ends early holds its last one."""
    return frames[np.minimum(np.arange(num), len(frames) - 1)]


def _check_picture(path: str | Path, picker: Any, damage: str | None, start_s: float) -> None:
    if picker.head is None:
        raise MediaError(f"{path}: no frame of its picture decodes ({damage or 'no packets'}); re-encode it")
    if not picker.frames:
        end = float(picker.end or 0) + start_s
        raise MediaError(f"{path}: its picture ends at {end:.2f} s, the window starts at {start_s:g} s")


def _seek(container: Any, stream: Any, zero: Fraction, start_s: float) -> None:
    if start_s >= SEEK_AFTER_S:
        with contextlib.suppress(av.FFmpegError):  # not seekable: decode from the start instead
            container.seek(int((zero - Fraction(PREROLL_S)) / stream.time_base), stream=stream)


def _decode(container: Any, v: Any, a: Any, picker: Any, sound: Any, zero: Fraction) -> str | None:
    """Feed both collectors until both have enough; returns what damage was met on the way, or None."""
    damage: str | None = None
    video_done = audio_done = False
    try:
        for packet in container.demux([s for s in (v, a) if s is not None]):
            is_video = v is not None and packet.stream.index == v.index
            if not (video_done if is_video else audio_done):
                try:
                    for frame in packet.decode():
                        time = None if frame.pts is None else frame.pts * frame.time_base - zero
                        if is_video:
                            picker.push(frame, picker.next_time() if time is None else Fraction(time))
                        else:
                            sound.push(frame, None if time is None else float(time))
                except av.FFmpegError as error:
                    damage = reason_of(error)
                    # After damage, pictures are smeared until the next key frame: keep what came before.
                    # A sound packet stands alone, so the rest is still good and the hole stays silent.
                    video_done = video_done or (is_video and picker.head is not None)
            video_done = video_done or v is None or picker.done
            audio_done = audio_done or a is None or sound.done
            if video_done and audio_done:
                break
    except av.FFmpegError as error:
        damage = reason_of(error)
    if picker is not None:
        picker.finish()
    return damage


def _ends_early(
    container: Any, v: Any, a: Any, picker: Any, sound: Any, zero: Fraction, duration_s: float | None
) -> bool:
    """Whether a stream stopped before both the window's end and the end its header gives (a cut-off file)."""
    ends = []
    for stream, collector in ((v, picker), (a, sound)):
        if stream is None or collector.done:
            continue
        end = float(collector.end) if collector.end is not None else float(-zero)
        ends.append(end)
        if stream.duration is not None:
            said = float(zero_of(container, stream) + stream.duration * stream.time_base - zero)
            slack = SHORT_BY_S + (2 * float(picker.period()) if stream is v else 0.0)
            if end < min(said, duration_s or said) - slack:
                return True
    if container.duration is None or not ends or len(ends) < (v is not None) + (a is not None):
        return False
    said = float(Fraction(container.duration, av.time_base) - zero)
    return max(ends) < min(said, duration_s or said) - 2 * SHORT_BY_S


def _clip(
    picker: FramePicker | None,
    sound: SoundCollector | None,
    truncated: bool,
    duration_s: float | None,
    info: MediaInfo,
    pad: bool,
) -> MediaClip:
    def reach(collector: FramePicker | SoundCollector | None) -> float | None:
        if collector is None or collector.end is None:
            return None
        end = max(0.0, float(collector.end))
        return end if duration_s is None else min(end, duration_s)

    return MediaClip(
        frames=np.stack(picker.frames) if picker is not None else None,
        wave=sound.wave(pad) if sound is not None else None,
        times_s=np.array(picker.times) if picker is not None else None,
        sample_rate=sound.rate if sound is not None else None,
        truncated=truncated,
        video_end_s=reach(picker),
        audio_end_s=reach(sound),
        info=info,
    )
