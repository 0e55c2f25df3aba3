"""Metrics: a set of scored candidates in, one number out.

A metric sees `Rows`, one row per clip, for one system. Unscored rows are left out of the value and counted
beside it. It knows nothing of intervals: `evaluation/bootstrap.py` calls it on resamples.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import numpy as np

from foleypref.settings.parts import FromDrawer, Part, part_help


@dataclass(frozen=True)
class Rows:
    """One system on n clips: scores (n,) with NaN where unscored, embeddings (n, D), in one clip order.

    A clip may have one side only: a prediction without ground truth, or the other way round.
    """

    clip_ids: tuple[str, ...]
    scores: dict[str, np.ndarray]  # "scorer/dimension" -> (n,)
    embeddings: dict[str, np.ndarray]  # "scorer/name" -> (n, D), NaN where there is none
    reference: dict[str, np.ndarray]  # the same embeddings of the ground truth of the same clips

    def __len__(self) -> int:
        return len(self.clip_ids)

    def take(self, index: np.ndarray) -> Rows:
        """Return the rows at `index`, with repeats, for the bootstrap."""
        return replace(
            self,
            clip_ids=tuple(self.clip_ids[i] for i in index),
            scores={k: v[index] for k, v in self.scores.items()},
            embeddings={k: v[index] for k, v in self.embeddings.items()},
            reference={k: v[index] for k, v in self.reference.items()},
        )

    def scored(self, *keys: str) -> np.ndarray:
        """Return which rows have every one of `keys`, (n,) bool. Raises ValueError for an unknown key.

        An embedding of several rows per clip may end in NaN: the padding of a clip that has fewer.
        """
        mask = np.ones(len(self), bool)
        for key in keys:
            scored = key in self.scores
            mask &= np.isfinite(self.scores[key]) if scored else _finite_but_for_padding(self.vectors(key))
        return mask

    def vectors(self, key: str, *, truth: bool = False) -> np.ndarray:
        """Return the embeddings (n, …) called `key`, or the truth's, NaN without one. Raises ValueError."""
        if key not in self.embeddings:
            known = ", ".join(sorted((*self.scores, *self.embeddings))) or "nothing"
            raise ValueError(f"no scores or embeddings {key!r}; there are: {known}")
        if truth and key not in self.reference:
            return np.full_like(self.embeddings[key], np.nan)
        return self.reference[key] if truth else self.embeddings[key]

    def only(self, *keys: str) -> Rows:
        """Return the same rows with nothing but `keys`, so that resampling copies no more than it must."""
        return replace(
            self,
            scores={k: v for k, v in self.scores.items() if k in keys},
            embeddings={k: v for k, v in self.embeddings.items() if k in keys},
            reference={k: v for k, v in self.reference.items() if k in keys},
        )


def _finite_but_for_padding(x: np.ndarray) -> np.ndarray:
    """Return which rows start with a finite number and hold only NaN after the last of them, (n,) bool."""
    flat = x.reshape(len(x), -1)
    finite = np.isfinite(flat)
    whole = (finite | np.isnan(flat)).all(axis=1) & ~(finite[:, 1:] & ~finite[:, :-1]).any(axis=1)
    return whole & finite[:, :1].any(axis=1)


class Metric(Part, ABC):
    """The contract of a metric. Its fields are its settings."""

    if TYPE_CHECKING:
        # A metric has each of these as a field or as a ClassVar. Fields declared here would come first among
        # its stored settings.
        @property
        def higher_is_better(self) -> bool:
            """Return True if a larger value is the better one."""

        @property
        def label(self) -> str:
            """Return the column's title; "" stands for the names that are read."""

        @property
        def unit(self) -> str:
            """Return the unit of the value, "" for a plain number."""

    @property
    @abstractmethod
    def reads(self) -> tuple[str, ...]:
        """Return the keys of `Rows.scores` or `Rows.embeddings` that are looked at: "scorer/dimension"."""

    @abstractmethod
    def value(self, rows: Rows) -> float:
        """Return the metric over the scored rows, NaN if there are too few."""

    @abstractmethod
    def num_scored(self, rows: Rows) -> int:
        """Return how many rows the value rests on."""

    def num_resamples(self, asked: int) -> int:
        """Return how many of the bootstrap's `asked` resamples are computed: fewer if one takes long."""
        return asked


MetricPart = Annotated[Metric, FromDrawer("metrics"), part_help("metrics")]
"""The field of a settings class that takes a metric."""
