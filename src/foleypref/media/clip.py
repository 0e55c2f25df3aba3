"""Read frames and waveforms from media files through PyAV; numpy only, so that it imports at once.

Reading puts picture and sound on one clock: zero is the start of the picture (of the sound where there is no
picture) plus `start_s`. What lies before zero is cut and a late start is filled with silence, so sample
`round(t * rate)` and the frame shown at t belong together whatever the container's timestamps say.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import statistics
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from foleypref.media.decoding import (
    FramePicker,
    MediaError,
    SoundCollector,
    display_size,
    pick_stream,
    render,
)
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

FULL_RATE = 240  # an average rate above this stands for a missing value (flv and mkv report 1000)
SEEK_AFTER_S = 3.0  # earlier windows are reached by decoding from the start: exact in every container
PREROLL_S = 1.0  # seek this much before the window, so that sound decoders have settled at its start
SHORT_BY_S = 0.25  # a stream this much shorter than its header says was cut off


@dataclasses.dataclass(frozen=True)
class MediaInfo:
    """Properties that a file states. Width and height are as shown: square pixels, turned upright."""

    duration_s: float
    has_video: bool
    has_audio: bool
    fps: float | None = None
    width: int | None = None
    height: int | None = None
    num_frames: int | None = None
    sample_rate: int | None = None
    channels: int | None = None
    video_codec: str | None = None
    audio_codec: str | None = None


def probe(path: str | Path) -> MediaInfo:
    """Read the header and the first few frames (they carry rotation). Raises MediaError."""
    with opened(path) as container:
        video, audio = pick_stream(container.streams.video), pick_stream(container.streams.audio)
        heads: list[Any] = []
        if video is not None:
            with contextlib.suppress(av.FFmpegError):  # the header still has most properties
                heads.extend(itertools.islice(container.decode(video), 8))
        times = [f.pts * f.time_base for f in heads if f.pts is not None]
        gaps = [b - a for a, b in itertools.pairwise(times) if b > a]
        return describe(
            container, video, audio, heads[0] if heads else None, statistics.median(gaps) if gaps else 0
        )


@contextlib.contextmanager
def opened(path: str | Path) -> Iterator[Any]:
    """Open an input container. Never set PyAV's log level: with threads that deadlocked on damaged files."""
    try:
        container = av.open(str(path), metadata_errors="ignore")
    except FileNotFoundError:
        raise MediaError(f"{path}: no such file; check the path") from None
    except (av.FFmpegError, OSError, UnicodeError) as error:
        raise MediaError(
            f"{path}: does not open as media ({reason_of(error)}); re-export or remove it"
        ) from None
    with container:
        yield container


def reason_of(error: BaseException) -> str:
    """Return the first line of an error by FFmpeg or the system."""
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]


def zero_of(container: Any, stream: Any) -> Fraction:
    """Return the container time (seconds) at which `stream` starts: the clock's zero."""
    if stream.start_time is not None:
        return Fraction(stream.start_time * stream.time_base)
    return Fraction(container.start_time or 0, av.time_base)


