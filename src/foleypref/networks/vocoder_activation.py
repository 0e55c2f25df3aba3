"""The vocoder's anti-aliased activation, computed for some channels at a time to stay in a CPU's cache.

Up-sampling, Snake and down-sampling treat every channel by itself, and each passes several times over twice
the sound's samples. For all channels at once, as on a GPU, every pass over eight seconds goes to main memory;
a megabyte or so of channels stays in the cache through all passes.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NUMBERS_AT_ONCE = 1 << 20  # of the input; measured best of 2^16 to 2^26 on a processor with 2 MB a core


class SlicedActivation(nn.Module):
    """diffusers' `MMAudioActivation1d` with the same keys and results: (B, C, N) -> (B, C, N)."""

    def __init__(self, whole: Any) -> None:
        super().__init__()
        self.act, self.upsample, self.downsample = whole.act, whole.upsample, whole.downsample

    def forward(self, x: Tensor) -> Tensor:
        """Run in slices on a CPU without gradients, else as diffusers does."""
        if x.device.type != "cpu" or torch.is_grad_enabled():
            return self.downsample(self.act(self.upsample(x)))
        step = max(1, NUMBERS_AT_ONCE // max(1, x.shape[0] * x.shape[2]))
        out = torch.empty_like(x)
        for low in range(0, x.shape[1], step):
            part = slice(low, low + step)
            out[:, part] = self._some(x[:, part], part)
        return out

    def _some(self, x: Tensor, part: slice) -> Tensor:
        up, low, channels = self.upsample, self.downsample.lowpass, x.shape[1]
        kernel = up.filter.expand(channels, -1, -1)
        y = F.conv_transpose1d(_held(x, up.pad, up.pad), kernel, stride=up.stride, groups=channels)
        y = self._snake(y.mul_(up.ratio)[..., up.pad_left : -up.pad_right], part)
        y = _held(y, low.pad_left, low.pad_right)
        return F.conv1d(y, low.filter.expand(channels, -1, -1), stride=low.stride, groups=channels)

    def _snake(self, x: Tensor, part: slice) -> Tensor:
        """Compute x + sin²(α x) / β in one buffer."""
        alpha = torch.exp(self.act.alpha[part])[None, :, None]
        beta = torch.exp(self.act.beta[part])[None, :, None]
        return (x * alpha).sin_().square_().mul_(1.0 / (beta + 1e-9)).add_(x)


def slice_activations(vocoder: nn.Module) -> None:
    """Replace every activation of a vocoder by a `SlicedActivation`, in place."""
    for parent in list(vocoder.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__ == "MMAudioActivation1d":
                setattr(parent, name, SlicedActivation(child))


def _held(x: Tensor, left: int, right: int) -> Tensor:
    """Pad (B, C, N) by repeating its ends; takes a third of the time of `F.pad` with replication."""
    num = x.shape[2]
    y = x.new_empty(*x.shape[:2], left + num + right)
    y[..., left : left + num] = x
    y[..., :left], y[..., left + num :] = x[..., :1], x[..., -1:]
    return y
