"""Freeze: over a span the stream stands still, or swings to and fro over a grain, then goes on in time.

SyncDPO's group (arXiv 2605.12179) plays the first few frames to and fro over a whole clip, which is severity
1 here. For sound, a grain of latents is held or swung in the same way, and a wave swings over a short grain.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from foleypref.training.negatives import Negative, Stream
from foleypref.training.negatives._time import played, start_of, steps_of


class Freeze(Negative):
    """Severity is the span's share of the clip; grains are up to `grain_s` long, 0 holds one step.

    A wave's grain is `grain_s` long and at least `min_grain_s`, because one sample held would be silence.
    """

    grain_s: float = Field(0.2, ge=0)
    min_grain_s: float = Field(0.05, gt=0)

    def apply(self, stream: Stream, severity: float, generator: torch.Generator) -> Tensor:
        """Play the span as a swing to and fro over its first grain."""
        total = len(stream)
        num = max(round(severity * total), 2)
        begin = start_of(total, num, generator)
        longest = min(max(int(self.grain_s * stream.rate), 1), num - 1)
        grain = start_of(longest, 1, generator) + 1
        if stream.kind == "wave":
            grain = min(max(round(max(self.grain_s, self.min_grain_s) * stream.rate), 1), num - 1)
        positions = steps_of(total)
        swing = steps_of(num) % max(2 * grain - 2, 1)
        positions[begin : begin + num] = begin + torch.minimum(swing, 2 * grain - 2 - swing).clamp(min=0)
        return played(stream, positions)