def describe(container: Any, video: Any, audio: Any, head: Any, period: Any) -> MediaInfo:
    """Return MediaInfo by the header, the first decoded frame or None, and the median frame period (s)."""
    duration = None if container.duration is None else container.duration / av.time_base
    fields: dict[str, Any] = {}
    if video is not None:
        rate = video.average_rate
        if not rate or rate > FULL_RATE:
            rate = 1 / period if period else None
        fields.update(fps=None if rate is None else float(rate), num_frames=video.frames or None)
        width, height = (
            (video.width, video.height) if head is None else display_size(head, video.sample_aspect_ratio)
        )
        fields.update(width=width, height=height, video_codec=video.codec_context.codec.canonical_name)
        if video.duration is not None:
            duration = float(video.duration * video.time_base)
    if audio is not None:
        context = audio.codec_context
        fields.update(sample_rate=context.sample_rate, channels=context.channels)
        fields.update(audio_codec=context.codec.canonical_name)
    return MediaInfo(duration or 0.0, video is not None, audio is not None, **fields)


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
            asked = " or ".join(name for name, on in (("video", video), ("audio", audio)) if on)
            raise MediaError(f"{path}: no {asked} stream that can be decoded; use another file")
        window = _Window(path, container, start_s, v, a)
        picker = FramePicker(fps, duration_s, lambda frame, sar: render(frame, size, sar)) if v else None
        rate = sample_rate or (a.codec_context.sample_rate if a else 0) or 48000
        sound = SoundCollector(rate, duration_s, channels) if a else None
        window.decode([picker] if picker else [], sound)
        truncated = window.damage is not None or window.ends_early(picker, sound, duration_s)
        info = describe(container, v, a, picker.head if picker else None, picker.period() if picker else 0)
    return MediaClip(
        frames=np.stack(picker.frames) if picker else None,
        wave=sound.wave(pad) if sound else None,
        times_s=np.array(picker.times) if picker else None,
        sample_rate=sound.rate if sound else None,
        truncated=truncated,
        video_end_s=_reach_s(picker, duration_s),
        audio_end_s=_reach_s(sound, duration_s),
        info=info,
    )


def read_wave(
    path: str | Path, sample_rate: int | None = None, *, start_s: float = 0.0, duration_s: float | None = None
) -> tuple[np.ndarray, int]:
    """Return only the sound, ((N,) float32 mono, rate in Hz), to its end unless duration_s is given."""
    clip = read_clip(path, start_s=start_s, duration_s=duration_s, sample_rate=sample_rate, video=False)
    assert clip.wave is not None
    assert clip.sample_rate is not None
    return clip.wave, clip.sample_rate


def read_channels(
    path: str | Path, *, start_s: float = 0.0, duration_s: float | None = None, pad: bool = False
) -> tuple[np.ndarray, int]:
    """Return all channels of the sound at its own rate, ((C, N) float32, Hz); `pad` fills up to duration_s.

    For scorers, which mix, resample and cut each in its own way. Raises MediaError without a sound that
    decodes.
    """
    clip = read_clip(path, start_s=start_s, duration_s=duration_s, video=False, pad=pad, channels=True)
    assert clip.wave is not None
    assert clip.sample_rate is not None
    return clip.wave, clip.sample_rate


def collect_frames(path: str | Path, pickers: Sequence[FramePicker], *, start_s: float = 0.0) -> None:
    """Push the picture from `start_s` (seconds) on into all `pickers` in one pass, until each has enough.

    The first picker stands for all where a frame without a time needs one, or the picture is checked: give
    the one with the most frames per second first. Raises MediaError where `read_clip` does.
    """
    if start_s < 0:
        raise MediaError(f"{path}: start_s must be >= 0, got {start_s}")
    with opened(path) as container:
        stream = pick_stream(container.streams.video)
        if stream is None:
            raise MediaError(f"{path}: no video stream that can be decoded; use another file")
        _Window(path, container, start_s, stream).decode(pickers)


def held(frames: np.ndarray, num: int) -> np.ndarray:
    """Return exactly `num` frames of (T, ...), T ≥ 1, repeating the last one if there are fewer."""
    return frames[np.minimum(np.arange(num), len(frames) - 1)]


def _reach_s(collector: FramePicker | SoundCollector | None, duration_s: float | None) -> float | None:
    if collector is None or collector.end is None:
        return None
    end = max(0.0, float(collector.end))
    return end if duration_s is None else min(end, duration_s)


