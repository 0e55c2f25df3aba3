"""Media whose truth is known: frames that carry their number, and clicks at known times."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

RATE = 44100


def numbered(total: int, height: int = 32, width: int = 128) -> np.ndarray:
    """(T, H, W, 3): frame n shows n as eight black or white bars."""
    bits = (np.arange(total)[:, None] >> np.arange(8)) & 1  # (T, 8)
    bars = np.repeat(bits * 210 + 20, width // 8, axis=1).astype(np.uint8)
    return np.broadcast_to(bars[:, None, :, None], (total, height, width, 3)).copy()


def numbers(frames: np.ndarray) -> list[int]:
    """What `numbered` frames say, at any size."""
    bars = frames[:, frames.shape[1] // 2, :, 0].reshape(len(frames), 8, -1).mean(axis=2) > 128
    return [int(n) for n in (bars << np.arange(8)).sum(axis=1)]


def click(duration_s: float, at_s: float, rate: int = RATE) -> np.ndarray:
    """Silence with one millisecond of full scale starting at `at_s`."""
    wave = np.zeros(round(duration_s * rate), np.float32)
    wave[round(at_s * rate) : round(at_s * rate) + rate // 1000] = 0.9
    return wave


def onset(wave: np.ndarray, rate: int) -> float:
    """When the click starts (seconds)."""
    level = np.abs(wave)
    return float(np.argmax(level > 0.3 * level.max()) / rate)


def encode(
    path: Path, frames: np.ndarray, pts: list[int], base: Fraction, codec: str = "libx264", **extra: Any
) -> Path:
    """Write frames at chosen times (`base` seconds a tick); extra: matrix, sar, sound, sound_start_s."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=round(1 / base) if base > Fraction(1, 1000) else 30)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        stream.codec_context.time_base = base
        if "matrix" in extra:
            stream.set_display_matrix(extra["matrix"])
        if "sar" in extra:
            stream.codec_context.sample_aspect_ratio = extra["sar"]
        sound = out.add_stream("aac", rate=RATE, layout="mono") if "sound" in extra else None
        if sound is not None:
            frame = av.AudioFrame.from_ndarray(extra["sound"][None], format="fltp", layout="mono")
            frame.sample_rate, frame.time_base = RATE, Fraction(1, RATE)
            frame.pts = round(extra.get("sound_start_s", 0) * RATE)
            out.mux(sound.encode(frame))
            out.mux(sound.encode(None))
        for pixels, at in zip(frames, pts):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = at, base
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def packets(path: Path) -> list[bytes]:
    """The coded picture, packet by packet."""
    with av.open(str(path), metadata_errors="ignore") as container:
        return [bytes(packet) for packet in container.demux(container.streams.video[0]) if packet.size]
