"""One system with one training seed and one noise seed, measured by the bootstrap that evaluations use."""

from __future__ import annotations

from foleypref.evaluation.bootstrap import Bootstrap
from foleypref.evaluation.metrics import Metric, Rows
from foleypref.evaluation.result import Cell, Difference
from foleypref.scoring.bootstrap import Resamples


def measure(metric: Metric, rows: Rows, *, num_resamples: int, seed: int = 0) -> Cell:
    """The metric's value on `rows` with its interval."""
    bootstrap = Bootstrap(metric, Resamples(len(rows), (0,), num_resamples, seed))
    return bootstrap.cell({("tuned", 0): rows}, None)


def measure_difference(metric: Metric, rows: Rows, base: Rows, *, num_resamples: int) -> Difference:
    """value(rows) − value(base) with its interval, both on the same resamples of the same clips."""
    bootstrap = Bootstrap(metric, Resamples(len(rows), (0,), num_resamples, seed=0))
    cell = bootstrap.cell({("tuned", 0): rows}, {("base", 0): base})
    assert cell.difference is not None
    return cell.difference
