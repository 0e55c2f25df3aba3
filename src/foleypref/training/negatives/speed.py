"""Speed: within a span the stream runs too fast and then too slow, or the other way, and is in step again.

It follows the local changes of speed in JavisDiT's contrastive rules (×0.5 or ×2 over a third of a clip or
more). The two parts cancel out, so there is no cut, nothing to fill, and no edge that would give it away.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from foleypref.training.negatives import Negative, Stream
from foleypref.training.negatives._time import chance, played, start_of, steps_of


class Speed(Negative):
    """Play at speed f = `max_factor`^severity over 1/(1 + f) of the span and at 1/f over the rest of it."""

    max_factor: float = Field(2.0, gt=1, le=2)
    share: float = Field(2 / 3, ge=1 / 3, le=1)  # of the clip that the span takes

    def apply(self, stream: Stream, severity: float, generator: torch.Generator) -> Tensor:
        """Play the span along a broken line whose ends both lie on the diagonal."""
        total, f = len(stream), self.max_factor**severity
        num = max(round(self.share * total), 2)
        begin = start_of(total, num, generator)
        t = steps_of(num)
        end = num - 1
        # fast first: f·t = end − (end − t)/f at t = end/(1 + f)
        fast = torch.minimum(f * t, end - (end - t) / f)
        slow = torch.maximum(t / f, end - f * (end - t))
        positions = steps_of(total)
        positions[begin : begin + num] = begin + (fast if chance(generator) < 0.5 else slow)
        return played(stream, positions)
