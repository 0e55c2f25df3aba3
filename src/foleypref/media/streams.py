"""Several ways of looking at one picture, read in one pass: every scorer names the frames that it wants.

A stream is a rate (frames picked by ffmpeg's `fps` rule) and a conversion of decoded frames to pixels. Equal
keys are equal frames, so scorers that share a key share the memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from foleypref.media.clip import collect_frames
from foleypref.media.decoding import FramePicker, render

Convert = Callable[[Any, Fraction | None], np.ndarray]


@dataclass(frozen=True)
class FrameStream:
    """Frames of `fps` a second as `convert(decoded frame, sample aspect ratio)` shows them, (H, W, 3) uint8.

    `key` names rate, size and conversion: "short224@0.5".
    """

    key: str
    fps: float
    convert: Convert = field(compare=False)


def square(fps: float, side: int) -> FrameStream:
    """The house's own conversion: short side `side`, centre square, the same bytes on every machine."""
    return FrameStream(f"square{side}@{fps:g}", fps, lambda frame, sar: render(frame, side, sar))


def bicubic(fps: float, side: int, *, crop: bool) -> FrameStream:
    """torchvision's antialiased bicubic resize on uint8 to a short side of `side`, as the benchmarks have it.

    `crop` keeps the centre square alone; without it the long side stays.
    """
    from foleypref.media.frame_rules import resize_short, shown_pixels  # torch

    def convert(frame: Any, sar: Fraction | None) -> np.ndarray:
        return resize_short(shown_pixels(frame, sar), side, crop=crop)

    return FrameStream(f"{'crop' if crop else 'short'}{side}@{fps:g}", fps, convert)


def read_streams(
    path: str | Path, streams: Sequence[FrameStream], *, start_s: float = 0.0, duration_s: float
) -> dict[str, np.ndarray]:
    """Frames (T, H, W, 3) uint8 by stream key, from one decode; a picture that ends early has fewer.

    Raises MediaError where the picture cannot be read.
    """
    if not streams:
        return {}
    pickers = collect_frames(path, lambda stream: _Pickers(stream, streams, duration_s), start_s=start_s)
    shown = pickers.by_key
    return {key: np.stack(picker.frames) for key, picker in shown.items() if picker.frames}


def frames_of(
    array: np.ndarray, fps: float, streams: Sequence[FrameStream], *, duration_s: float | None = None
) -> dict[str, np.ndarray]:
    """The same of a picture in memory, (T, H, W, 3) uint8 at `fps`: frames by stream key.

    duration_s: how much of it is looked at (seconds), None all.
    """
    if not streams:
        return {}
    rate = Fraction(fps).limit_denominator(1001)
    seconds = len(array) / fps if duration_s is None else duration_s
    pickers = _Pickers(None, streams, seconds)
    for index, pixels in enumerate(array):
        if pickers.done:
            break
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame.time_base, frame.duration = 1 / rate, 1  # how long the last one is shown
        pickers.push(frame, index / rate)
    pickers.finish()
    return {key: np.stack(picker.frames) for key, picker in pickers.by_key.items() if picker.frames}


class _Pickers:
    """Every decoded frame to one picker a stream; the fastest stream answers for all."""

    def __init__(self, stream: Any, streams: Sequence[FrameStream], duration_s: float) -> None:
        sar = None if stream is None else stream.sample_aspect_ratio  # None: pixels that are square
        self.by_key: dict[str, FramePicker] = {}
        for wanted in sorted(streams, key=lambda s: -s.fps):
            self.by_key.setdefault(wanted.key, self._picker(wanted, duration_s, sar))
        self._fastest = next(iter(self.by_key.values()))

    @staticmethod
    def _picker(wanted: FrameStream, duration_s: float, sar: Any) -> FramePicker:
        return FramePicker(wanted.fps, duration_s, None, None, lambda frame: wanted.convert(frame, sar))

    def __getattr__(self, name: str) -> Any:
        if name in ("next_time", "head", "end", "frames"):
            return getattr(self._fastest, name)
        raise AttributeError(name)

    @property
    def done(self) -> bool:
        return all(picker.done for picker in self.by_key.values())

    def push(self, frame: Any, time: Fraction) -> None:
        for picker in self.by_key.values():
            picker.push(frame, time)

    def finish(self) -> None:
        for picker in self.by_key.values():
            picker.finish()
