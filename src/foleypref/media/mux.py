"""Write media: small H.264 videos, sound files, and a new soundtrack beside an untouched picture.

Every file is written under a temporary name in the same folder and renamed, so no half-written file is seen.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np

from foleypref.media.decoding import MediaError, pick_stream
from foleypref.media.files import atomic_path


class Format(NamedTuple):
    """A container, the codec of the sound in it, and the only sample rate (Hz) that the codec has, if any."""

    container: str
    codec: str
    only_rate: int | None = None


# Opus exists only at 48 kHz, and PyAV would not object to a mislabelled rate. AVI has no field for a lossy
# codec's start delay: sound would be 25 ms late.
CONTAINERS = {
    ".mp4": Format("mp4", "aac"),
    ".m4v": Format("mp4", "aac"),
    ".mov": Format("mov", "aac"),
    ".mkv": Format("matroska", "aac"),
    ".webm": Format("webm", "libopus", 48000),
    ".avi": Format("avi", "pcm_s16le"),
}
SOUND_FILES = {
    ".wav": Format("wav", "pcm_s16le"),
    ".flac": Format("flac", "flac"),
    ".mp3": Format("mp3", "libmp3lame"),
    ".ogg": Format("ogg", "libopus", 48000),
    ".opus": Format("ogg", "libopus", 48000),
    ".m4a": Format("mp4", "aac"),
}
BLOCK = 1024  # samples handed to an encoder at once


# For the same bytes every time: one thread, because otherwise they depend on the number of cores, and no
# look-ahead: with B-frames or macroblock trees one in twenty encodes of the same frames differed (PyAV 18.1).
SAME_BYTES = "rc-lookahead=0:sync-lookahead=0:mbtree=0:bframes=0"


def write_video(
    path: str | Path,
    frames: np.ndarray,
    fps: float,
    wave: np.ndarray | None = None,
    sample_rate: int | None = None,
) -> Path:
    """Write (T, H, W, 3) uint8 frames as H.264 and (N,) sound, if any; the same input gives the same bytes.

    Raises MediaError, also for an odd height or width (4:2:0).
    """
    path = Path(path)
    form = _by_suffix(path, CONTAINERS)
    if form.container in ("webm", "avi"):
        raise MediaError(f"{path}: H.264 does not go into {path.suffix}; use .mp4, .mov or .mkv")
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not len(frames):
        raise MediaError(f"{path}: frames must be (T, H, W, 3) uint8, got {frames.shape} {frames.dtype}")
    if frames.shape[1] % 2 or frames.shape[2] % 2:
        raise MediaError(
            f"{path}: H.264 needs an even height and width, got {frames.shape[1:3]}; crop or pad by one"
        )
    with _written(path, form.container) as out:
        rate = Fraction(fps).limit_denominator(1001)
        options = {"preset": "veryfast", "crf": "18", "threads": "1", "x264-params": SAME_BYTES}
        video = out.add_stream("libx264", rate=rate, options=options)
        video.height, video.width, video.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        sound = None if wave is None else _Soundtrack(out, form, wave, sample_rate, path=path)
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = index, 1 / rate
            out.mux(video.encode(frame))
            if sound is not None:
                sound.advance(float((index + 1) / rate))
        out.mux(video.encode(None))
        if sound is not None:
            sound.advance(None)
    return path


def write_audio(path: str | Path, wave: np.ndarray, sample_rate: int) -> Path:
    """Write (N,) sound in [-1, 1] as .wav or .flac (16 bit), .mp3, .m4a, .ogg or .opus; raises MediaError."""
    path = Path(path)
    form = _by_suffix(path, SOUND_FILES)
    with _written(path, form.container) as out:
        _Soundtrack(out, form, wave, sample_rate, path=path).advance(None)
    return path


def mux(video_path: str | Path, wave: np.ndarray, sample_rate: int, out_path: str | Path) -> Path:
    """Replace a video's sound by (N,) samples, copying its picture packet by packet.

    Sample 0 sounds with the first frame, whatever time the file gives that. Rotation stays (AVI has none).
    Raises MediaError if input and output are the same file, if there is no picture, or if the container
    cannot hold the picture's codec.
    """
    video_path, out_path = Path(video_path), Path(out_path)
    if out_path.exists() and video_path.exists() and os.path.samefile(video_path, out_path):
        raise MediaError(f"{out_path}: would overwrite its own input; choose another output name")
    form = _by_suffix(out_path, CONTAINERS)
    try:
        with av.open(str(video_path), metadata_errors="ignore") as source:
            stream = pick_stream(source.streams.video)
            if stream is None:
                raise MediaError(f"{video_path}: has no picture to put a soundtrack to")
            _check_codec(stream, out_path)
            with _written(out_path, form.container) as out:
                video = out.add_stream_from_template(stream, opaque=True)  # with its rotation and pixel shape
                sound = _Soundtrack(out, form, wave, sample_rate, path=out_path)
                for packet in source.demux(stream):
                    _copy_packet(packet, stream, video, sound)
                sound.advance(None)
    except (av.FFmpegError, OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MediaError(
            f"{video_path}: cannot be copied into {out_path.name} ({reason}); try .mkv"
        ) from None
    return out_path


def suffix_for(video_path: str | Path) -> str:
    """Return the suffix to add to a video's name for a container that can hold its picture and new sound.

    "" if its own container can, or if the file does not open.
    """
    path = Path(video_path)
    try:
        with av.open(str(path), metadata_errors="ignore") as source:
            stream = pick_stream(source.streams.video)
            codec = None if stream is None else stream.codec_context.codec.canonical_name
    except (av.FFmpegError, OSError, UnicodeError):
        return ""
    own = path.suffix.lower()
    if codec is None or (own in CONTAINERS and _holds(CONTAINERS[own].container, codec)):
        return ""
    others = (".mkv", ".mov", ".avi")
    return next((suffix for suffix in others if _holds(CONTAINERS[suffix].container, codec)), "")


def _copy_packet(packet: Any, source: Any, target: Any, sound: _Soundtrack) -> None:
    """Move a packet from stream to stream, after the sound up to its time; the picture then starts at 0."""
    if packet.dts is None and packet.pts is None:
        return  # the demuxer's end marker
    zero = source.start_time or 0
    time = packet.dts if packet.dts is not None else packet.pts
    sound.advance(float((time - zero) * source.time_base))
    packet.pts = None if packet.pts is None else packet.pts - zero
    packet.dts = None if packet.dts is None else packet.dts - zero
    packet.stream = target
    sound.out.mux(packet)


def _check_codec(stream: Any, path: Path) -> None:
    codec = stream.codec_context.codec.canonical_name
    if not _holds(CONTAINERS[path.suffix.lower()].container, codec):
        every = (".mp4", ".webm", ".mkv", ".mov", ".avi")
        fits = [suffix for suffix in every if _holds(CONTAINERS[suffix].container, codec)]
        use = " or ".join(fits) or ".mp4 after re-encoding the video"
        raise MediaError(f"{path}: a {path.suffix} file cannot hold {codec} pictures; use {use}")


def _holds(container: str, codec: str) -> bool:
    """Return whether a container can hold a codec; False too where FFmpeg claims so and then fails."""
    if container == "avi" and codec in ("h264", "hevc"):
        return False  # AVI counts frames and has no timestamps: reordered pictures come back late
    if container == "mov" and codec in ("vp8", "vp9", "av1"):
        return False
    with av.open(io.BytesIO(), "w", format=container) as out:
        return codec in out.supported_codecs


def _by_suffix(path: Path, table: dict[str, Format]) -> Format:
    if path.suffix.lower() not in table:
        raise MediaError(f"{path}: cannot write '{path.suffix}' files; use {', '.join(table)}")
    return table[path.suffix.lower()]


@contextlib.contextmanager
def _written(path: Path, container: str) -> Iterator[Any]:
    """Open an output container whose file appears at `path` only if no error occurred."""
    options = {"fflags": "+bitexact"}  # no library versions and no random ids in the file
    try:
        with (
            atomic_path(path) as temporary,
            av.open(str(temporary), "w", format=container, options=options) as out,
        ):
            yield out
    except av.FFmpegError as error:
        raise MediaError(f"{path}: cannot be written ({error.strerror}); try .mkv") from None


class _Soundtrack:
    """Encodes a waveform into an output stream block by block, so that picture and sound interleave."""

    def __init__(
        self, out: Any, form: Format, wave: np.ndarray, sample_rate: int | None, *, path: Path
    ) -> None:
        if wave.ndim != 1 or not sample_rate or sample_rate <= 0:
            raise MediaError(
                f"{path}: sound must be (N,) with a rate in Hz, got {wave.shape} at {sample_rate}"
            )
        wave = np.nan_to_num(np.asarray(wave, np.float32), nan=0.0, posinf=1.0, neginf=-1.0)
        self.wave, self.rate, self.at = np.clip(wave, -1.0, 1.0), int(sample_rate), 0
        self.out = out
        rates = av.Codec(form.codec, "w").audio_rates
        nearest = self.rate if not rates or self.rate in rates else min(48000, max(rates))
        target = form.only_rate or nearest
        options = {"b": "192k"} if form.codec in ("aac", "libmp3lame", "libopus") else {}
        self.stream = out.add_stream(form.codec, rate=target, options=options, layout="mono")
        if target != self.rate:
            self.wave, self.rate = _resample(self.wave, self.rate, target), target

    def advance(self, time_s: float | None) -> None:
        """Encode up to `time_s` seconds; None encodes the rest and closes the stream."""
        end = len(self.wave) if time_s is None else min(len(self.wave), int(time_s * self.rate))
        while self.at < end and (time_s is None or end - self.at >= BLOCK):
            block = self.wave[self.at : self.at + BLOCK]
            frame = av.AudioFrame.from_ndarray(block[None], format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = self.rate, self.at, Fraction(1, self.rate)
            self.out.mux(self.stream.encode(frame))
            self.at += len(block)
        if time_s is None:
            self.out.mux(self.stream.encode(None))


def _resample(wave: np.ndarray, rate: int, target: int) -> np.ndarray:
    """Resample (N,) from `rate` to `target` (Hz): (round(N * target / rate),)."""
    resampler = av.AudioResampler("flt", "mono", target)
    frame = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
    frame.sample_rate = rate
    parts = [out.to_ndarray()[0] for out in (*resampler.resample(frame), *resampler.resample(None))]
    return np.concatenate(parts)[: round(len(wave) * target / rate)] if parts else wave[:0]
