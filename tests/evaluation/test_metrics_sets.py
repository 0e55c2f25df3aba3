"""Metrics over unequal sides, over several rows a clip, over next to nothing; all golden values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from foleypref.evaluation.bootstrap import Bootstrap
from foleypref.evaluation.metrics import Metric, Rows
from foleypref.evaluation.metrics.frechet import Frechet, frechet_distance
from foleypref.evaluation.metrics.inception import Inception, inception_score
from foleypref.evaluation.metrics.kad import KAD, gaussian_mmd2, median_distance
from foleypref.evaluation.metrics.kid import KID, subset_discrepancies
from foleypref.evaluation.metrics.kl import KL, kl_divergence
from foleypref.scoring.bootstrap import Resamples
from tests.golden import check, check_metrics
from tests.golden.compare import LIMIT
from tests.measured import measure

GOLDEN = Path(__file__).parents[1] / "golden" / "scorers_metrics.safetensors"
TENSORS = load_file(GOLDEN)
KEY = "judge/vector"
OF_SETS = (Frechet, KAD, KID)


def rows_of(predicted: np.ndarray, truth: np.ndarray | None) -> Rows:
    ids = tuple(f"{i:04d}" for i in range(len(predicted)))
    return Rows(ids, {}, {KEY: predicted}, {} if truth is None else {KEY: truth})


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def placed(x: np.ndarray, start: int, total: int) -> np.ndarray:
    """Return (total, …): `x` from `start` on, NaN elsewhere."""
    out = np.full((total, *x.shape[1:]), np.nan, np.float32)
    out[start : start + len(x)] = x
    return out


# ---- golden


def test_every_golden_quantity_is_met_and_none_is_skipped() -> None:
    worst, errors = check.worst_error(check_metrics.metrics, GOLDEN)
    assert worst <= LIMIT
    assert len(errors) == 37


def test_the_golden_check_is_closer_than_the_common_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_metrics, "frechet_distance", lambda p, g: frechet_distance(p, g) * (1 + 1e-6))
    with pytest.raises(AssertionError, match="allowed 1e-07"):
        check.worst_error(check_metrics.metrics, GOLDEN)


# ---- unequal sides


def unequal() -> Rows:
    """Return 200 clips: predictions of the first 128, truths of the last 160, both of 88."""
    predicted, truth = TENSORS["fd_full_pred"], TENSORS["fd_full_gt"]
    return rows_of(placed(predicted, 0, 200), placed(truth, 40, 200))


@pytest.mark.parametrize("metric", OF_SETS)
def test_unpaired_takes_each_side_as_it_is_and_paired_only_what_both_have(
    metric: type[Frechet] | type[KAD] | type[KID],
) -> None:
    predicted, truth = TENSORS["fd_full_pred"], TENSORS["fd_full_gt"]
    of = {
        Frechet: frechet_distance,
        KAD: lambda p, g: 100 * gaussian_mmd2(p, g, median_distance(g)),
        KID: lambda p, g: subset_discrepancies(p, g, 3).mean(),
    }[metric]
    settings: dict[str, Any] = {"embedding": KEY} | ({"subsets": 3} if metric is KID else {})
    paired, unpaired = metric(**settings), metric(**settings, paired=False)
    assert paired.value(unequal()) == pytest.approx(of(predicted[40:], truth[:88]), rel=1e-12)
    assert unpaired.value(unequal()) == pytest.approx(of(predicted, truth), rel=1e-12)
    assert (paired.num_scored(unequal()), unpaired.num_scored(unequal())) == (88, 128)
    assert paired.value(unequal()) != pytest.approx(unpaired.value(unequal()), rel=1e-3)


def test_unpaired_frechet_of_unequal_sides_is_the_golden_one() -> None:
    results = json.loads(GOLDEN.with_suffix(".json").read_text())["results"]
    value = Frechet(embedding=KEY, paired=False).value(unequal())
    assert value == pytest.approx(results["fd_full"], rel=1e-7)


def test_unpaired_inception_counts_predictions_without_truth_and_paired_does_not() -> None:
    rows, logits = unequal(), TENSORS["fd_full_pred"]
    everything, both = Inception(embedding=KEY), Inception(embedding=KEY, paired=True)
    assert everything.value(rows) == inception_score(logits)
    assert both.value(rows) == inception_score(logits[40:])
    assert (everything.num_scored(rows), both.num_scored(rows)) == (128, 88)


def test_an_interval_of_unequal_sides_holds_its_value_and_adds_up() -> None:
    estimate = measure(Frechet(embedding=KEY, paired=False), unequal(), num_resamples=30)
    assert estimate.low < estimate.value < estimate.high
    assert (estimate.n, estimate.unscored) == (128, 72)


SHAPES = {  # what covariances of real features are like
    "full rank": lambda x: x,
    "correlated": lambda x: x * np.geomspace(1, 1e-3, 30) @ np.random.default_rng(5).normal(size=(30, 30)),
    "often zero": lambda x: np.maximum(x - np.linspace(0, 2, 30), 0),
    "constant dimension": lambda x: np.where(np.arange(30) < 3, 1.0, x),
    "repeated dimension": lambda x: np.repeat(x[:, :15], 2, axis=1),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_frechet_is_that_of_the_singular_values(shape: str) -> None:
    p, g = (SHAPES[shape](scale * normal(n, 30, seed=n)) for n, scale in ((90, 1.0), (70, 1.3)))
    centred = [(x - x.mean(0)) / np.sqrt(len(x) - 1) for x in (p.astype(float), g.astype(float))]
    root = np.linalg.svd(centred[1] @ centred[0].T, compute_uv=False).sum()  # tr (S_p S_g)^½
    spread = sum(np.square(x).sum() for x in centred)
    expected = np.square(p.mean(0) - g.mean(0)).sum() + spread - 2 * root
    assert frechet_distance(p, g) == pytest.approx(expected, rel=1e-7)


# ---- several rows a clip


def patched() -> tuple[Rows, list[np.ndarray], list[np.ndarray]]:
    """Return 12 clips of up to 5 patches of 4 numbers, end to end and padded with NaN; clip 3 has none."""
    counts = [5, 2, 3, 0, 5, 4, 1, 5, 5, 2, 3, 5]
    sides, lists = [], []
    for seed in (1, 2):
        patches = [normal(n, 4, seed=10 * seed + i) + seed for i, n in enumerate(counts)]
        sides.append(np.stack([placed(x, 0, 5).reshape(-1) for x in patches]))
        lists.append(patches)
    return rows_of(*sides), *lists


@pytest.mark.parametrize("flat", [True, False])
def test_frechet_over_patches_counts_all_of_all_clips(flat: bool) -> None:
    rows, predicted, truth = patched()
    if not flat:
        rows = rows_of(rows.embeddings[KEY].reshape(12, 5, 4), rows.reference[KEY].reshape(12, 5, 4))
    expected = frechet_distance(np.concatenate(predicted), np.concatenate(truth))
    for paired in (True, False):
        metric = Frechet(embedding=KEY, rows_of=4, paired=paired)
        assert metric.value(rows) == pytest.approx(expected, rel=1e-12)
        assert metric.num_scored(rows) == 11


def test_the_bootstrap_draws_clips_with_all_their_patches() -> None:
    rows, predicted, truth = patched()
    index = np.array([0, 0, 2, 3, 6, 9, 11, 4, 4, 4, 1, 5])
    drawn = [np.concatenate([side[i] for i in index]) for side in (predicted, truth)]
    metric = Frechet(embedding=KEY, rows_of=4)
    assert metric.value(rows.take(index)) == pytest.approx(frechet_distance(*drawn), rel=1e-12)


def test_padding_is_no_hole_so_a_difference_keeps_clips_with_fewer_patches() -> None:
    rows, *_ = patched()
    np.testing.assert_array_equal(rows.scored(KEY), np.arange(12) != 3)
    metric = Frechet(embedding=KEY, rows_of=4)
    replicas = {("w", 0): rows}
    cell = Bootstrap(metric, Resamples(12, (0,), 10, seed=0)).cell(replicas, {("base", 0): rows})
    assert cell.difference is not None
    assert (cell.n, cell.difference.n, cell.difference.value) == (11, 11, 0.0)


def test_a_hole_or_an_infinity_is_not_padding() -> None:
    vectors = np.ones((4, 6), np.float32)
    vectors[0, 2], vectors[1, 0], vectors[2, 5] = np.nan, np.nan, np.inf
    np.testing.assert_array_equal(rows_of(vectors, vectors).scored(KEY), [False, False, False, True])


def test_one_row_a_clip_is_unscored_where_it_ends_in_nan() -> None:
    predicted, truth = normal(30, 6), normal(30, 6, seed=1)
    cut = predicted.copy()
    cut[4, 5] = np.nan
    for metric in (Frechet(embedding=KEY), KAD(embedding=KEY), KL(embedding=KEY), Inception(embedding=KEY)):
        without = rows_of(np.delete(predicted, 4, 0), np.delete(truth, 4, 0))
        assert metric.value(rows_of(cut, truth)) == pytest.approx(metric.value(without), rel=1e-12)
        assert metric.num_scored(rows_of(cut, truth)) == 29


@pytest.mark.parametrize(("shape", "length"), [((5, 10), 4), ((5, 2, 4), 0), ((5, 2, 4), 8)])
def test_rows_of_another_length_are_refused(shape: tuple[int, ...], length: int) -> None:
    with pytest.raises(ValueError, match="set `rows_of`"):
        Frechet(embedding=KEY, rows_of=length).value(rows_of(np.ones(shape), np.ones(shape)))


# ---- next to nothing

ALL: tuple[Metric, ...] = (
    *(metric(embedding=KEY, paired=paired) for metric in OF_SETS for paired in (True, False)),
    Frechet(embedding=KEY, rows_of=6),
    KL(embedding=KEY),
    Inception(embedding=KEY),
    Inception(embedding=KEY, paired=True),
)


@pytest.mark.parametrize("metric", ALL)
def test_rows_of_nan_alone_are_nan_and_none(metric: Metric) -> None:
    nothing = np.full((12, 6), np.nan, np.float32)
    estimate = measure(metric, rows_of(nothing, nothing), num_resamples=3)
    assert np.isnan([estimate.value, estimate.low, estimate.high]).all()
    assert (estimate.n, estimate.unscored) == (0, 12)


@pytest.mark.parametrize("metric", [m for m in ALL if m != Inception(embedding=KEY)])
@pytest.mark.parametrize("how", ["no key", "no rows"])
def test_without_ground_truth_nothing_is_measured_but_inception(metric: Metric, how: str) -> None:
    predicted = normal(12, 6)
    rows = rows_of(predicted, None if how == "no key" else np.full_like(predicted, np.nan))
    assert np.isnan(metric.value(rows))
    assert metric.num_scored(rows) == 0
    assert Inception(embedding=KEY).value(rows) == inception_score(predicted)


def test_one_prediction_has_a_divergence_but_no_distance() -> None:
    predicted, truth = normal(1, 6), normal(12, 6, seed=1)
    rows = rows_of(placed(predicted, 4, 12), truth)
    for metric in (m(embedding=KEY, paired=paired) for m in OF_SETS for paired in (True, False)):
        assert np.isnan(metric.value(rows))
        assert metric.num_scored(rows) == 1
    assert KL(embedding=KEY).value(rows) == pytest.approx(kl_divergence(truth[4:5], predicted)[0])
    assert np.isnan(Inception(embedding=KEY).value(rows))
    assert Inception(embedding=KEY, splits=1).value(rows) == pytest.approx(1.0)


@pytest.mark.parametrize("metric", ALL)
def test_an_unknown_embedding_is_named(metric: Metric) -> None:
    with pytest.raises(ValueError, match="no scores or embeddings 'judge/vector'; there are: other/vector"):
        metric.value(Rows(("a",), {}, {"other/vector": normal(1, 6)}, {}))
