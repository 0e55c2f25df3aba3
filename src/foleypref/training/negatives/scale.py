"""Scale: the whole stream plays too fast or too slow, or (as `mode`) a wave is too soft.

SyncDPO (arXiv 2605.12179) is reported to name such a rule among its two best; we do not know what it scales.
Time is the default, because its rules distort temporal structure. A wave's pitch goes with its speed; latents
keep their pitch, and are smoothed where a position falls between two of them.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from foleypref.training.negatives import Negative, Stream
from foleypref.training.negatives._time import Fill, chance, filled, played, steps_of


class Scale(Negative):
    """Play at speed `max_factor`^±severity about a random moment; or at a gain of −`max_db` · severity."""

    mode: Literal["time", "amplitude"] = "time"
    max_factor: float = Field(2.0, gt=1, le=2)
    max_db: float = Field(20.0, gt=0)
    direction: Literal["either", "faster", "slower"] = "either"
    fill: Fill = "join"

    @property
    def modalities(self) -> frozenset[str]:
        """Sound and picture in time, but only sound in amplitude."""
        return frozenset({"audio", "video"} if self.mode == "time" else {"audio"})

    def apply(self, stream: Stream, severity: float, generator: torch.Generator) -> Tensor:
        """Stretch, shrink or soften the whole stream; one that ends early is filled from itself."""
        if self.mode == "amplitude":
            if stream.kind != "wave":
                raise ValueError(f"scale: {stream.kind} have no amplitude; distort media, or use mute")
            return stream.x * 10 ** (-self.max_db * severity / 20)
        faster, moment = chance(generator) < 0.5, chance(generator) * (len(stream) - 1)
        if self.direction != "either":
            faster = self.direction == "faster"
        factor = self.max_factor**severity
        speed = factor if faster else 1 / factor
        positions = moment + speed * (steps_of(len(stream)) - moment)
        return played(stream, filled(stream, positions, self.fill))
