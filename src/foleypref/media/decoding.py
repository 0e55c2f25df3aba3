"""The two collectors behind `read_clip`: frames on an fps grid, sound on a sample grid, one clock for both.

Time is counted from the start of the requested window (seconds). Picture times stay exact fractions, because
"which frame is frame n" is decided at ties; sound times are floats.
"""

from __future__ import annotations

import math
import statistics
import struct
from collections import deque
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation

# Bit-exact: otherwise swscale picks faster, less exact code by CPU, and features would depend on the machine.
SCALING = int(
    Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.BITEXACT
)
GAP_S = 0.025  # sound timestamps that disagree with the sample count by more start a new segment
MARGIN_S = 0.1  # sound decoded beyond the window on both sides, for the resampler's filter

Convert = Callable[[Any, Fraction | None], np.ndarray]
"""Makes (H, W, 3) uint8 pixels of a decoded frame and the sample aspect ratio of its stream."""


class MediaError(ValueError):
    """A file cannot be read or written; the message is one line: which file, what is wrong, what to do."""


def pick_stream(streams: Any) -> Any | None:
    """Return the stream a player would play, or None: it has a decoder and is no cover art, default first."""
    art = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails
    usable = [s for s in streams if s.codec_context is not None and not s.disposition & art]
    usable.sort(key=lambda s: (not s.disposition & av.stream.Disposition.default, s.index))
    return usable[0] if usable else None


