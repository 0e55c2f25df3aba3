"""Fit against truth: a known rule is found again, clips never leak between folds, oracles are refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from foleypref.fit import FitSettings, fit
from foleypref.scoring.crossval import (
    Examples,
    Training,
    clip_folds,
    cross_validate,
    fit_audioscore,
    statistics,
)
from foleypref.scoring.fit_report import FitReport
from foleypref.scoring.human_labels import majority_labels
from foleypref.scoring.scorers import ScoreItem
from foleypref.scoring.scorers.audioscore import AudioScore
from foleypref.workspace.records import Rating, Score
from tests import scored_workspace as scored
from tests.judged import scores_of

QUICK = FitSettings(num_steps=150, num_shuffles=2)
J0, J1, J2 = scored.JUDGES
LOUDNESS, CHEAT = (f"tests.scored_workspace:{name}/rms" for name in ("Loudness", "Cheat"))


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A workspace with 60 clips, rated by the rule, and its fit."""
    values = scored.rule_values(300)
    workspace, candidates = scored.fill(tmp_path_factory.mktemp("fit") / "w", 60, values)
    scored.rate(workspace, candidates, scored.rule_labels(values), ("ann", "bob"))
    return workspace, fit(workspace, QUICK)


def test_a_known_rule_is_recovered(fitted):
    workspace, report = fitted
    assert report.accuracy > 0.85
    assert report.accuracy > report.majority_accuracy + 0.3
    assert report.macro_f1 > 0.8
    assert report.pair_agreement > 0.9
    assert report.alpha == pytest.approx(1.0)
    assert np.sum(report.confusion) == report.num_candidates == 300
    assert report.num_ratings == 600
    assert report.left_out == {}
    score = AudioScore(weights=str(workspace.root / "audioscore" / "audioscore.safetensors")).load()
    order = [score.fitted.dimensions.index(name) for name in scored.JUDGES]
    fresh = scored.rule_values(500, seed=9)
    values = np.stack([fresh[name] for name in scored.JUDGES], 1)[:, np.argsort(order)]
    probabilities = score.probabilities(values)
    assert probabilities.shape == (500, 3)
    np.testing.assert_allclose(probabilities.sum(1), 1)
    assert (probabilities.argmax(1) == scored.rule_labels(fresh)).mean() > 0.85


def test_contributions_name_what_matters(fitted):
    drops = {name: c.log_likelihood_drop for name, c in fitted[1].contributions.items()}
    assert drops[J0] > 0.1
    assert drops[J2] > 0.1
    assert abs(drops[J1]) < 0.05


def test_the_report_is_on_disk_and_is_json(fitted):
    workspace, report = fitted
    path = workspace.root / "audioscore" / "audioscore.json"
    json.loads(path.read_text(), parse_constant=lambda text: pytest.fail(f"{text} is not JSON"))
    assert FitReport.model_validate_json(path.read_text()) == report
    assert sum(int(b["n"]) for b in report.reliability) == 300


def test_a_rerun_is_skipped_and_a_change_is_not(fitted):
    workspace, report = fitted
    path = workspace.root / "audioscore" / "audioscore.safetensors"
    before = path.stat().st_mtime_ns
    assert fit(workspace, QUICK) == report
    assert path.stat().st_mtime_ns == before
    content = path.read_bytes()
    path.unlink()
    assert fit(workspace, QUICK) == report  # made again, bit for bit
    assert path.read_bytes() == content
    other = fit(workspace, QUICK.model_copy(update={"seed": 1, "name": "other"}))
    assert other.version != report.version


def test_save_and_load_are_equal(fitted, tmp_path):
    workspace, _ = fitted
    score = AudioScore(weights=str(workspace.root / "audioscore" / "audioscore.safetensors")).load()
    again = score.save(tmp_path / "deep" / "copy.safetensors")
    values = np.array([[0.3, np.nan, 0.1], [np.nan, 0.2, np.nan]])
    np.testing.assert_array_equal(again.probabilities(values), score.probabilities(values))
    assert again.version == score.version
    assert again.fitted.notes == score.fitted.notes
    assert again.needs == {"audio", "video", "text"}
    with pytest.raises(ValueError, match="found"):
        score.probabilities(values[:, :2])
    (tmp_path / "broken").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="holds no AudioScore"):
        AudioScore(weights=str(tmp_path / "broken")).load()


