"""Metrics against golden numbers of the reference implementation and against closed forms."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from foleypref.evaluation.metrics import Rows
from foleypref.evaluation.metrics.frechet import Frechet, frechet_distance
from foleypref.evaluation.metrics.inception import (
    Inception,
    chunk_scores,
    inception_score,
)
from foleypref.evaluation.metrics.kl import KL, kl_divergence, log_softmax
from foleypref.evaluation.metrics.mean import Mean
from tests.measured import measure, measure_difference

GOLDEN = Path(__file__).parents[1] / "golden"
RESULTS = json.loads((GOLDEN / "scorers_metrics.json").read_text())["results"]
TENSORS = load_file(GOLDEN / "scorers_metrics.safetensors")


def rows_of(
    scores: np.ndarray, embeddings: np.ndarray | None = None, reference: np.ndarray | None = None
) -> Rows:
    both = embeddings is not None and reference is not None
    return Rows(
        tuple(f"{i:04d}" for i in range(len(scores))),
        {"judge/value": scores},
        {"judge/vector": embeddings} if both else {},
        {"judge/vector": reference} if both else {},
    )


@pytest.mark.parametrize("case", ["full", "rank_deficient", "const_dim", "relu"])
def test_frechet_golden(case: str) -> None:
    value = frechet_distance(TENSORS[f"fd_{case}_pred"], TENSORS[f"fd_{case}_gt"])
    assert value == pytest.approx(RESULTS[f"fd_{case}"], rel=1e-7)


def test_frechet_of_a_set_with_itself_is_zero() -> None:
    same = TENSORS["fd_same_pred"]
    assert abs(frechet_distance(same, same)) < 1e-10
    few = same[:10]  # fewer rows than dimensions: the other way of taking the trace
    assert abs(frechet_distance(few, few)) < 1e-10


def test_frechet_of_gaussians_with_known_moments() -> None:
    generator = np.random.default_rng(0)
    scale_p, scale_g, shift = np.array([1.0, 2.0, 0.5]), np.array([2.0, 1.0, 0.5]), np.array([1.0, -2.0, 0.0])
    p = generator.normal(size=(200_000, 3)) * scale_p
    g = generator.normal(size=(200_000, 3)) * scale_g + shift
    assert frechet_distance(p, g) == pytest.approx(
        (shift**2).sum() + ((scale_p - scale_g) ** 2).sum(), rel=0.01
    )


def test_frechet_both_ways_agree_and_match_scipy() -> None:
    linalg = pytest.importorskip("scipy.linalg")
    generator = np.random.default_rng(1)
    for n_p, n_g, dims in ((30, 40, 12), (9, 40, 12), (9, 7, 12)):
        p, g = generator.normal(size=(n_p, dims)), generator.normal(size=(n_g, dims)) * 1.5
        root = np.real(linalg.sqrtm(np.cov(p, rowvar=False) @ np.cov(g, rowvar=False)))
        spread = np.trace(np.cov(p, rowvar=False)) + np.trace(np.cov(g, rowvar=False))
        truth = ((p.mean(0) - g.mean(0)) ** 2).sum() + spread - 2 * np.trace(root)
        assert frechet_distance(p, g) == pytest.approx(truth, rel=1e-6)


def test_frechet_is_nan_for_one_row() -> None:
    one = np.ones((1, 4), np.float32)
    metric = Frechet(embedding="judge/vector")
    assert np.isnan(metric.value(rows_of(np.zeros(1), one, one)))
    with pytest.raises(ValueError, match="two rows"):
        frechet_distance(one, one)


def test_kl_golden() -> None:
    g, p = TENSORS["kl_gt_logits"], TENSORS["kl_pred_logits"]
    value = KL(embedding="judge/vector").value(rows_of(np.zeros(len(g)), p, g))
    assert value == pytest.approx(RESULTS["kl"]["kl_softmax"], rel=1e-6)
    assert kl_divergence(g, g).max() == pytest.approx(0, abs=1e-12)


INCEPTION = [
    (100, 10, "isc_splits10"),
    (100, 1, "isc_splits1"),
    (97, 10, "isc_n97_splits10"),
    (10, 10, "isc_n10_splits10"),
]


@pytest.mark.parametrize(("n", "splits", "case"), INCEPTION)
def test_inception_golden(n: int, splits: int, case: str) -> None:
    value = inception_score(TENSORS["is_logits"][:n], splits)
    assert value == pytest.approx(RESULTS[case]["inception_score_mean"], rel=1e-6)


def test_inception_closed_forms() -> None:
    uniform, one_hot = np.zeros((40, 8)), 1000.0 * np.tile(np.eye(8), (5, 1))
    assert inception_score(uniform, 4) == pytest.approx(1.0)
    assert inception_score(one_hot, 1) == pytest.approx(8.0)
    assert np.isnan(inception_score(uniform[:5], 10))


def test_divergence_from_the_mean_posterior_is_the_golden_one() -> None:
    logits = TENSORS["is_logits"]
    log_mean = np.broadcast_to(np.log(np.exp(log_softmax(logits)).mean(axis=0)), logits.shape)
    values = kl_divergence(logits, log_mean)
    np.testing.assert_allclose(values, TENSORS["is_persample_kl_all"], rtol=1e-6)
    assert np.exp(values.mean()) == pytest.approx(inception_score(logits, 1), rel=1e-9)


def test_inception_takes_clips_in_the_order_of_their_names() -> None:
    logits, names = TENSORS["is_logits"], [f"clip{i:03d}" for i in range(100)]
    mixed = np.random.default_rng(3).permutation(100)
    rows = Rows(tuple(names[i] for i in mixed), {}, {"judge/vector": logits[mixed]}, {})
    by_name = rows.take(np.argsort(rows.clip_ids))
    golden = 6.618526881002325
    assert Inception(embedding="judge/vector").value(by_name) == pytest.approx(golden, rel=1e-12)
    assert Inception(embedding="judge/vector").value(rows) != pytest.approx(
        golden, rel=1e-4
    )  # so the order matters
    assert chunk_scores(logits, permute=False).mean() != pytest.approx(golden, rel=1e-4)  # and the shuffle


@pytest.mark.parametrize("n", [1, 5, 9])
def test_inception_of_fewer_clips_than_chunks_is_nan_and_of_as_many_one(n: int) -> None:
    logits = TENSORS["is_logits"]
    assert np.isnan(inception_score(logits[:n]))
    assert np.isnan(chunk_scores(logits[:n])).all()
    assert chunk_scores(logits[:10]) == pytest.approx(np.ones(10), abs=1e-12)


def test_a_scaled_mean_scales_its_interval_and_its_difference() -> None:
    generator = np.random.default_rng(7)
    ids = tuple(map(str, range(40)))
    rows, base = (Rows(ids, {"judge/value": generator.normal(size=40)}, {}, {}) for _ in range(2))
    plain, scaled = (Mean(dimension="judge/value", scale=scale) for scale in (1.0, 100.0))
    for one, hundred in (
        (measure(plain, rows, num_resamples=20), measure(scaled, rows, num_resamples=20)),
        (
            measure_difference(plain, rows, base, num_resamples=20),
            measure_difference(scaled, rows, base, num_resamples=20),
        ),
    ):
        for name in ("value", "low", "high"):
            assert getattr(hundred, name) == pytest.approx(100 * getattr(one, name))
        assert hundred.n == one.n


def test_mean_leaves_unscored_rows_out() -> None:
    scores = np.array([1.0, np.nan, 3.0])
    estimate = measure(Mean(dimension="judge/value"), rows_of(scores), num_resamples=20)
    assert (estimate.value, estimate.n, estimate.unscored) == (2.0, 2, 1)


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    metric, hits = Mean(dimension="judge/value"), 0
    for trial in range(120):
        scores = np.random.default_rng(trial).normal(3.0, 1.0, 60)
        estimate = measure(metric, rows_of(scores), num_resamples=200, seed=trial)
        hits += estimate.low <= 3.0 <= estimate.high
    assert 0.88 <= hits / 120 <= 1.0


def test_interval_of_a_set_metric_holds_its_value() -> None:
    generator = np.random.default_rng(2)
    p, g = generator.normal(size=(60, 16)), generator.normal(size=(60, 16))
    for metric in (Frechet(embedding="judge/vector"), Inception(embedding="judge/vector", splits=2)):
        estimate = measure(metric, rows_of(np.zeros(60), p, g), num_resamples=100)
        assert estimate.low < estimate.value < estimate.high


def test_difference_of_identical_rows_is_exactly_zero() -> None:
    generator = np.random.default_rng(3)
    rows = rows_of(generator.normal(size=30), generator.normal(size=(30, 6)), generator.normal(size=(30, 6)))
    for metric in (
        Mean(dimension="judge/value"),
        Frechet(embedding="judge/vector"),
        KL(embedding="judge/vector"),
    ):
        d = measure_difference(metric, rows, rows, num_resamples=30)
        assert (d.value, d.low, d.high) == (0.0, 0.0, 0.0)


def test_pairing_narrows_the_interval() -> None:
    generator = np.random.default_rng(4)
    base = generator.normal(size=80)
    tuned = base + 0.1 + 0.01 * generator.normal(size=80)
    d = measure_difference(Mean(dimension="judge/value"), rows_of(tuned), rows_of(base), num_resamples=200)
    assert 0.09 < d.low < d.value < d.high < 0.11


def test_bootstrap_of_frechet_is_cheap() -> None:
    generator = np.random.default_rng(5)
    rows = rows_of(np.zeros(200), generator.normal(size=(200, 64)), generator.normal(size=(200, 64)))
    start = time.process_time()  # not the wall clock: tests share the machine
    measure(Frechet(embedding="judge/vector"), rows, num_resamples=50)
    assert time.process_time() - start < 5  # 0.04 s on an idle core
