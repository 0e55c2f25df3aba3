"""Negatives: rules that make a worse soundtrack (or video) out of a good one, for SyncDPO (arXiv 2605.12179).

A rule acts on one stream of one clip: a wave, frames, or latents, time first. Contract: severity 0 changes
nothing and 1 is coarse; the result moves farther from the original as severity grows, in the mean over
generators; the same generator gives the same bytes; shape and dtype are kept and the input is left alone.

Letters: N steps of time, D channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from jaxtyping import Shaped
from torch import Tensor

from foleypref.settings.parts import Part

Modality = Literal["audio", "video"]
Kind = Literal["wave", "frames", "latents"]
NEEDS = ("after", "other", "silence")
"""What a rule may ask for beside the stream: `after` is welcome, the others are a must."""


@dataclass(frozen=True)
class Stream:
    """One modality of one clip.

    x: a wave (N,) in [-1, 1], frames (N, H, W, 3) uint8 or latents (N, ...), at `rate` steps a second.
    """

    x: Shaped[Tensor, "N ..."]
    rate: float
    kind: Kind
    modality: Modality = "audio"
    silence: Tensor | None = None  # latents of silence, for rules that need them
    other: Tensor | None = None  # another clip's stream of the same shape, likewise
    after: Shaped[Tensor, "M ..."] | None = None  # what follows x in its source, where that is known

    @property
    def material(self) -> Shaped[Tensor, "NM ..."]:
        """`x` and what follows it."""
        return self.x if self.after is None else torch.cat([self.x, self.after])

    def __len__(self) -> int:
        return len(self.x)


class Negative(Protocol):
    """The whole contract of a rule."""

    @property
    def modalities(self) -> frozenset[str]:
        """What it can act on."""
        ...

    @property
    def needs(self) -> frozenset[str]:
        """What a stream must bring besides `x`, of `NEEDS`."""
        ...

    def distort(self, stream: Stream, severity: float, generator: torch.Generator) -> Shaped[Tensor, "N ..."]:
        """A worse `stream.x`. ValueError for a stream that the rule makes no sense on."""
        ...


class Rule(Part):
    """What a rule that writes `apply` need not write again: the checks, and severity 0."""

    @property
    def modalities(self) -> frozenset[str]:
        """Sound and picture."""
        return frozenset({"audio", "video"})

    @property
    def needs(self) -> frozenset[str]:
        """Nothing."""
        return frozenset()

    def distort(self, stream: Stream, severity: float, generator: torch.Generator) -> Shaped[Tensor, "N ..."]:
        """A worse `stream.x`: a copy at severity 0, else what `apply` makes."""
        self._check(stream, severity)
        if severity == 0:
            return stream.x.clone()
        out = self.apply(stream, severity, generator)
        assert (out.shape, out.dtype) == (stream.x.shape, stream.x.dtype)
        return out

    def apply(self, stream: Stream, severity: float, generator: torch.Generator) -> Tensor:
        """To be written: a new tensor, for a severity in (0, 1]."""
        raise NotImplementedError

    def _check(self, stream: Stream, severity: float) -> None:
        name = self.part_name()
        if not 0 <= severity <= 1:
            raise ValueError(f"{name}: severity is from 0 to 1, found {severity!r}")
        if stream.modality not in self.modalities:
            raise ValueError(
                f"{name} acts on {' and '.join(sorted(self.modalities))}, found {stream.modality}; "
                "leave that modality to other rules"
            )
        if len(stream) < 2:
            raise ValueError(f"{name}: a stream of {len(stream)} step has no time to distort")
        for need in sorted(self.needs - {"after"}):
            brought = getattr(stream, need)
            if brought is not None and brought.shape != stream.x.shape:
                found, own = tuple(brought.shape), tuple(stream.x.shape)
                raise ValueError(
                    f"{name}: `{need}` is {found} beside a stream of {own}; give it the same shape"
                )
