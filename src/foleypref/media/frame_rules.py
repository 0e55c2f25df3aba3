"""The two frame streams that condition MMAudio, read in one pass: 8 per second for CLIP, 25 for Synchformer.

MMAudio picks frames by two rules. "demo" is the rule of its demo, which users run: slot n shows the first
frame at or after n/fps. "training" is the rule that its training features were made by: ffmpeg's `fps`
filter, whose slot n shows the last frame that rounds to n or less. The two seldom agree, so a cache of
features must name its rule.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from foleypref.media.clip import collect_frames
from foleypref.media.decoding import Convert, FramePicker, MediaError, display_matrix, display_size, render

FrameRule = Literal["demo", "training"]

CLIP_FPS, CLIP_SIDE = 8, 384
SYNC_FPS, SYNC_SIDE = 25, 224
SEGMENT_FRAMES = 16  # at 25 per second: the fewest that Synchformer takes


class ConditioningFrames(NamedTuple):
    """clip_frames (C, 384, 384, 3), sync_frames (S, 224, 224, 3), uint8 RGB; duration_s that both cover."""

    clip_frames: np.ndarray
    sync_frames: np.ndarray
    duration_s: float


def read_conditioning_frames(
    path: str | Path, start_s: float = 0.0, duration_s: float = 8.0, rule: FrameRule = "demo"
) -> ConditioningFrames:
    """Read both frame streams of one window, upright: C = int(8·duration_s), S = int(25·duration_s).

    If the picture ends early, duration_s of the result is shorter. Raises MediaError if no picture decodes or
    less than 0.64 s of it is left, ValueError if duration_s itself is shorter or the rule is unknown.
    """
    if rule not in ("demo", "training"):
        raise ValueError(f"frame rule must be 'demo' or 'training', got {rule!r}")
    least = SEGMENT_FRAMES / SYNC_FPS
    if int(SYNC_FPS * duration_s) < SEGMENT_FRAMES:
        raise ValueError(f"duration_s must be at least {least} (one Synchformer segment), got {duration_s:g}")
    shown = lru_cache(maxsize=1)(shown_pixels)  # a frame that both streams pick is converted once
    make = FirstAtOrAfter if rule == "demo" else FramePicker
    clip = make(CLIP_FPS, duration_s, lambda frame, sar: clip_frame(shown(frame, sar)))
    sync = make(SYNC_FPS, duration_s, lambda frame, sar: sync_frame(shown(frame, sar)))
    collect_frames(path, [sync, clip], start_s=start_s)
    covered = shortened(duration_s, len(clip.frames), len(sync.frames), rule)
    if int(SYNC_FPS * covered) < SEGMENT_FRAMES:
        raise MediaError(
            f"{path}: only {covered:g} s of picture from {start_s:g} s on, MMAudio needs {least} s; "
            "use a longer video"
        )
    clip_frames = np.stack(clip.frames[: int(CLIP_FPS * covered)])
    return ConditioningFrames(clip_frames, np.stack(sync.frames[: int(SYNC_FPS * covered)]), covered)


def shortened(duration_s: float, num_clip: int, num_sync: int, rule: FrameRule) -> float:
    """Return the duration (seconds) that this many frames of each stream cover, at most `duration_s`.

    "demo" compares seconds, so 62 frames shorten 2.5 s to 2.48; "training" needs just int(25 · 2.5) = 62.
    """
    enough = num_clip >= int(CLIP_FPS * duration_s) and num_sync >= int(SYNC_FPS * duration_s)
    if rule == "training" and enough:
        return duration_s
    return min(duration_s, num_clip / CLIP_FPS, num_sync / SYNC_FPS)


def shown_pixels(frame: Any, sar: Fraction | None) -> np.ndarray:
    """Convert a decoded frame to (H, W, 3) uint8 RGB by PyAV's plain conversion, as upstream does.

    Frames that are turned, or whose pixels are not square, go through our bit-exact `render`, which differs
    by a grey level or so: upstream would leave them lying on their side or squeezed.
    """
    plain = display_matrix(frame) == (1, 0, 0, 1) and display_size(frame, sar) == (frame.width, frame.height)
    return frame.to_ndarray(format="rgb24") if plain else render(frame, None, sar)


def clip_frame(pixels: np.ndarray) -> np.ndarray:
    """Stretch (H, W, 3) uint8 to (384, 384, 3)."""
    return _resize(pixels, CLIP_SIDE, CLIP_SIDE)


def sync_frame(pixels: np.ndarray) -> np.ndarray:
    """Resize (H, W, 3) uint8 to a short side of 224, and crop the centre: (224, 224, 3)."""
    return resize_short(pixels, SYNC_SIDE, crop=True)


def resize_short(pixels: np.ndarray, side: int, *, crop: bool) -> np.ndarray:
    """Resize (H, W, 3) uint8 to a short side of `side`; `crop` keeps only the centre square."""
    height, width = pixels.shape[:2]
    long = int(side * max(height, width) / min(height, width))
    height, width = (side, long) if height <= width else (long, side)
    resized = _resize(pixels, height, width)
    if not crop:
        return resized
    top, left = round((height - side) / 2), round((width - side) / 2)  # half to even, as upstream
    return resized[top : top + side, left : left + side].copy()


def _resize(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    # On uint8 itself: in float and rounded afterwards, single pixels differ by up to 12 grey levels.
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    image = F.interpolate(image, (height, width), mode="bicubic", antialias=True, align_corners=False)
    return image[0].permute(1, 2, 0).contiguous().numpy()


class FirstAtOrAfter(FramePicker):
    """The "demo" rule: frame n is the first frame at or after n/fps, n/fps summed up in float64.

    The sum's rounding is part of the rule: in a 25 fps file at 25 fps, frame 6 (0.24 s) comes before slot 6
    (0.24000000000000002 s), which therefore shows frame 7. Frames after the window's end are not used.
    """

    def __init__(self, fps: float, duration_s: float, convert: Convert) -> None:
        super().__init__(fps, None, convert)
        self._step, self._next, self._end_s = 1 / fps, 0.0, duration_s

    def push(self, frame: Any, time: Fraction) -> None:
        """Take the next decoded frame, shown from `time` (seconds from the window's start)."""
        time = self._in_order(frame, time)
        self._pending, self._pixels = (frame, time), None
        self.done = float(time) > self._end_s
        while not self.done and float(time) >= self._next:
            self._keep()
            self._next += self._step

    def finish(self) -> None:
        """End the stream: no frame is held beyond its own time."""
