"""Shift: one stream plays too early or too late by a stated time; the gap is filled with real material.

SyncDPO (arXiv 2605.12179) takes one stream from a later window of the same file. This rule does so too if
more of the source is known (`Stream.after`); a clip that ends with its window is filled from itself.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from foleypref.training.negatives import Negative, Stream
from foleypref.training.negatives._time import Fill, chance, filled, played, steps_of


class Shift(Negative):
    """Displace the stream by `min_s` (just above severity 0) to `max_s` (severity 1), in whole steps.

    Never by more than half of the clip: beyond that the filling would be most of it. In whole steps, because
    latents interpolated between two frames are smoother than encoded ones, which would give the rule away.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"after"})

    min_s: float = Field(0.1, ge=0)
    max_s: float = Field(2.0, gt=0)
    direction: Literal["either", "later", "earlier"] = "either"
    fill: Fill = "join"

    def steps(self, stream: Stream, severity: float) -> int:
        """Return by how many steps a severity above 0 shifts a stream."""
        seconds = self.min_s + severity * (self.max_s - self.min_s)
        return min(max(round(seconds * stream.rate), 1), len(stream) // 2)

    def apply(self, stream: Stream, severity: float, generator: torch.Generator) -> Tensor:
        """Move everything later or earlier by the same time."""
        by, later = self.steps(stream, severity), chance(generator) < 0.5
        if self.direction != "either":
            later = self.direction == "later"
        positions = steps_of(len(stream)) + (-by if later else by)
        return played(stream, filled(stream, positions, self.fill, apart=by))
