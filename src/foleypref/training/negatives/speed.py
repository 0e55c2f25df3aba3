"""Speed: within a span the stream runs too fast and then too slow, or the other way, and is in step again.

After the local changes of speed in JavisDiT's contrastive rules (×0.5 or ×2 over at least a third of a clip).
The two parts make up for each other, so there is no cut, nothing to fill, and no edge that would tell.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from foleypref.training.negatives import Rule, Stream
from foleypref.training.negatives._time import chance, played, start_of, steps_of


class Speed(Rule):
    """Speeds f = `max_factor`^severity over 1/(1 + f) of the span and 1/f over the rest of it."""

    max_factor: float = Field(2.0, gt=1, le=2)
    share: float = Field(2 / 3, ge=1 / 3, le=1)  # of the clip that the span takes

    def factor(self, severity: float) -> float:
        """The higher of the two speeds."""
        return self.max_factor**severity

    def apply(self, stream: Stream, severity: float, generator: torch.Generator) -> Tensor:
        """A broken line through the span, both ends on the diagonal."""
        total, f = len(stream), self.factor(severity)
        num = max(round(self.share * total), 2)
        begin = start_of(total, num, generator)
        t = steps_of(num)
        end = num - 1
        fast = torch.minimum(
            f * t, end - (end - t) / f
        )  # fast first: f·t = end − (end − t)/f at t = end/(1 + f)
        slow = torch.maximum(t / f, end - f * (end - t))
        positions = steps_of(total)
        positions[begin : begin + num] = begin + (fast if chance(generator) < 0.5 else slow)
        return played(stream, positions)
