"""One metric on fixed clips with its intervals: a table's cells and their paired differences to the base.

The value of a system is the mean over its training seeds and noise seeds; how resamples are drawn is in
`foleypref.scoring.bootstrap`. Clips that the system or the base has not scored are left out of their
difference. Each training seed's own value is kept beside the interval, which shows too little of the seeds'
spread.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from foleypref.evaluation.metrics import Metric, Rows
from foleypref.evaluation.result import Cell, Difference
from foleypref.scoring.bootstrap import Replica, Resample, Resamples, interval

Replicas = dict[Replica, Rows]
"""One system's rows by (weights, noise seed), all on the same clips."""


class Bootstrap:
    """One metric on fixed clips: the same resamples of clips and noise seeds for every system."""

    def __init__(self, metric: Metric, resamples: Resamples) -> None:
        self.metric, self.resamples = metric, resamples
        self._values_of: dict[bytes, np.ndarray] = {}

    def cell(self, replicas: Replicas, base: Replicas | None) -> Cell:
        """Return the system's cell: value, interval, seeds and, with a base, the paired difference."""
        replicas = {key: rows.only(*self.metric.reads) for key, rows in replicas.items()}
        value = self._value(replicas)
        low, high = interval(self._resampled(replicas), value)
        n = min(self.metric.num_scored(rows) for rows in replicas.values())
        by_seed = tuple(
            self._value({key: rows for key, rows in replicas.items() if key[0] == weights})
            for weights in dict.fromkeys(key[0] for key in replicas)
        )
        difference = None if base is None else self._difference(replicas, base)
        num_clips = self.resamples.clips.shape[1]
        return Cell(value, low, high, n, unscored=num_clips - n, by_seed=by_seed, difference=difference)

    def _difference(self, replicas: Replicas, base: Replicas) -> Difference:
        base = {key: rows.only(*self.metric.reads) for key, rows in base.items()}
        both = np.logical_and.reduce(
            [rows.scored(*self.metric.reads) for rows in (*replicas.values(), *base.values())]
        )
        replicas, base = ({k: _blank(rows, ~both) for k, rows in each.items()} for each in (replicas, base))
        value, base_value = self._value(replicas), self._value(base)
        values, base_values = self._resampled(replicas), self._resampled(base)
        low, high = interval(values - base_values, value - base_value)
        n = min(self.metric.num_scored(rows) for rows in (*replicas.values(), *base.values()))
        base_low, base_high = interval(base_values, base_value)
        percent = percent_low = percent_high = math.nan
        if self.metric.unit != "dB" and (base_low > 0 or base_high < 0):
            percent = 100 * (value - base_value) / abs(base_value)
            percent_low, percent_high = interval(100 * (values - base_values) / np.abs(base_values), percent)
        return Difference(
            value - base_value, low, high, n,
            percent=percent, percent_low=percent_low, percent_high=percent_high,
        )  # fmt: skip

    def _value(self, replicas: Replicas) -> float:
        return float(np.mean([self.metric.value(rows) for rows in replicas.values()]))

    def _resampled(self, replicas: Replicas) -> np.ndarray:
        """Return the bootstrap values (num_resamples,); the same rows are computed only once."""
        arrays = [a for rows in replicas.values() for a in (*rows.scores.values(), *rows.embeddings.values())]
        # All predictions' bytes: they are few, because rows hold one metric's columns only.
        key = repr(tuple(replicas)).encode() + b"".join(a.tobytes() for a in arrays)
        if key not in self._values_of:
            resamples = self.resamples.of(list(replicas))
            self._values_of[key] = np.array([self._value_of(replicas, resample) for resample in resamples])
        return self._values_of[key]

    def _value_of(self, replicas: Replicas, resample: Resample) -> float:
        values = {
            key: self.metric.value(replicas[key].take(resample.clips)) for key in set(resample.replicas)
        }
        return float(np.mean([values[key] for key in resample.replicas]))


def _blank(rows: Rows, where: np.ndarray) -> Rows:
    """Return the rows with NaN for every prediction where `where` (n,) is true."""
    scores = {key: value.copy() for key, value in rows.scores.items()}
    embeddings = {key: value.copy() for key, value in rows.embeddings.items()}
    for value in (*scores.values(), *embeddings.values()):
        value[where] = np.nan
    return replace(rows, scores=scores, embeddings=embeddings)
