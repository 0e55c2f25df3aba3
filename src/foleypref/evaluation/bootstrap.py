"""Intervals for systems with several training seeds: a hierarchical, paired bootstrap.

A system's value is the mean over its training seeds and noise seeds. Each resample draws clips with
replacement, then training seeds within the system, then noise seeds; the interval is that of
`metrics.interval`. The difference to the base meets the same clips and noise seeds on both sides, so it is
paired; clips that one of the two has not scored are left out of it. With few training seeds their share of
the interval is too small (k seeds show (k − 1)/k of their variance), so each seed's own value is kept
beside it.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from foleypref.evaluation.metrics import Metric, Rows, interval
from foleypref.evaluation.result import Cell, Difference
from foleypref.evaluation.systems import Replica

Replicas = dict[Replica, Rows]
"""One system's rows by (weights, noise seed), all on the same clips."""


class Bootstrap:
    """One metric on fixed clips: the same resamples of clips and noise seeds for every system."""

    def __init__(
        self, metric: Metric, num_clips: int, noise_seeds: tuple[int, ...], num_resamples: int, seed: int
    ) -> None:
        self.metric, self.relative = metric, getattr(metric, "unit", "") != "dB"
        self.num, self.seed = num_resamples, seed
        generator = np.random.default_rng([seed, 0])
        self.clips = generator.integers(0, num_clips, (self.num, num_clips))
        self.noise = _draws(generator, self.num, noise_seeds)
        self._drawn: dict[bytes, np.ndarray] = {}

    def cell(self, replicas: Replicas, base: Replicas | None) -> Cell:
        """Value, interval, seeds and, with a base, the paired difference."""
        replicas = {key: rows.only(*self.metric.reads) for key, rows in replicas.items()}
        value = self._value(replicas)
        low, high = interval(self._resampled(replicas), value)
        n = min(self.metric.num_scored(rows) for rows in replicas.values())
        by_seed = tuple(
            self._value({key: rows for key, rows in replicas.items() if key[0] == weights})
            for weights in dict.fromkeys(key[0] for key in replicas)
        )
        difference = None if base is None else self._difference(replicas, base)
        return Cell(value, low, high, n, len(self.clips[0]) - n, by_seed, difference)

    def _difference(self, replicas: Replicas, base: Replicas) -> Difference:
        base = {key: rows.only(*self.metric.reads) for key, rows in base.items()}
        both = np.logical_and.reduce(
            [rows.scored(*self.metric.reads) for rows in (*replicas.values(), *base.values())]
        )
        replicas = {key: _blank(rows, ~both) for key, rows in replicas.items()}
        base = {key: _blank(rows, ~both) for key, rows in base.items()}
        value, base_value = self._value(replicas), self._value(base)
        values, base_values = self._resampled(replicas), self._resampled(base)
        low, high = interval(values - base_values, value - base_value)
        n = min(self.metric.num_scored(rows) for rows in (*replicas.values(), *base.values()))
        base_low, base_high = interval(base_values, base_value)
        percent = percent_low = percent_high = math.nan
        if self.relative and (base_low > 0 or base_high < 0):
            percent = 100 * (value - base_value) / abs(base_value)
            percent_low, percent_high = interval(100 * (values - base_values) / np.abs(base_values), percent)
        return Difference(value - base_value, low, high, n, percent, percent_low, percent_high)

    def _value(self, replicas: Replicas) -> float:
        return float(np.mean([self.metric.value(rows) for rows in replicas.values()]))

    def _resampled(self, replicas: Replicas) -> np.ndarray:
        """Bootstrap values (num,). What was drawn for the same rows before is not computed again."""
        key = _fingerprint(replicas)
        if key not in self._drawn:
            weights = tuple(dict.fromkeys(weights for weights, _ in replicas))
            # Of the weights, so that training seeds of two systems are drawn apart and those of one alike.
            generator = np.random.default_rng([self.seed, zlib.crc32("/".join(weights).encode())])
            draws = zip(self.clips, _draws(generator, self.num, weights), self.noise)
            self._drawn[key] = np.array([self._resample(replicas, *draw) for draw in draws])
        return self._drawn[key]

    def _resample(self, replicas: Replicas, clips: np.ndarray, weights: list[str], noise: list[int]) -> float:
        seeds = {seed for _, seed in replicas}
        drawn = [(w, s) for w in weights for s in noise if s in seeds] or [next(iter(replicas))]
        values = {key: self.metric.value(replicas[key].take(clips)) for key in set(drawn)}
        return float(np.mean([values[key] for key in drawn]))


def _draws(generator: np.random.Generator, num: int, items: tuple[Any, ...]) -> list[list[Any]]:
    """`num` draws of len(items) items with replacement; a single item is always itself."""
    picks = generator.integers(0, len(items), (num, len(items)))
    return [[items[i] for i in pick] for pick in picks]


def _blank(rows: Rows, where: np.ndarray) -> Rows:
    """Rows made unscored where `where` (n,) is true."""
    return replace(rows, scores=_set_nan(rows.scores, where), embeddings=_set_nan(rows.embeddings, where))


def _set_nan(arrays: Mapping[str, np.ndarray], where: np.ndarray) -> dict[str, np.ndarray]:
    blanked = {key: value.copy() for key, value in arrays.items()}
    for value in blanked.values():
        value[where] = np.nan
    return blanked


def _fingerprint(replicas: Replicas) -> bytes:
    """The bytes of everything a metric looks at: small, as rows hold one metric's columns alone."""
    arrays = [a for rows in replicas.values() for a in (*rows.scores.values(), *rows.embeddings.values())]
    return repr(tuple(replicas)).encode() + b"".join(a.tobytes() for a in arrays)
