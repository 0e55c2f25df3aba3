"""Shuffle: neighbouring segments of the stream in another order; nothing is lost, nothing is added."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from foleypref.training.negatives import Negative, Stream
from foleypref.training.negatives._time import played, start_of, steps_of


class Shuffle(Negative):
    """Cut the clip in `num_segments`, of which 2 (just above severity 0) to all (at 1) change places."""

    num_segments: int = Field(8, ge=2)

    def bounds(self, num: int) -> list[int]:
        """Return where the segments of a stream of `num` steps begin, and its end."""
        segments = min(self.num_segments, num)
        return [round(i * num / segments) for i in range(segments + 1)]

    def apply(self, stream: Stream, severity: float, generator: torch.Generator) -> Tensor:
        """Permute a random run of neighbouring segments in one cycle, so that none keeps its place."""
        bounds = self.bounds(len(stream))
        segments = len(bounds) - 1
        moved = min(max(round(severity * segments), 2), segments)
        first = start_of(segments, moved, generator)
        order = list(range(segments))
        for last in range(first + moved - 1, first, -1):  # Sattolo's algorithm
            other = first + start_of(last - first, 1, generator)
            order[last], order[other] = order[other], order[last]
        steps = steps_of(len(stream))
        return played(stream, torch.cat([steps[bounds[i] : bounds[i + 1]] for i in order]))
