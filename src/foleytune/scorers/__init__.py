"""Scorers: one item in, raw numbers out. Judges may be rewards; oracles know the truth and never are.

A scorer is not a metric: it looks at one candidate. Scores are stored raw with scorer and version, and
combining them is explicit and comes later (`scorers/audioscore.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from foleytune.plugins import Part
from foleytune.records import Score

NEEDS = ("audio", "video", "text", "reference", "truth")
FRAMES_FPS, FRAMES_SIDE = 25.0, 48  # of `ScoreItem.frames`, short side then centre square


@dataclass(frozen=True)
class ScoreItem:
    """One candidate as arrays, with what surrounds it. One decode of a clip feeds every scorer."""

    candidate_id: str
    wave: np.ndarray  # (N,) float32
    sample_rate: int  # Hz
    prompt: str = ""
    frames: np.ndarray | None = None  # (T, H, W, 3) uint8
    fps: float = 0.0  # of `frames`
    reference: np.ndarray | None = None  # the clip's own soundtrack, (N,) float32, same rate
    meta: Mapping[str, Any] = field(default_factory=dict)  # only scorers that need "truth" may read it


class Scorer(Protocol):
    """The whole contract of a scorer."""

    needs: frozenset[str]
    dimensions: tuple[str, ...]
    higher_is_better: dict[str, bool]
    embeddings: tuple[str, ...]
    """Names of the tensors `embed` returns; empty if it has none."""

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


class PlainScorer(Part):
    """What a scorer without weights and without embeddings need not write again."""

    embeddings: ClassVar[tuple[str, ...]] = ()

    def load(self, device: str | torch.device = "cpu") -> Self:
        """Nothing to load."""
        return self

    def embed(self, items: Sequence[ScoreItem]) -> dict[str, Tensor]:
        """None."""
        return {}


def is_oracle(scorer: Scorer) -> bool:
    """True for scorers that read the truth; they measure, they never reward."""
    return "truth" in scorer.needs


def is_silent(wave: np.ndarray, threshold_db: float = -70.0) -> bool:
    """True if a wave has no sample worth judging: its level is under `threshold_db` dBFS, or it is empty."""
    if wave.size == 0:
        return True
    level = float(np.sqrt(np.mean(np.square(wave, dtype=np.float64))))
    return not level > 10 ** (threshold_db / 20)
