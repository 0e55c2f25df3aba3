"""AV-Align: do onsets of the sound meet peaks of motion in the picture? Intersection over union, no weights.

The measure of TempoTokens (arXiv 2309.16429) with other parts, so values are not comparable with published
ones: motion is pyramidal Lucas-Kanade flow on a small grey picture, not Farneback's; onsets are
those of `scoring/scorers/onset.py`, not librosa's.

Letters: T frames, N pairs of frames, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from foleypref.media.streams import FrameStream, square
from foleypref.scoring.scorers import Judgement, ScoreItem, Scorer, Unscored, Value, is_silent
from foleypref.scoring.scorers.onset import onset_times_s

FPS = 25.0
LEVELS, ITERATIONS = 3, 3  # of the pyramid, and on each of its levels
WINDOW = 5  # pixels, taken twice: what moves together
DAMPING = 3e-4  # added to squared gradients of grey in [0, 1]: noise on flat ground is not motion
PAIRS_AT_ONCE = 64
LUMA = (0.299, 0.587, 0.114)


class AvAlign(Scorer):
    """av_align in [0, 1]. `least_motion` is in short sides per frame, the mean over the picture.

    Unscored: silence, no motion picture, and clips with neither onset nor peak, where the ratio is 0/0.
    """

    side: int = Field(48, ge=16)  # pixels of the picture that flow is measured in; 48 is the world's own
    least_motion: float = Field(0.001, ge=0.0)

    needs: ClassVar[frozenset[str]] = frozenset({"audio", "video"})
    higher_is_better: ClassVar[dict[str, bool]] = {"av_align": True}

    @property
    def streams(self) -> tuple[FrameStream, ...]:
        """25 a second, the centre square."""
        return (square(FPS, self.side),)

    @property
    def version(self) -> str:
        """The definition's number and the settings."""
        return f"1-{self.side}-{self.least_motion:g}"

    def judge(self, items: Sequence[ScoreItem]) -> Judgement:
        """Compare onsets with peaks of motion, which are measured once per clip."""
        peaks: dict[str, np.ndarray] = {}
        return Judgement({"av_align": [self._value(item, peaks) for item in items]}, {})

    def _value(self, item: ScoreItem, peaks: dict[str, np.ndarray]) -> Value:
        if is_silent(item.wave):
            return Unscored("silent")
        frames = item.frames.get(self.streams[0].key)
        if frames is None or len(frames) < 4:  # three flows: the least that can have a peak
            return Unscored("no motion picture")
        clip = item.clip_id or item.candidate_id
        if clip not in peaks:
            peaks[clip] = motion_peaks_s(motion(frames), self.least_motion)
        seconds = len(frames) / FPS if item.seconds is None else item.seconds
        wave = item.wave[: round(seconds * item.sample_rate)]
        heard, seen = onset_times_s(wave, item.sample_rate), peaks[clip][peaks[clip] < seconds]
        if len(heard) + len(seen) == 0:
            return Unscored("neither an onset in the sound nor a peak of motion in the picture")
        return intersection_over_union(heard, seen, 1 / FPS)


def intersection_over_union(heard: np.ndarray, seen: np.ndarray, within_s: float) -> float:
    """Return matched onsets and peaks over the union of both, all times in s; NaN if there are neither.

    In order of time, each onset takes one free peak within `within_s`.
    """
    free = [float(time) for time in seen]
    matches = 0
    for onset in heard:
        near = next((time for time in free if abs(time - onset) <= within_s + 1e-9), None)
        if near is not None:
            free.remove(near)
            matches += 1
    union = len(heard) + len(seen) - matches
    return matches / union if union else float("nan")


def motion_peaks_s(motion: np.ndarray, least: float) -> np.ndarray:
    """Return the times in seconds of the local maxima of motion (T - 1,) that reach `least`.

    Motion between two frames is dated by the second frame, which shows it first.
    """
    middle = motion[1:-1]
    peak = (middle > motion[:-2]) & (middle >= motion[2:]) & (middle >= least)
    return (np.flatnonzero(peak) + 2) / FPS


@torch.inference_mode()
def motion(frames: np.ndarray) -> np.ndarray:
    """Return the mean length of the flow between frames (T, H, W, 3) uint8: (T - 1,), in short sides."""
    grey = (torch.from_numpy(frames).float() / 255 @ torch.tensor(LUMA))[:, None]  # (T, 1, H, W)
    pairs = zip(grey[:-1].split(PAIRS_AT_ONCE), grey[1:].split(PAIRS_AT_ONCE))
    lengths = [optical_flow(first, second).norm(dim=1).mean((1, 2)) for first, second in pairs]
    return (torch.cat(lengths) / min(grey.shape[2:])).numpy()


def optical_flow(
    first: Float[Tensor, "N 1 H W"], second: Float[Tensor, "N 1 H W"]
) -> Float[Tensor, "N 2 H W"]:
    """Return how far pixels of `first` moved in `second`: (x, y) in pixels, by pyramidal Lucas-Kanade."""
    pyramid = [(first, second)]
    while len(pyramid) < LEVELS and min(pyramid[-1][0].shape[2:]) >= 4 * WINDOW:
        pyramid.append((F.avg_pool2d(pyramid[-1][0], 2), F.avg_pool2d(pyramid[-1][1], 2)))
    flow = first.new_zeros(len(first), 2, *pyramid[-1][0].shape[2:])
    for before, after in reversed(pyramid):
        if flow.shape[2:] != before.shape[2:]:
            flow = 2 * F.interpolate(flow, before.shape[2:], mode="bilinear", align_corners=False)
        for _ in range(ITERATIONS):
            flow = flow + _step(before, _warped(after, flow))
    return flow


def _warped(image: Tensor, flow: Tensor) -> Tensor:
    """Sample an image (N, 1, H, W) where the flow leads; beyond the border, repeat its last pixel."""
    height, width = image.shape[2:]
    x = torch.arange(width) + flow[:, 0]
    y = torch.arange(height)[:, None] + flow[:, 1]
    grid = torch.stack([2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1], dim=-1)
    return F.grid_sample(image, grid, padding_mode="border", align_corners=True)


def _step(before: Tensor, after: Tensor) -> Tensor:
    """Return the displacement that best explains the remaining difference, at most 1 pixel: (N, 2, H, W)."""
    mean = F.pad((before + after) / 2, (1, 1, 1, 1), mode="replicate")
    gx, gy = (
        (mean[..., 1:-1, 2:] - mean[..., 1:-1, :-2]) / 2,
        (mean[..., 2:, 1:-1] - mean[..., :-2, 1:-1]) / 2,
    )
    gt = after - before
    xx, yy, xy = _local(gx * gx) + DAMPING, _local(gy * gy) + DAMPING, _local(gx * gy)
    xt, yt = _local(gx * gt), _local(gy * gt)
    step = torch.cat([xy * yt - yy * xt, xy * xt - xx * yt], dim=1) / (xx * yy - xy * xy)
    return step.clamp(-1, 1)


def _local(x: Tensor) -> Tensor:
    """Return the mean around each pixel; near ones weigh more."""
    for _ in range(2):
        x = F.avg_pool2d(x, WINDOW, 1, WINDOW // 2, count_include_pad=False)
    return x
