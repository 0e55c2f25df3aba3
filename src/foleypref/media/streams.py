"""Several frame streams from one decode of a picture: every scorer names the frames that it needs.

A stream is a rate (frames picked by ffmpeg's `fps` rule) and a conversion of decoded frames to pixels. Equal
keys are equal frames, so scorers that share a key share the memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from foleypref.media.clip import collect_frames
from foleypref.media.decoding import Convert, FramePicker, render


@dataclass(frozen=True)
class FrameStream:
    """`fps` frames per second of a picture, each made into (H, W, 3) uint8 pixels by `convert`.

    `key` names conversion, size and rate: "short224@0.5".
    """

    key: str
    fps: float
    convert: Convert = field(compare=False)


def square(fps: float, side: int) -> FrameStream:
    """Return a stream by our own conversion: short side `side`, centre square, the same on every machine."""
    return FrameStream(f"square{side}@{fps:g}", fps, lambda frame, sar: render(frame, side, sar))


def bicubic(fps: float, side: int, *, crop: bool) -> FrameStream:
    """Return a stream resized as in the benchmarks: torchvision's antialiased bicubic on uint8.

    The short side becomes `side`; `crop` keeps only the centre square.
    """
    from foleypref.media.frame_rules import resize_short, shown_pixels  # torch

    def convert(frame: Any, sar: Fraction | None) -> np.ndarray:
        return resize_short(shown_pixels(frame, sar), side, crop=crop)

    return FrameStream(f"{'crop' if crop else 'short'}{side}@{fps:g}", fps, convert)


def read_streams(
    path: str | Path, streams: Sequence[FrameStream], *, start_s: float = 0.0, duration_s: float
) -> dict[str, np.ndarray]:
    """Read frames (T, H, W, 3) uint8 by stream key in one decode, fewer if the picture ends early.

    Raises MediaError if the picture cannot be read.
    """
    if not streams:
        return {}
    pickers = _pickers(streams, duration_s)
    collect_frames(path, list(pickers.values()), start_s=start_s)
    return {key: np.stack(picker.frames) for key, picker in pickers.items() if picker.frames}


def frames_of(
    array: np.ndarray, fps: float, streams: Sequence[FrameStream], *, duration_s: float | None = None
) -> dict[str, np.ndarray]:
    """Return the same frames by stream key from a picture in memory, (T, H, W, 3) uint8 at `fps`.

    duration_s: how much of the picture to use (seconds), None for all of it.
    """
    rate = Fraction(fps).limit_denominator(1001)
    pickers = _pickers(streams, len(array) / fps if duration_s is None else duration_s)
    for index, pixels in enumerate(array):
        if all(picker.done for picker in pickers.values()):
            break
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame.time_base, frame.duration = 1 / rate, 1  # how long the last one is shown
        for picker in pickers.values():
            picker.push(frame, index / rate)
    for picker in pickers.values():
        picker.finish()
    return {key: np.stack(picker.frames) for key, picker in pickers.items() if picker.frames}


def _pickers(streams: Sequence[FrameStream], duration_s: float) -> dict[str, FramePicker]:
    """Return one picker per key, the fastest stream first."""
    by_rate = sorted(streams, key=lambda stream: -stream.fps)
    return {stream.key: FramePicker(stream.fps, duration_s, stream.convert) for stream in by_rate}
