"""Find the moments of sounding events in a picture, for an oracle; built differently from the sync judge.

Letters: B batch, T frames (25 Hz).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn


def _conv(channels_in: int, channels_out: int) -> nn.Sequential:
    """Convolve over space and time; the picture's sides are halved."""
    return nn.Sequential(
        nn.Conv3d(channels_in, channels_out, 3, (1, 2, 2), padding=1),
        nn.GroupNorm(8, channels_out),
        nn.GELU(),
    )


class EventFinder(nn.Module):
    """One logit per frame: does a sound start here?"""

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv(3, 24), _conv(24, 32), _conv(32, 48))
        self.flat = nn.Linear(48 * 9, width)
        self.time = nn.GRU(width, width // 2, batch_first=True, bidirectional=True)
        self.out = nn.Linear(2 * width, 1)

    def forward(self, frames: UInt8[Tensor, "B T 48 48 3"]) -> Float[Tensor, "B T"]:
        x = F.avg_pool3d(frames.permute(0, 4, 1, 2, 3).float() / 127.5 - 1, (1, 2, 2))  # (B, 3, T, 24, 24)
        x = self.body(x).permute(0, 2, 1, 3, 4).flatten(2)  # (B, T, 432)
        x = F.gelu(self.flat(x))
        return self.out(torch.cat([x, self.time(x)[0]], dim=-1))[..., 0]
