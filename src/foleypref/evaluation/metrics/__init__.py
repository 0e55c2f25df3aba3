"""Metrics: a set of scored candidates in, one number out.

A metric sees `Rows`, one row per clip, for one system. Unscored rows are left out of the value and counted
beside it. `interval` turns bootstrap values into a 95 % interval; `evaluation/bootstrap.py` draws the
resamples.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np


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
        """Rows at `index` (with repeats), for the bootstrap."""
        return replace(
            self,
            clip_ids=tuple(self.clip_ids[i] for i in index),
            scores={k: v[index] for k, v in self.scores.items()},
            embeddings={k: v[index] for k, v in self.embeddings.items()},
            reference={k: v[index] for k, v in self.reference.items()},
        )

    def scored(self, *keys: str) -> np.ndarray:
        """(n,) bool: which rows have every one of `keys`. Raises ValueError for an unknown key.

        An embedding of several rows a clip may end in NaN: the padding of a clip that has fewer.
        """
        mask = np.ones(len(self), bool)
        for key in keys:
            if key in self.scores:
                mask &= np.isfinite(self.scores[key])
            else:
                mask &= _finite_but_for_padding(self.vectors(key))
        return mask

    def vectors(self, key: str, *, truth: bool = False) -> np.ndarray:
        """The embeddings (n, …) called `key`, or the ground truth's, NaN without one. Raises ValueError."""
        if key not in self.embeddings:
            known = ", ".join(sorted((*self.scores, *self.embeddings))) or "nothing"
            raise ValueError(f"no scores or embeddings {key!r}; there are: {known}")
        if truth and key not in self.reference:
            return np.full_like(self.embeddings[key], np.nan)
        return self.reference[key] if truth else self.embeddings[key]

    def only(self, *keys: str) -> Rows:
        """The same rows with nothing but `keys`, so that resampling copies no more than it must."""
        return replace(
            self,
            scores={k: v for k, v in self.scores.items() if k in keys},
            embeddings={k: v for k, v in self.embeddings.items() if k in keys},
            reference={k: v for k, v in self.reference.items() if k in keys},
        )


def _finite_but_for_padding(x: np.ndarray) -> np.ndarray:
    """(n,) bool: rows that start with a finite number and hold nothing but NaN after the last of them."""
    flat = x.reshape(len(x), -1)
    finite = np.isfinite(flat)
    whole = (finite | np.isnan(flat)).all(axis=1) & ~(finite[:, 1:] & ~finite[:, :-1]).any(axis=1)
    return whole & finite[:, :1].any(axis=1)


class Metric(Protocol):
    """The whole contract of a metric. `reads` names the scores and embeddings it looks at."""

    @property
    def reads(self) -> tuple[str, ...]:
        """Keys of `Rows.scores` or `Rows.embeddings`: "scorer/dimension"."""
        ...

    @property
    def higher_is_better(self) -> bool:
        """Which way is up."""
        ...

    def value(self, rows: Rows) -> float:
        """The point value over the scored rows; NaN if there are none."""
        ...

    def num_scored(self, rows: Rows) -> int:
        """How many rows the value rests on."""
        ...


def interval(values: np.ndarray, value: float | None = None, level: float = 0.95) -> tuple[float, float]:
    """The central `level` of bootstrap values, moved so that their median sits on `value`.

    The move matters for set metrics: a resample holds about 63 % distinct clips, so a Fréchet distance comes
    out too high and an Inception Score too low, and the bare percentiles can miss the value altogether. For
    means it is close to nothing. NaN if no value is finite.
    """
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return float("nan"), float("nan")
    tail = (1 - level) / 2
    low, middle, high = np.quantile(finite, [tail, 0.5, 1 - tail])
    move = value - middle if value is not None and np.isfinite(value) else 0.0
    return float(low + move), float(high + move)