def test_a_missing_value_is_the_mean_and_says_so():
    values = np.array([[1.0, 5.0], [3.0, np.nan], [np.nan, 5.0]])
    mean, std = statistics(values)
    assert mean.tolist() == [2.0, 5.0]
    assert std.tolist() == [1.0, 1.0]  # the second never varies
    targets = np.eye(3)
    inputs = fit_audioscore(values, targets, {"a": "1", "b": "1"}, Training(num_steps=1)).inputs(values)
    assert inputs.tolist() == [[-1, 0, 1, 1], [1, 0, 1, 0], [0, 0, 0, 1]]
    assert statistics(np.full((2, 1), np.nan))[1].tolist() == [1.0]


def test_the_validity_bit_is_learned():
    # The value is noise; that it is missing decides.
    rng = np.random.default_rng(0)
    values = rng.normal(size=(200, 1))
    missing = rng.random(200) < 0.5
    values[missing] = np.nan
    model = fit_audioscore(values, np.eye(3)[np.where(missing, 0, 2)], {"a": "1"}, Training(num_steps=200))
    assert (model.probabilities(values).argmax(1) == np.where(missing, 0, 2)).all()


def test_folds_hold_whole_clips_and_are_even():
    clip_ids = np.repeat([f"c{i}" for i in range(23)], 5)
    folds = clip_folds(clip_ids, 5, seed=0)
    for clip in np.unique(clip_ids):
        assert len(set(folds[clip_ids == clip])) == 1
    sizes = np.bincount(folds)
    assert sizes.max() - sizes.min() <= 5
    assert (clip_folds(clip_ids, 5, 0) == folds).all()
    assert (clip_folds(clip_ids, 5, 1) != folds).any()
    with pytest.raises(ValueError, match="come from 2 clips"):
        clip_folds(np.array(["a", "b", "b"]), 5, 0)


def test_cross_validation_does_not_leak_clips():
    """Values identify a clip and labels are random per clip: only a model that saw it knows its label."""
    rng = np.random.default_rng(3)
    clip_ids = np.repeat([f"c{i:02d}" for i in range(40)], 10)
    values = np.repeat(rng.normal(size=(40, 6)), 10, axis=0)
    labels = np.repeat(rng.integers(0, 3, 40), 10)
    training = Training(hidden=64, num_steps=300, weight_decay=0)
    names = list("abcdef")

    def right(groups: np.ndarray) -> float:
        held = cross_validate(Examples(groups, values, np.eye(3)[labels]), names, training)
        return float((held.probabilities.argmax(1) == labels).mean())

    assert right(clip_ids) < 0.6
    assert right(np.arange(400).astype(str)) > 0.95  # the same with split clips, so the test can fail


def test_oracles_are_refused_and_left_out(tmp_path):
    values = {**scored.rule_values(50), "oracle_onset/onset_f1": np.linspace(0, 1, 50)}
    values[CHEAT] = values["audioscore/p_good"] = np.linspace(0, 1, 50)
    values["unknown_scorer/it"] = np.linspace(0, 1, 50)
    workspace, candidates = scored.fill(tmp_path / "w", 10, values)
    scored.rate(workspace, candidates, scored.rule_labels(values))
    for name in ("oracle_onset/onset_f1", CHEAT):
        with pytest.raises(ValueError, match="reads the truth"):
            fit(workspace, QUICK.model_copy(update={"dimensions": (J0, name)}))
    with pytest.raises(ValueError, match="own output"):
        fit(workspace, QUICK.model_copy(update={"dimensions": ("audioscore/p_good",)}))
    with pytest.raises(ValueError, match="no part is called"):
        fit(workspace, QUICK.model_copy(update={"dimensions": ("unknown_scorer/it",)}))
    report = fit(workspace, QUICK)
    assert set(report.dimensions) == set(scored.JUDGES)
    assert report.left_out["oracle_onset/onset_f1"] == "reads the truth"
    assert len(report.left_out) == 4
    model = fit_audioscore(
        np.ones((2, 1)), np.eye(3)[:2], {"oracle_onset/onset_f1": "1"}, Training(num_steps=1)
    )
    with pytest.raises(ValueError, match="reads the truth"):
        AudioScore.of(model)
    (tmp_path / "forged").write_bytes(model.serialise())
    with pytest.raises(ValueError, match="reads the truth"):
        AudioScore(weights=str(tmp_path / "forged")).load()


