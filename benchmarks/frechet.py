"""Fréchet distance by eigenvalues, as this package computes it, against scipy's matrix square root.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/frechet.py

Both start from the same features, correlated and as wide as those of PANNs, once with more clips than
dimensions and once with fewer. The package itself does not need scipy.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from foleypref.evaluation.metrics.frechet import frechet_distance

CASES = {"full rank": 5000, "rank deficient": 500}  # clips on each side


def features(num: int, dims: int, seed: int) -> np.ndarray:
    """Return (num, dims) float32 with standard deviations from 1 to 0.05 along directions off the axes."""
    generator = np.random.default_rng(seed)
    scales = np.geomspace(1.0, 0.05, dims)
    mixing = np.random.default_rng(0).normal(size=(dims, dims)) / np.sqrt(dims)  # the same for both sides
    rows = generator.normal(size=(num, dims)) * scales * (1 + 0.1 * seed)
    return (rows @ mixing + 0.02 * seed).astype(np.float32)


def by_square_root(p: np.ndarray, g: np.ndarray, sqrtm: Callable[[np.ndarray], Any]) -> float:
    """Return the real part of |μ_p − μ_g|² + tr (S_p + S_g − 2 (S_p S_g)^½)."""
    covariances = np.cov(p, rowvar=False), np.cov(g, rowvar=False)
    root = np.real(sqrtm(covariances[0] @ covariances[1]))
    shift = p.mean(axis=0).astype(np.float64) - g.mean(axis=0).astype(np.float64)
    return float(shift @ shift + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * np.trace(root))


def timed(run: Callable[[], float]) -> tuple[float, float, float]:
    """Return what `run` returns, its seconds on the clock and its seconds of processor time."""
    begin, busy = time.perf_counter(), time.process_time()
    value = run()
    return value, time.perf_counter() - begin, time.process_time() - busy


def main() -> None:
    """Time both ways on both cases."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dims", type=int, default=2048)
    args = parser.parse_args()
    try:
        import scipy
        from scipy.linalg import sqrtm
    except ModuleNotFoundError:
        parser.exit(2, "scipy is what is compared with, and it is not installed: pip install scipy\n")
    print(f"numpy {np.__version__}, scipy {scipy.__version__}, {args.dims} dimensions")
    print(f"{'':16}{'clips':>6}{'ours s':>9}{'sqrtm s':>9}{'ratio':>7}{'of processor':>14}{'difference':>12}")
    for name, num in CASES.items():
        p, g = features(num, args.dims, 1), features(num, args.dims, 2)
        ours, seconds, busy = timed(lambda p=p, g=g: frechet_distance(p, g))  # type: ignore[misc]
        root, root_seconds, root_busy = timed(lambda p=p, g=g: by_square_root(p, g, sqrtm))  # type: ignore[misc]
        print(
            f"{name:16}{num:6}{seconds:9.2f}{root_seconds:9.2f}{root_seconds / seconds:7.1f}"
            f"{root_busy / busy:14.1f}{abs(ours - root) / root:12.1e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
