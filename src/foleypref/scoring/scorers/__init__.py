"""Scorers: one item in, raw numbers out. Judges may be rewards; oracles know the truth and never are.

A scorer is not a metric: it looks at one candidate. Scores are stored raw with scorer and version, and
combining them is explicit and comes later (`scoring/scorers/audioscore.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from foleypref.media.streams import FrameStream
from foleypref.settings.parts import Part
from foleypref.workspace.records import Score

NEEDS = ("audio", "video", "text", "reference", "truth")


@dataclass(frozen=True)
class ScoreItem:
    """One candidate as arrays, with what surrounds it. One decode of a clip feeds every scorer.

    Candidates of one clip share its arrays, so what a scorer makes of the picture it can make once a clip:
    `clip_id` is equal then, and never empty.
    """

    candidate_id: str
    wave: np.ndarray  # (N,) float32, the mean of all channels
    sample_rate: int  # Hz
    prompt: str = ""
    frames: Mapping[str, np.ndarray] = field(default_factory=dict)  # (T, H, W, 3) uint8 by stream key
    reference: np.ndarray | None = None  # the clip's own soundtrack, (N,) float32, mono
    reference_rate: int = 0  # Hz of `reference`
    meta: Mapping[str, Any] = field(default_factory=dict)  # only scorers that need "truth" may read it
    channels: np.ndarray | None = None  # (C, N) float32 where the sound has more than one channel
    seconds: float | None = None  # how long the evaluated window is; None: as long as the sound
    clip_id: str = ""

    @property
    def sound(self) -> np.ndarray:
        """All channels, (C, N)."""
        return self.wave[None] if self.channels is None else self.channels

    @property
    def evaluated_s(self) -> float:
        """Seconds that are judged."""
        return len(self.wave) / self.sample_rate if self.seconds is None else self.seconds


class Judgement(NamedTuple):
    """What a scorer found out in one pass over some items."""

    scores: list[Score]
    embeddings: dict[str, Tensor]  # (len(items), ...) each; a row of NaN where there is none


class Scorer(Protocol):
    """The whole contract of a scorer. `PlainScorer` and `NetworkScorer` write most of it."""

    needs: frozenset[str]
    dimensions: tuple[str, ...]
    higher_is_better: dict[str, bool]
    embeddings: tuple[str, ...]
    """Names of the tensors `embed` returns; empty if it has none."""

    @property
    def streams(self) -> tuple[FrameStream, ...]:
        """The frames it looks at: in `ScoreItem.frames` under their keys, where the clip has a picture."""
        ...

    @property
    def version(self) -> str:
        """Changes when weights or method change; stored with each score."""
        ...

    def load(self, device: str | torch.device = "cpu") -> Self:
        """Read the weights. Returns itself."""
        ...

    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        """A score per item and dimension, in any order. What cannot be judged is unscored with a reason."""
        ...

    def embed(self, items: Sequence[ScoreItem]) -> dict[str, Tensor]:
        """Embeddings for set metrics, each (len(items), D)."""
        ...

    def judge(self, items: Sequence[ScoreItem]) -> Judgement:
        """Both, for the price of one pass of the network."""
        ...


class _Base(Part):
    embeddings: ClassVar[tuple[str, ...]] = ()
    asides: ClassVar[tuple[str, ...]] = ()
    """Dimensions that are no quality (how long, whether speech): no reward reads them unless told to."""

    @property
    def streams(self) -> tuple[FrameStream, ...]:
        """No frames."""
        return ()

    def load(self, device: str | torch.device = "cpu") -> Self:
        """Nothing to load."""
        return self


class PlainScorer(_Base):
    """What a scorer that writes `score` need not write again; `embed` too if it has embeddings."""

    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        """To be written."""
        raise NotImplementedError

    def embed(self, items: Sequence[ScoreItem]) -> dict[str, Tensor]:
        """None."""
        return {}

    def judge(self, items: Sequence[ScoreItem]) -> Judgement:
        """One after the other."""
        return Judgement(self.score(items), self.embed(items))


class NetworkScorer(_Base):
    """What a scorer that writes `judge`, scores and embeddings at once, need not write again."""

    def judge(self, items: Sequence[ScoreItem]) -> Judgement:
        """To be written."""
        raise NotImplementedError

    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        """The scores alone."""
        return self.judge(items).scores

    def embed(self, items: Sequence[ScoreItem]) -> dict[str, Tensor]:
        """The embeddings alone."""
        return self.judge(items).embeddings


def is_oracle(scorer: Scorer) -> bool:
    """True for scorers that read the truth; they measure, they never reward."""
    return "truth" in scorer.needs


def is_silent(wave: np.ndarray, threshold_db: float = -70.0) -> bool:
    """True if a wave has no sample worth judging: its level is under `threshold_db` dBFS, or it is empty."""
    if wave.size == 0:
        return True
    level = float(np.sqrt(np.mean(np.square(wave, dtype=np.float64))))
    return not level > 10 ** (threshold_db / 20)
