"""Negatives: rules that make a worse soundtrack (or video) out of a good one, for SyncDPO (arXiv 2605.12179).

A rule acts on one stream of one clip: a wave, frames, or latents, time first. Contract: severity 0 changes
nothing and 1 is coarse; averaged over generators, the result moves farther from the original as severity
grows; the same generator gives the same bytes; shape and dtype are kept, and the input is not changed.

Letters: N steps of time, D channels.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, final

import torch
from jaxtyping import Shaped
from torch import Tensor

from foleypref.settings.parts import FromDrawer, Part, part_help

Modality = Literal["audio", "video"]
Kind = Literal["wave", "frames", "latents"]
NEEDS = ("after", "other", "silence")
"""What a rule may ask a stream to bring; it works without `after`, but not without the others."""


@dataclass(frozen=True)
class Stream:
    """One modality of one clip.

    x: a wave (N,) in [-1, 1], frames (N, H, W, 3) uint8 or latents (N, ...), at `rate` steps per second.
    """

    x: Shaped[Tensor, "N ..."]
    rate: float
    kind: Kind
    modality: Modality = "audio"
    silence: Tensor | None = None  # latents of silence, of the shape of x
    other: Tensor | None = None  # another clip's stream, of the shape of x
    after: Shaped[Tensor, "M ..."] | None = None  # what follows x in its source, if that is known

    @property
    def material(self) -> Shaped[Tensor, "NM ..."]:
        """`x` and, if it is known, what follows it in the source."""
        return self.x if self.after is None else torch.cat([self.x, self.after])

    def __len__(self) -> int:
        return len(self.x)


class Negative(Part):
    """The base of every rule: it checks the stream and handles severity 0, a rule writes `apply`."""

    needs: ClassVar[frozenset[str]] = frozenset()
    """What a stream must bring besides `x`, of `NEEDS`."""

    @property
    def modalities(self) -> frozenset[str]:
        """The modalities that the rule can act on."""
        return frozenset({"audio", "video"})

    @final
    def distort(self, stream: Stream, severity: float, generator: torch.Generator) -> Shaped[Tensor, "N ..."]:
        """Return a worse `stream.x`; a copy at severity 0.

        Raises ValueError for a severity outside [0, 1] and for a stream that the rule cannot act on.
        """
        self._check(stream, severity)
        if severity == 0:
            return stream.x.clone()
        out = self.apply(stream, severity, generator)
        assert (out.shape, out.dtype) == (stream.x.shape, stream.x.dtype)
        return out

    @abstractmethod
    def apply(self, stream: Stream, severity: float, generator: torch.Generator) -> Tensor:
        """Return the distorted stream as a new tensor, for a severity in (0, 1]."""

    def _check(self, stream: Stream, severity: float) -> None:
        name = self.part_name()
        if not 0 <= severity <= 1:
            raise ValueError(f"{name}: severity is from 0 to 1, found {severity!r}")
        if stream.modality not in self.modalities:
            raise ValueError(
                f"{name} acts on {' and '.join(sorted(self.modalities))}, found {stream.modality}; "
                "use another rule for that modality"
            )
        if len(stream) < 2:
            raise ValueError(
                f"{name}: a stream of {len(stream)} step cannot be distorted in time; it needs 2 or more"
            )
        for need in sorted(self.needs - {"after"}):
            brought = getattr(stream, need)
            if brought is not None and brought.shape != stream.x.shape:
                raise ValueError(
                    f"{name}: `{need}` is {tuple(brought.shape)} beside a stream of {tuple(stream.x.shape)}; "
                    "give it the same shape"
                )


NegativePart = Annotated[Negative, FromDrawer("negatives"), part_help("negatives")]