class _Window:
    """Streams of an open container from one moment on, decoded into collectors."""

    def __init__(self, path: str | Path, container: Any, start_s: float, video: Any, audio: Any = None):
        self.path, self.container, self.start_s = path, container, start_s
        self.video, self.audio = video, audio
        picture = pick_stream(container.streams.video)  # sets the clock even where only sound is read
        self.zero = zero_of(container, picture or audio) + Fraction(start_s).limit_denominator(10**6)
        self.damage: str | None = None  # the last that FFmpeg complained of

    def decode(self, pickers: Sequence[FramePicker], sound: SoundCollector | None = None) -> None:
        """Feed all collectors until they have enough. Raises MediaError if there is a video and no frame."""
        self._seek()
        for picker in pickers:
            picker.sar = self.video.sample_aspect_ratio
        picture_done, sound_done = not pickers, sound is None
        try:
            for packet in self.container.demux([s for s in (self.video, self.audio) if s is not None]):
                if self.video is None or packet.stream.index != self.video.index:
                    if sound is not None and not sound_done:
                        self._push_sound(packet, sound)
                        sound_done = sound.done
                elif not picture_done:
                    usable = self._push_picture(packet, pickers)
                    picture_done = not usable or all(picker.done for picker in pickers)
                if picture_done and sound_done:
                    break
        except av.FFmpegError as error:
            self.damage = reason_of(error)
        for picker in pickers:
            picker.finish()
        if pickers:
            self._check_picture(pickers[0])

    def ends_early(
        self, picker: FramePicker | None, sound: SoundCollector | None, duration_s: float | None
    ) -> bool:
        """Return whether a stream stopped before both the window's end and the end that its header states."""
        ends = []
        for stream, collector in ((self.video, picker), (self.audio, sound)):
            if collector is None or collector.done:
                continue
            end = float(collector.end) if collector.end is not None else float(-self.zero)
            ends.append(end)
            if stream.duration is not None:
                stated = float(
                    zero_of(self.container, stream) + stream.duration * stream.time_base - self.zero
                )
                slack = SHORT_BY_S + (2 * float(picker.period()) if picker and stream is self.video else 0.0)
                if end < min(stated, duration_s or stated) - slack:
                    return True
        num_streams = (picker is not None) + (sound is not None)
        if self.container.duration is None or not ends or len(ends) < num_streams:
            return False
        stated = float(Fraction(self.container.duration, av.time_base) - self.zero)
        return max(ends) < min(stated, duration_s or stated) - 2 * SHORT_BY_S

    def _seek(self) -> None:
        if self.start_s >= SEEK_AFTER_S:
            stream = self.video or self.audio
            with contextlib.suppress(av.FFmpegError):  # not seekable: decode from the start instead
                before = int((self.zero - Fraction(PREROLL_S)) / stream.time_base)
                self.container.seek(before, stream=stream)

    def _push_picture(self, packet: Any, pickers: Sequence[FramePicker]) -> bool:
        """Decode a packet into all pickers; False if the rest of the picture is of no use."""
        try:
            for frame in packet.decode():
                stated = self._time_of(frame)
                time = pickers[0].next_time() if stated is None else stated
                for picker in pickers:
                    picker.push(frame, time)
        except av.FFmpegError as error:
            self.damage = reason_of(error)
            # After damage, pictures are smeared until the next key frame: keep what came before.
            return pickers[0].head is None
        return True

    def _push_sound(self, packet: Any, sound: SoundCollector) -> None:
        """Decode a packet. After damage the rest is still good: a sound packet needs no other one."""
        try:
            for frame in packet.decode():
                time = self._time_of(frame)
                sound.push(frame, None if time is None else float(time))
        except av.FFmpegError as error:
            self.damage = reason_of(error)

    def _time_of(self, frame: Any) -> Fraction | None:
        return None if frame.pts is None else Fraction(frame.pts * frame.time_base - self.zero)

    def _check_picture(self, picker: FramePicker) -> None:
        if picker.head is None:
            reason = self.damage or "no packets"
            raise MediaError(f"{self.path}: no frame of its picture decodes ({reason}); re-encode it")
        if not picker.frames:
            end = float(picker.end or 0) + self.start_s
            raise MediaError(
                f"{self.path}: its picture ends at {end:.2f} s, the window starts at {self.start_s:g} s"
            )
