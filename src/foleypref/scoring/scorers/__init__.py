"""Scorers: one item in, raw numbers out. Judges may be rewards; oracles know the truth and never are.

A scorer is not a metric: it looks at one candidate. It returns values; whoever asked writes them down as
`Score` records with the scorer's name and version. Values are stored raw, and combining them is explicit and
comes later (`scoring/scorers/audioscore.py`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from foleypref.media.streams import FrameStream
from foleypref.settings.parts import Part, build
from foleypref.workspace.records import Score

N = TypeVar("N")

NEEDS = ("audio", "video", "text", "reference", "truth")


@dataclass(frozen=True)
class ScoreItem:
    """One candidate as arrays, with its clip's caption, picture, sound and truth.

    Candidates with one `clip_id`, which is then not empty, share the clip's arrays, so a scorer may embed the
    picture once per clip.
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
        """The sound with all its channels, (C, N)."""
        return self.wave[None] if self.channels is None else self.channels

    @property
    def evaluated_s(self) -> float:
        """Length of the evaluated window in seconds."""
        return len(self.wave) / self.sample_rate if self.seconds is None else self.seconds


class Unscored(NamedTuple):
    """Stands in a list of values for one that could not be given, and says why."""

    reason: str


Value = float | Unscored


class Judgement(NamedTuple):
    """Everything a scorer says about a batch of B items in one pass."""

    values: dict[str, list[Value]]
    """By dimension, B each, in the order of the items."""
    embeddings: dict[str, Tensor]
    """By name, (B, ...) each; a row of NaN where there is no embedding."""

    def column(self, dimension: str) -> np.ndarray:
        """Return the values of one dimension, (B,) float64, NaN where unscored."""
        values = self.values[dimension]
        return np.array([np.nan if isinstance(v, Unscored) else v for v in values], np.float64)

    def records(self, scorer: str, version: str, items: Sequence[ScoreItem]) -> list[Score]:
        """Return a `Score` per item and dimension: all dimensions of the first item, then of the second, …"""
        assert all(len(values) == len(items) for values in self.values.values()), "one value per item"
        return [
            Score.make(item.candidate_id, scorer, version, dimension, value=None, reason=value.reason)
            if isinstance(value, Unscored)
            else Score.make(item.candidate_id, scorer, version, dimension, value=value)
            for row, item in enumerate(items)
            for dimension, values in self.values.items()
            for value in (values[row],)
        ]


class Scorer(Part, ABC):
    """The base of every scorer. Its constants are `ClassVar`s, or properties where settings decide them."""

    embeddings: ClassVar[tuple[str, ...]] = ()
    """Names of the tensors in its judgements."""
    asides: ClassVar[tuple[str, ...]] = ()
    """Dimensions that measure no quality (duration, presence of speech): rewards read them only if named."""

    @property
    @abstractmethod
    def needs(self) -> frozenset[str]:
        """The inputs it looks at, out of `NEEDS`."""

    @property
    @abstractmethod
    def higher_is_better(self) -> Mapping[str, bool]:
        """For each dimension, whether more is better; True where neither is."""

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Names of the numbers it gives."""
        return tuple(self.higher_is_better)

    @property
    @abstractmethod
    def version(self) -> str:
        """Changes when weights or method change; stored with each score."""

    @abstractmethod
    def judge(self, items: Sequence[ScoreItem]) -> Judgement:
        """Judge a batch in one pass. An item's values do not depend on the other items.

        An item that cannot be judged is `Unscored` with a reason, in every dimension concerned.
        """

    @property
    def streams(self) -> tuple[FrameStream, ...]:
        """The frames it looks at: in `ScoreItem.frames` under their keys, where the clip has a picture."""
        return ()

    def load(self, device: str | torch.device = "cpu") -> Self:
        """Read the weights, if there are any, and return itself."""
        return self

    @property
    def scored_as(self) -> str:
        """The name that its scores carry: the part's, with the variant unless it is the default one."""
        field, chosen = type(self).model_fields.get("variant"), getattr(self, "variant", None)
        default = field is None or chosen == field.default
        return self.part_name() if default else f"{self.part_name()}-{chosen}"


def build_scorer(name: str) -> Scorer:
    """Return the scorer of that name, not loaded. Raises ValueError for anything that is no scorer."""
    part = build("scorers", name)
    if not isinstance(part, Scorer):
        raise ValueError(f"{name!r} is no scorer: its class does not extend foleypref.scoring.scorers.Scorer")
    return part


def values_of(reasons: Iterable[str], values: Iterable[float]) -> list[Value]:
    """Join reasons and values, B each: `Unscored` where a reason is not empty, else the value there."""
    pairs = zip(reasons, values, strict=True)
    return [Unscored(reason) if reason else float(value) for reason, value in pairs]


def judge_usable(
    items: Sequence[ScoreItem],
    needs: frozenset[str],
    judge: Callable[[list[ScoreItem]], Iterable[float]],
) -> list[Value]:
    """Return a value per item: `judge` sees, in one batch, those that lack none of `needs`."""
    reasons = [unscored_reason(item, needs) for item in items]
    usable = [item for item, reason in zip(items, reasons) if not reason]
    values = iter(judge(usable)) if usable else iter(())
    return [Unscored(reason) if reason else float(next(values)) for reason in reasons]


def unscored_reason(item: ScoreItem, needs: frozenset[str]) -> str:
    """Return why an item cannot be judged by what `needs` these inputs, or ""."""
    if "audio" in needs and is_silent(item.wave):
        return "silent"
    if "video" in needs and not any(len(frames) for frames in item.frames.values()):
        return "no video"
    if "text" in needs and not item.prompt.strip():
        return "no caption"
    if "reference" in needs and (item.reference is None or is_silent(item.reference)):
        return "no reference sound"
    return ""


def loaded(network: N | None) -> N:
    """Return the network of a scorer, whose `load` must have been called."""
    assert network is not None, "call load() first"
    return network


def streams_of(scorers: Iterable[Scorer]) -> tuple[FrameStream, ...]:
    """Return all frame streams that some scorers look at, each once."""
    return tuple({stream.key: stream for scorer in scorers for stream in scorer.streams}.values())


def is_oracle(scorer: Scorer) -> bool:
    """Return whether a scorer reads the truth: it may measure, but no reward may use it."""
    return "truth" in scorer.needs


def is_silent(wave: np.ndarray, threshold_db: float = -70.0) -> bool:
    """Return whether a wave is empty or its level is under `threshold_db` dBFS."""
    if wave.size == 0:
        return True
    level = float(np.sqrt(np.mean(np.square(wave, dtype=np.float64))))
    return not level > 10 ** (threshold_db / 20)
