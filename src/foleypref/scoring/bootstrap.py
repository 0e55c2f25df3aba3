"""The bootstrap: resamples of clips and seeds, and the intervals that their values give.

A statistic is computed again on clips drawn with replacement. A system with several training seeds is
resampled in three levels: clips, then its training seeds, then noise seeds. Every system is resampled on the
same clips and noise seeds, so the difference of two systems is paired. With few training seeds the interval
shows too little of their spread: k seeds show (k − 1)/k of their variance.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

Replica = tuple[str, int]
"""One run of a system: (fingerprint of its weights, noise seed)."""


class Resample(NamedTuple):
    """One draw with replacement, for one system."""

    clips: Int64[np.ndarray, " n"]  # indices
    replicas: list[Replica]


def interval(values: np.ndarray, value: float | None = None, level: float = 0.95) -> tuple[float, float]:
    """Return (low, high), the central `level` of bootstrap values, moved so that their median is `value`.

    The move matters for set metrics: a resample holds about 63 % distinct clips, so a Fréchet distance comes
    out too high and an Inception Score too low, and the bare percentiles can miss the value altogether. For
    means it is close to nothing. Returns NaN if no value is finite.
    """
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return float("nan"), float("nan")
    tail = (1 - level) / 2
    low, middle, high = np.quantile(finite, [tail, 0.5, 1 - tail])
    move = value - middle if value is not None and np.isfinite(value) else 0.0
    return float(low + move), float(high + move)


def draw(generator: np.random.Generator, num_resamples: int, num_items: int) -> Int64[np.ndarray, "r n"]:
    """Draw `num_resamples` times `num_items` indices of as many items, with replacement."""
    return generator.integers(0, num_items, (num_resamples, num_items))


def resample(
    statistic: Callable[[np.ndarray], float], num_items: int, num_resamples: int, seed: int = 0
) -> Float64[np.ndarray, " r"]:
    """Return `statistic` of each draw; it is given indices (num_items,) with repeats."""
    draws = draw(np.random.default_rng(seed), num_resamples, num_items)
    return np.array([statistic(indices) for indices in draws], float)


class Resamples:
    """Draws over clips, training seeds and noise seeds, of which only training seeds differ by system."""

    def __init__(self, num_clips: int, noise_seeds: Sequence[int], num_resamples: int, seed: int) -> None:
        generator = np.random.default_rng([seed, 0])
        self.clips = draw(generator, num_resamples, num_clips)
        self._noise_seeds = _draw_from(noise_seeds, num_resamples, generator)
        self._seed = seed

    def of(self, replicas: Sequence[Replica]) -> Iterator[Resample]:
        """Yield the draws for the system that has these replicas.

        Training seeds are drawn from a generator seeded by the weights' fingerprints. Two systems are thus
        drawn independently, and the same system always alike.
        """
        weights = list(dict.fromkeys(weights for weights, _ in replicas))
        generator = np.random.default_rng([self._seed, zlib.crc32("/".join(weights).encode())])
        weights_drawn = _draw_from(weights, len(self.clips), generator)
        available = {noise_seed for _, noise_seed in replicas}
        for clips, weights, noise_seeds in zip(self.clips, weights_drawn, self._noise_seeds):
            drawn = [(w, s) for w in weights for s in noise_seeds if s in available]
            yield Resample(clips, drawn or [replicas[0]])


def _draw_from(items: Sequence[Any], num_resamples: int, generator: np.random.Generator) -> list[list[Any]]:
    return [[items[i] for i in indices] for indices in draw(generator, num_resamples, len(items))]
