"""Replace: a span of the stream, at severity 1 all of it, is another clip's (SyncDPO, arXiv 2605.12179)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from foleypref.training.negatives import Negative, Stream
from foleypref.training.negatives._time import FADE_S, start_of


class Replace(Negative):
    """The share of the clip that is replaced is the severity; where it lies is random."""

    needs: ClassVar[frozenset[str]] = frozenset({"other"})

    def apply(self, stream: Stream, severity: float, generator: torch.Generator) -> Tensor:
        """Put the other clip's content of the same time in a random span; waves cross-fade inside it."""
        if stream.other is None:
            raise ValueError(
                "replace: the stream brings no other clip's stream; at least two clips are needed"
            )
        total = len(stream)
        num = max(round(severity * total), 1)
        begin = start_of(total, num, generator)
        out, span = stream.x.clone(), slice(begin, begin + num)
        new = stream.other[span]
        if stream.kind == "wave":
            w = _fades(num, round(FADE_S * stream.rate), begin > 0, begin + num < total).to(new)
            new = w * new + (1 - w) * stream.x[span]
        out[span] = new
        return out


def _fades(num: int, fade: int, rise: bool, fall: bool) -> Tensor:
    """Return weights 1 with ramps of up to `fade` steps at the ends that have a neighbour."""
    w, fade = torch.ones(num), min(fade, num // 2)
    ramp = torch.linspace(0, 1, fade + 2)[1:-1]
    if rise:
        w[:fade] = ramp
    if fall:
        w[num - fade :] = ramp.flip(0)
    return w
