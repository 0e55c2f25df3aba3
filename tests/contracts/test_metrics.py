"""The contract that every file in metrics/ keeps."""

from __future__ import annotations

import numpy as np
import pytest

from foleypref.evaluation.metrics import Metric, Rows
from foleypref.settings import parts as plugins
from tests.measured import measure

REQUIRED = {"mean": {"dimension": "judge/value"}}
ORDER_MATTERS = {"inception"}  # its chunks are cut from the order of the clips, as in the benchmark
KEYS = ("judge/value", "judge/vector")


def build(name: str) -> Metric:
    """Build a metric that reads the keys of `rows`."""
    cls = plugins.find("metrics", name)
    settings = dict(REQUIRED.get(name, {}))
    if "embedding" in cls.model_fields:
        settings["embedding"] = "judge/vector"
    return plugins.build("metrics", name, **settings)  # type: ignore[return-value]


@pytest.fixture
def rows() -> Rows:
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(40, 6)).astype(np.float32)
    return Rows(
        tuple(f"{i:03d}" for i in range(40)),
        {"judge/value": generator.normal(size=40)},
        {"judge/vector": vectors},
        {"judge/vector": generator.normal(size=(40, 6)).astype(np.float32)},
    )


def blank(rows: Rows, where: list[int]) -> Rows:
    scores = {k: v.copy() for k, v in rows.scores.items()}
    embeddings = {k: v.copy() for k, v in rows.embeddings.items()}
    for array in (*scores.values(), *embeddings.values()):
        array[where] = np.nan
    return Rows(rows.clip_ids, scores, embeddings, rows.reference)


@pytest.fixture(params=plugins.names("metrics"))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_reads_and_direction(name: str) -> None:
    metric = build(name)
    assert set(metric.reads) <= set(KEYS)
    assert isinstance(metric.higher_is_better, bool)


def test_settings_round_trip(name: str) -> None:
    metric = build(name)
    settings = metric.settings()  # type: ignore[attr-defined]
    again = plugins.build("metrics", settings.pop("name"), **settings)
    assert again == metric


def test_n_and_unscored_add_up(name: str, rows: Rows) -> None:
    estimate = measure(build(name), blank(rows, [3, 7, 8]), num_resamples=10)
    assert (estimate.n, estimate.unscored) == (37, 3)
    assert estimate.low <= estimate.value <= estimate.high


def test_unscored_rows_are_left_out(name: str, rows: Rows) -> None:
    metric = build(name)
    without = rows.take(np.array([i for i in range(40) if i not in (3, 7, 8)]))
    assert metric.value(blank(rows, [3, 7, 8])) == pytest.approx(metric.value(without), rel=1e-9)


def test_nothing_scored_is_nan(name: str, rows: Rows) -> None:
    metric = build(name)
    empty = blank(rows, list(range(40)))
    assert np.isnan(metric.value(empty))
    assert metric.num_scored(empty) == 0


def test_the_order_of_clips_does_not_matter(name: str, rows: Rows) -> None:
    if name in ORDER_MATTERS:
        pytest.skip("cut into chunks by order")
    metric = build(name)
    mixed = rows.take(np.random.default_rng(1).permutation(40))
    assert metric.value(mixed) == pytest.approx(metric.value(rows), rel=1e-5)


def test_same_rows_same_value(name: str, rows: Rows) -> None:
    metric = build(name)
    assert metric.value(rows) == metric.value(rows)
    assert measure(metric, rows, num_resamples=10) == measure(metric, rows, num_resamples=10)
