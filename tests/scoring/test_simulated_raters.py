"""Simulated raters: named so, repeatable one by one, agreeing about as much as people do."""

from __future__ import annotations

import numpy as np
import pytest

from foleypref.scoring.simulated_raters import DIMENSIONS, RaterSettings, simulate_ratings, utility
from foleypref.workspace.records import Rating
from tests import scored_workspace


def oracle_values(num: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Oracle scores of an imperfect model's candidates; some clips have no onsets."""
    rng = np.random.default_rng(seed)
    correct = (rng.random(num) < 0.7).astype(float)
    f1 = np.where(rng.random(num) < 0.2, np.nan, rng.beta(2, 1.5, num))
    return {
        "oracle_class/class_correct": correct,
        "oracle_class/class_probability": np.clip(0.15 + 0.6 * correct + rng.normal(0, 0.1, num), 0, 1),
        "oracle_onset/onset_f1": f1,
        "oracle_onset/onset_error_s": np.where(np.isnan(f1), np.nan, rng.exponential(0.08, num)),
        "oracle_noise/noise_floor_db": rng.uniform(-65, -40, num),
    }


@pytest.fixture(scope="module")
def rated(tmp_path_factory):
    workspace, candidates = scored_workspace.fill(
        tmp_path_factory.mktemp("raters") / "w", 80, oracle_values(400), noise_floor_db=-64.0
    )
    return workspace, candidates, simulate_ratings(workspace, RaterSettings())


def test_they_agree_like_people_and_use_every_label(rated):
    _, _, report = rated
    assert 0.6 < report.alpha < 0.8
    for label, expected in (("bad", 0.3), ("medium", 0.35), ("good", 0.35)):
        assert report.label_shares[label] == pytest.approx(expected, abs=0.07)
    assert report.num_candidates == 400
    assert report.new == 1200


def test_ratings_say_what_they_are(rated):
    workspace, candidates, _ = rated
    ratings = workspace.read(Rating)
    assert {r.source for r in ratings} == {"simulated"}
    assert {r.rater for r in ratings} == {f"simulated-{i}" for i in range(1, 6)}
    per_candidate = {
        c.candidate_id: [r for r in ratings if r.candidate_id == c.candidate_id] for c in candidates
    }
    assert {len(given) for given in per_candidate.values()} == {3}
    busy = np.unique([r.rater for r in ratings], return_counts=True)[1]
    assert busy.min() > 180  # of 240 each


def test_a_rerun_adds_nothing(rated):
    workspace, _, report = rated
    again = simulate_ratings(workspace, RaterSettings())
    assert (again.new, again.skipped) == (0, 1200)
    assert (again.alpha, again.label_shares) == (report.alpha, report.label_shares)


def test_a_rating_is_a_function_of_seed_rater_and_candidate(rated, tmp_path):
    workspace, _, _ = rated
    full = {r.rating_id: r for r in workspace.read(Rating)}
    values = {name: column[:50] for name, column in oracle_values(400).items()}
    small, _ = scored_workspace.fill(tmp_path / "w", 10, values, noise_floor_db=-64.0)
    simulate_ratings(small, RaterSettings())
    ratings = small.read(Rating)
    assert len(ratings) == 150
    assert all(full[r.rating_id] == r for r in ratings)  # alone or among others, the same
    other, _ = scored_workspace.fill(tmp_path / "other", 10, values, noise_floor_db=-64.0)
    simulate_ratings(other, RaterSettings(seed=1))
    assert {(r.rating_id, r.label) for r in other.read(Rating)} != {(r.rating_id, r.label) for r in ratings}


def test_better_candidates_get_better_labels_and_all_may_be_good(tmp_path):
    num = 60
    best = {"oracle_class/class_correct": np.ones(num), "oracle_class/class_probability": np.full(num, 0.95)}
    best |= {"oracle_onset/onset_f1": np.full(num, 0.95), "oracle_onset/onset_error_s": np.full(num, 0.01)}
    best |= {"oracle_noise/noise_excess_db": np.full(num, 1.0)}
    workspace, _ = scored_workspace.fill(tmp_path / "good", 12, best)
    assert simulate_ratings(workspace, RaterSettings()).label_shares["good"] > 0.97
    wrong = {**best, "oracle_class/class_correct": np.zeros(num), "oracle_onset/onset_f1": np.full(num, 0.3)}
    wrong["oracle_class/class_probability"] = np.full(num, 0.02)
    workspace, _ = scored_workspace.fill(tmp_path / "bad", 12, wrong)
    assert simulate_ratings(workspace, RaterSettings()).label_shares["good"] == 0


def test_what_no_oracle_knows_is_left_out():
    weights = np.array([0.5, 0.3, 0.2])
    assert utility(np.array([1.0, 0.5, 0.0]), weights) == pytest.approx(0.65)
    assert utility(np.array([1.0, np.nan, 0.0]), weights) == pytest.approx(0.5 / 0.7)
    assert utility(np.array([np.nan, np.nan, 0.4]), weights) == pytest.approx(0.4)


def test_unscored_candidates_are_counted_and_bad_settings_refused(tmp_path):
    values = {DIMENSIONS[0]: np.array([1.0, np.nan, 0.0, np.nan])}
    workspace, candidates = scored_workspace.fill(tmp_path / "w", 2, values, num_candidates=2)
    report = simulate_ratings(workspace, RaterSettings(num_clips=2))
    assert (report.num_candidates, report.num_unscored) == (2, 2)
    assert {r.candidate_id for r in workspace.read(Rating)} == {candidates[i].candidate_id for i in (0, 2)}
    empty, _ = scored_workspace.fill(tmp_path / "empty", 2, {}, num_candidates=2)
    with pytest.raises(ValueError, match="has an oracle score"):
        simulate_ratings(empty, RaterSettings())
    with pytest.raises(ValueError, match="no clips of split"):
        simulate_ratings(empty, RaterSettings(split="test"))
    with pytest.raises(ValueError, match="more than num_raters"):
        RaterSettings(num_raters=2)


def test_some_clips_can_be_rated(tmp_path):
    workspace, _ = scored_workspace.fill(tmp_path / "w", 20, oracle_values(100))
    report = simulate_ratings(workspace, RaterSettings(num_clips=4))
    assert report.num_candidates == 20
    more = simulate_ratings(workspace, RaterSettings(num_clips=6))  # the first four are among them
    assert (more.new, more.skipped) == (30, 60)
