"""The vocoder's anti-aliased activation, some channels at a time where a processor's cache is what limits it.

Up-sampling, Snake and down-sampling treat every channel by itself, and each passes over twice the sound's
samples several times. Done for all channels at once, as on a GPU, every pass of eight seconds goes out to
memory; a megabyte or so of channels stays in the cache through all of them.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NUMBERS_AT_ONCE = 1 << 20  # of the input; measured best of 2^16 to 2^26 on a processor with 2 MB a core


class SlicedActivation(nn.Module):
    """An `MMAudioActivation1d` of diffusers with the same keys and results: (B, C, N) -> (B, C, N)."""

    def __init__(self, whole: Any) -> None:
        super().__init__()
        self.act, self.upsample, self.downsample = whole.act, whole.upsample, whole.downsample

    def forward(self, x: Tensor) -> Tensor:
        """Slices on a CPU without gradients, else diffusers' own way."""
        if x.device.type != "cpu" or torch.is_grad_enabled():
            return self.downsample(self.act(self.upsample(x)))
        step = max(1, NUMBERS_AT_ONCE // max(1, x.shape[0] * x.shape[2]))
        found = torch.empty_like(x)
        for low in range(0, x.shape[1], step):
            part = slice(low, low + step)
            found[:, part] = self._some(x[:, part], part)
        return found

    def _some(self, x: Tensor, part: slice) -> Tensor:
        up, low, channels = self.upsample, self.downsample.lowpass, x.shape[1]
        kernel = up.filter.expand(channels, -1, -1)
        y = F.conv_transpose1d(_held(x, up.pad, up.pad), kernel, stride=up.stride, groups=channels)
        y = self._snake(y.mul_(up.ratio)[..., up.pad_left : -up.pad_right], part)
        y = _held(y, low.pad_left, low.pad_right)
        return F.conv1d(y, low.filter.expand(channels, -1, -1), stride=low.stride, groups=channels)

    def _snake(self, x: Tensor, part: slice) -> Tensor:
        """x + sin²(α x) / β in one buffer."""
        alpha = torch.exp(self.act.alpha[part])[None, :, None]
        beta = torch.exp(self.act.beta[part])[None, :, None]
        return (x * alpha).sin_().square_().mul_(1.0 / (beta + 1e-9)).add_(x)


def slice_activations(vocoder: nn.Module) -> None:
    """Put a `SlicedActivation` in the place of every activation, in place."""
    for parent in list(vocoder.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__ == "MMAudioActivation1d":
                setattr(parent, name, SlicedActivation(child))


def _held(x: Tensor, left: int, right: int) -> Tensor:
    """(B, C, N) -> (B, C, left + N + right), the ends held; a third of the time of `F.pad`'s replication."""
    num = x.shape[2]
    y = x.new_empty(*x.shape[:2], left + num + right)
    y[..., left : left + num] = x
    y[..., :left], y[..., left + num :] = x[..., :1], x[..., -1:]
    return y