def display_matrix(frame: Any) -> tuple[int, int, int, int]:
    """Return (a, b, c, d) of the display matrix as signs: shown x' = a·x + c·y and y' = b·x + d·y."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return 1, 0, 0, 1
    a, b, _, c, d = struct.unpack("=9i", bytes(data))[:5]
    if abs(b) + abs(c) > abs(a) + abs(d):  # the nearest of the eight right-angle cases
        return 0, 1 if b > 0 else -1, 1 if c > 0 else -1, 0
    return (-1 if a < 0 else 1), 0, 0, (-1 if d < 0 else 1)


def orient(pixels: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """Turn and mirror (H, W, 3) pixels the way the display matrix says."""
    a, b, c, d = matrix
    if a == 0:
        pixels, flip_x, flip_y = pixels.transpose(1, 0, 2), c < 0, b < 0
    else:
        flip_x, flip_y = a < 0, d < 0
    return pixels[:: -1 if flip_y else 1, :: -1 if flip_x else 1]


def display_size(frame: Any, sar: Fraction | None) -> tuple[int, int]:
    """Return (width, height) as shown: pixels made square, then turned."""
    ratio = sar if sar and Fraction(1, 8) <= sar <= 8 else Fraction(1)
    width, height = max(1, round(frame.width * ratio)), frame.height
    return (height, width) if display_matrix(frame)[0] == 0 else (width, height)


def render(frame: Any, size: int | tuple[int, int] | None, sar: Fraction | None) -> np.ndarray:
    """Convert a decoded frame to (H, W, 3) uint8 RGB as shown, with the same bytes on every machine.

    size: None as displayed; int short side then centre square; (height, width) stretched to exactly that.
    """
    width, height = display_size(frame, sar)
    if isinstance(size, int):
        scale = size / min(width, height)
        width, height = max(size, round(width * scale)), max(size, round(height * scale))
    elif size is not None:
        height, width = size
    matrix = display_matrix(frame)
    coded_w, coded_h = (height, width) if matrix[0] == 0 else (width, height)
    rgb = frame.reformat(width=coded_w, height=coded_h, format="rgb24", interpolation=SCALING, threads=1)
    pixels = orient(rgb.to_ndarray(), matrix)
    if isinstance(size, int):
        top, left = (height - size) // 2, (width - size) // 2
        pixels = pixels[top : top + size, left : left + size]
    return np.ascontiguousarray(pixels)


class FramePicker:
    """Chooses frames by ffmpeg's `fps` rule: frame n is the last input frame with round-half-up(t·fps) <= n.

    Only chosen frames are converted, so memory is bounded by the output. fps None keeps every frame.
    """

    def __init__(self, fps: float | None, duration_s: float | None, convert: Convert) -> None:
        self.fps = None if fps is None else Fraction(fps).limit_denominator(1001)
        self.duration = None if duration_s is None else Fraction(duration_s).limit_denominator(10**6)
        limit = None if self.fps is None or self.duration is None else round(self.duration * self.fps)
        self.limit = math.inf if limit is None else max(1, limit)
        self.sar: Fraction | None = None  # of the stream; None: square pixels
        self._convert = convert
        self.frames: list[np.ndarray] = []
        self.times: list[float] = []
        self.first: Fraction | None = None  # time of the first frame seen
        self.intervals: deque[Fraction] = deque(maxlen=64)
        self.head: Any = None  # the first decoded frame, for the size and rotation it carries
        self.done = False
        self._pending: tuple[Any, Fraction] | None = None
        self._pixels: np.ndarray | None = None

    def push(self, frame: Any, time: Fraction) -> None:
        """Take the next decoded frame, shown from `time` (seconds from the window's start)."""
        time = self._in_order(frame, time)
        if self._pending is not None and self.fps is not None:
            self._emit_before(math.floor(time * self.fps + Fraction(1, 2)))
        self._pending, self._pixels = (frame, time), None
        if self.fps is None:
            if self.duration is not None and time >= self.duration:
                self.done = True
            elif time >= 0:
                self._keep()
        elif self.duration is not None and time >= self.duration:  # only now is `end` known to be late enough
            self.done = len(self.frames) >= self.limit

    def finish(self) -> None:
        """End the stream: the last frame holds to its end, or to the window's if that is a period away."""
        if self.end is None or self.fps is None or self.done:
            return
        last = math.ceil(self.end * self.fps)
        if self.limit - last <= max(1.0, float(self.period() * self.fps)):
            last = int(self.limit)
        self._emit_before(last)

    @property
    def end(self) -> Fraction | None:
        """When the last frame seen stops being shown (seconds); None before the first frame."""
        if self._pending is None:
            return None
        frame, time = self._pending
        return time + max(Fraction(frame.duration or 0) * (frame.time_base or 0), self.period())

    def next_time(self) -> Fraction:
        """Return the time for a frame that carries none: one period after the last."""
        return Fraction(0) if self._pending is None else self._pending[1] + (self.period() or Fraction(1, 25))

    def period(self) -> Fraction:
        """Return the median time between the last frames (seconds); 0 if fewer than two were seen."""
        return statistics.median(self.intervals) if self.intervals else Fraction(0)

    def _in_order(self, frame: Any, time: Fraction) -> Fraction:
        if self._pending is None:
            self.head, self.first = frame, time
            return time
        time = max(time, self._pending[1])  # a repeated or backward timestamp: the later frame is shown
        if time > self._pending[1]:
            self.intervals.append(time - self._pending[1])
        return time

    def _emit_before(self, slot: int) -> None:
        while len(self.frames) < min(slot, self.limit):
            self._keep()

    def _keep(self) -> None:
        assert self._pending is not None
        if self._pixels is None:
            self._pixels = self._convert(self._pending[0], self.sar)
        self.frames.append(self._pixels)
        self.times.append(float(self._pending[1]))


class SoundCollector:
    """Collects decoded sound as float32 segments at `sample_rate`, each placed by its own timestamps.

    The sound is mono (N,) or, with `channels`, (C, N) with the channels that the stream's first frame has.
    """

    def __init__(self, sample_rate: int, duration_s: float | None, channels: bool = False) -> None:
        self.rate, self.duration_s = sample_rate, math.inf if duration_s is None else duration_s
        self.channels, self._target = channels, "" if channels else "mono"
        self.end: float | None = None  # where the decoded sound ends (seconds from the window's start)
        self.done = False
        self._segments: list[tuple[float, np.ndarray]] = []
        self._chunks: list[np.ndarray] = []
        self._offsets: list[float] = []
        self._counted_s = 0.0
        self._resampler: Any = None
        self._layout: Any = None

    def push(self, frame: Any, time: float | None) -> None:
        """Take the next decoded frame starting at `time`; None means right after the one before."""
        length = frame.samples / frame.sample_rate
        if time is None:
            time = self.end if self.end is not None else 0.0
        self.end = time + length
        if self.end < -MARGIN_S:
            return
        if time > self.duration_s + MARGIN_S:
            self.done = True
            return
        layout = (frame.sample_rate, frame.layout.name, frame.format.name)
        if self._offsets:
            jump = abs(time - self._counted_s - statistics.median(self._offsets[-9:])) > GAP_S
            if jump or layout != self._layout:
                self._close()
        if self._resampler is None:
            # rematrix_maxval: without it the float down-mix of two equal channels comes out 3 dB louder
            self._target = self._target or frame.layout.name
            options = {"rematrix_maxval": "1.0"}
            self._resampler = av.AudioResampler("fltp", self._target, self.rate, options=options)
            self._layout = layout
        self._offsets.append(time - self._counted_s)
        self._counted_s += length
        frame.pts = None  # the resampler must count samples, not trust timestamps
        self._chunks += [out.to_ndarray() for out in self._resampler.resample(frame)]

    def wave(self, pad: bool) -> np.ndarray:
        """Return (N,) or (C, N) float32 from the window's start.

        With `pad`, N = round(duration · rate); without it, or without a duration, the wave stops where the
        sound does.
        """
        self._close()
        end = max((t + w.shape[1] / self.rate for t, w in self._segments), default=0.0)
        padded = pad and math.isfinite(self.duration_s)
        total = round((self.duration_s if padded else min(max(end, 0.0), self.duration_s)) * self.rate)
        wave = np.zeros((len(self._segments[0][1]) if self._segments else 1, total), np.float32)
        for time, samples in self._segments:
            at = round(time * self.rate)
            piece = samples[:, max(0, -at) : max(0, total - at)]
            wave[:, max(0, at) : max(0, at) + piece.shape[1]] = piece
        np.nan_to_num(wave, copy=False, nan=0.0, posinf=1.0, neginf=-1.0)
        return wave if self.channels else wave[0]

    def _close(self) -> None:
        if self._resampler is not None:
            self._chunks += [out.to_ndarray() for out in self._resampler.resample(None)]
            if self._chunks:
                # The median, as single timestamps are rounded (webm: to 1 ms) or, at edit lists, plainly off.
                samples = np.concatenate(self._chunks, axis=1)
                self._segments.append((statistics.median(self._offsets), samples))
        self._resampler, self._chunks, self._offsets, self._counted_s = None, [], [], 0.0
