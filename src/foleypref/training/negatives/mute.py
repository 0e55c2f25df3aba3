"""Mute: a span of the sound, or all of it, goes down to −54 dB; in latents, over to those of silence."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from foleypref.training.negatives import Negative, Stream
from foleypref.training.negatives._time import FADE_S, start_of


class Mute(Negative):
    """Severity is the span's share of the clip, or in `mode` "gain" the share of `depth_db` on all of it.

    At severity 1 both modes multiply the waveform by 0.002, as SyncDPO's group masks sound. Half way to
    silence in latents is no level in dB, because the codec is not linear in it.
    """

    modalities: ClassVar[frozenset[str]] = frozenset({"audio"})  # a picture has no silence, see `freeze`
    needs: ClassVar[frozenset[str]] = frozenset({"silence"})  # a wave needs none

    mode: Literal["span", "gain"] = "span"
    depth_db: float = Field(54.0, gt=0)

    def apply(self, stream: Stream, severity: float, generator: torch.Generator) -> Tensor:
        """Fade a wave down and up over a few milliseconds, or step from latents to those of silence."""
        total = len(stream)
        depth = torch.full((total,), severity)
        if self.mode == "span":
            num = max(round(severity * total), 1)
            depth = _span(total, start_of(total, num, generator), num, round(FADE_S * stream.rate))
        if stream.kind == "wave":
            return stream.x * 10 ** (-self.depth_db * depth.to(stream.x) / 20)
        if stream.silence is None:
            raise ValueError("mute: the stream of latents brings no latents of silence; set `silence`")
        w = depth.reshape(-1, *[1] * (stream.x.ndim - 1)).to(stream.x)
        return stream.x + w * (stream.silence.to(stream.x) - stream.x)


def _span(total: int, begin: int, num: int, fade: int) -> Tensor:
    """Return 1 in the span and 0 outside, with ramps of `fade` steps inside each end that has a neighbour."""
    steps = torch.arange(total)
    rise = (steps - begin + 1) / (fade + 1) if begin > 0 else torch.ones(total)
    fall = (begin + num - steps) / (fade + 1) if begin + num < total else torch.ones(total)
    inside = (steps >= begin) & (steps < begin + num)
    return torch.where(inside, torch.minimum(rise, fall).clamp(0, 1), torch.zeros(total))
