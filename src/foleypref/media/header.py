"""Open media files, avoiding known traps, and read what their headers and first frames state."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import statistics
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from foleypref.media.decoding import MediaError, display_size, pick_stream

FULL_RATE = 240  # an average rate above this stands for a missing value (flv and mkv report 1000)


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