def test_as_a_scorer_it_runs_its_judges(tmp_path):
    rms = np.linspace(0.01, 0.9, 60)
    model = fit_audioscore(
        rms[:, None],
        np.eye(3)[np.where(rms > 0.45, 2, 0)],
        {LOUDNESS: "1"},
        Training(),
    )
    score = AudioScore.of(model).save(tmp_path / "a.safetensors")
    assert score.needs == {"audio"}
    waves = {"loud": np.full(160, 0.8), "soft": np.full(160, 0.05), "none": np.zeros(160)}
    items = [ScoreItem(name, wave.astype(np.float32), 16000) for name, wave in waves.items()]
    scores = {(s.candidate_id, s.dimension): s for s in scores_of(score, items)}
    assert len(scores) == 9
    assert scores["loud", "p_good"].value > 0.9
    assert scores["soft", "p_bad"].value > 0.9
    assert scores["none", "p_bad"].value is None
    assert scores["none", "p_bad"].reason == "no judge scored it"
    assert scores["loud", "p_good"].version == score.version
    old = fit_audioscore(np.ones((2, 1)), np.eye(3)[:2], {LOUDNESS: "0"}, Training(num_steps=1))
    with pytest.raises(ValueError, match="fit again"):
        scores_of(AudioScore.of(old), items)
    with pytest.raises(ValueError, match="no weights given"):
        AudioScore().load()


def test_too_little_to_fit_says_what_was_found(tmp_path):
    values = scored.rule_values(40)
    workspace, candidates = scored.fill(tmp_path / "w", 8, values)
    with pytest.raises(ValueError, match="found 0 rated candidates"):
        fit(workspace, QUICK)
    scored.rate(workspace, candidates[:20], np.ones(20))
    with pytest.raises(ValueError, match="found 20 rated candidates, 30 are needed"):
        fit(workspace, QUICK)
    lower = QUICK.model_copy(update={"min_ratings": 5})
    with pytest.raises(ValueError, match="every rated candidate is 'medium'"):
        fit(workspace, lower)
    scored.rate(workspace, candidates[20:24], np.zeros(4))
    with pytest.raises(ValueError, match="come from 5 clips"):
        fit(workspace, lower.model_copy(update={"folds": 6}))
    with pytest.raises(ValueError, match="found 0 rated candidates"):
        fit(workspace, lower.model_copy(update={"raters": ("simulated-*",)}))
    with pytest.raises(ValueError, match="choose from"):
        fit(workspace, lower.model_copy(update={"dimensions": ("world_tagger/inception",)}))


def test_the_version_with_most_values_is_used(tmp_path):
    values = scored.rule_values(50)
    workspace, candidates = scored.fill(tmp_path / "w", 10, values)
    scored.rate(workspace, candidates, scored.rule_labels(values))
    workspace.append(
        [Score.make(c.candidate_id, "world_text", "2", "similarity", 9.0) for c in candidates[:9]]
    )
    assert fit(workspace, QUICK).dimensions[J1] == "1"


def test_one_label_from_several_raters():
    counts = np.array([[2, 1, 0], [1, 1, 1], [1, 0, 1], [0, 2, 2], [1, 2, 2]])
    # majority; three-way tie at mean 1; two ends tie, the lower; 1 and 2 tie at 1.5, the lower; mean 1.2
    assert majority_labels(counts).tolist() == [0, 1, 0, 1, 1]


def test_soft_labels_reach_the_probabilities():
    values = np.zeros((50, 1))
    shares = np.tile([0.2, 0.3, 0.5], (50, 1))
    model = fit_audioscore(values, shares, {"a": "1"}, Training(num_steps=400, weight_decay=0))
    np.testing.assert_allclose(model.probabilities(values[:1])[0], [0.2, 0.3, 0.5], atol=0.01)


def test_training_is_a_function_of_its_arguments():
    values, targets = np.random.default_rng(0).normal(size=(30, 2)), np.eye(3)[np.arange(30) % 3]
    first = fit_audioscore(values, targets, {"a": "1", "b": "1"}, Training(num_steps=20))
    torch.randn(5)
    second = fit_audioscore(values, targets, {"a": "1", "b": "1"}, Training(num_steps=20))
    assert first.serialise() == second.serialise()


def test_ratings_of_unknown_candidates_do_not_count(tmp_path):
    workspace, _ = scored.fill(tmp_path / "w", 8, scored.rule_values(40))
    workspace.append([Rating.make(f"ghost{i}", "ann", i % 3, "human") for i in range(40)])
    with pytest.raises(ValueError, match="found 0 rated candidates"):
        fit(workspace, QUICK)
