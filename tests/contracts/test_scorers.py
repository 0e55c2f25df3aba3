"""Every scorer in the drawer: order, batch size, silence, and true sound against noise."""

from __future__ import annotations

import numpy as np
import pytest

from foleypref.published.places import MissingWeights
from foleypref.scoring.scorers import NEEDS, Scorer, build_scorer, is_oracle
from foleypref.settings.parts import names
from foleypref.workspace.records import Score
from tests.judged import scores_of
from tests.world_items import with_wave, world_item, world_items

COMBINERS = {"audioscore"}  # made of other scorers and a fitted file: tests/test_fit.py


@pytest.fixture(scope="module", params=[n for n in names("scorers") if n not in COMBINERS])
def named(request: pytest.FixtureRequest) -> tuple[str, Scorer]:
    try:
        scorer = build_scorer(request.param)
    except ValueError as error:
        if "needs the package" in str(error):
            pytest.skip(str(error))
        raise
    try:
        return request.param, scorer.load()
    except MissingWeights as error:  # tests/test_<scorer>.py has random networks and golden numbers
        pytest.skip(str(error))


def table(scores: list[Score]) -> dict[tuple[str, str], float | None]:
    return {(s.candidate_id, s.dimension): s.value for s in scores}


def assert_same(a: dict, b: dict) -> None:
    assert a.keys() == b.keys()
    for key, value in a.items():
        assert (value is None) == (b[key] is None), key
        if value is not None:
            assert b[key] == pytest.approx(value, rel=1e-4, abs=1e-4), key


def test_declares_itself(named):
    name, scorer = named
    assert scorer.needs <= set(NEEDS)
    assert set(scorer.higher_is_better) == set(scorer.dimensions)
    assert scorer.version
    assert is_oracle(scorer) == name.startswith("oracle_")


def test_one_score_an_item_and_dimension_with_its_name(named):
    name, scorer = named
    scores = scores_of(scorer, world_items())
    expected = {(i.candidate_id, d) for i in world_items() for d in scorer.dimensions}
    assert sorted(table(scores)) == sorted(expected)
    assert len(scores) == len(expected)
    assert {s.scorer for s in scores} == {name}
    assert {s.version for s in scores} == {scorer.version}
    assert all(s.reason for s in scores if s.value is None)


def test_independent_of_order_and_batch_size(named):
    _, scorer = named
    items = world_items()
    whole = table(scores_of(scorer, items))
    assert_same(whole, table(scores_of(scorer, items[::-1])))
    assert_same(whole, table([s for item in items for s in scores_of(scorer, [item])]))


def test_silence_is_no_exception(named):
    _, scorer = named
    items = [with_wave(i, np.zeros_like(i.wave), "silent") for i in world_items()]
    for s in scores_of(scorer, items):
        # an oracle knows that something should be heard, a judge of pictures does not listen
        if not is_oracle(scorer) and "audio" in scorer.needs:
            assert s.value is None
            assert s.reason
    assert scores_of(scorer, []) == []


def test_short_and_missing_inputs_are_no_exception(named):
    _, scorer = named
    item = world_item("drum")
    short = with_wave(item, item.wave[:800], "short")
    empty = with_wave(item, item.wave[:0], "empty")
    assert len(scores_of(scorer, [short, empty, item])) == 3 * len(scorer.dimensions)


def test_true_sound_beats_noise(named):
    _, scorer = named
    generator = np.random.default_rng(0)
    items = world_items()
    noisy = [with_wave(i, 0.2 * generator.standard_normal(len(i.wave)), "noise") for i in items]
    true, noise = table(scores_of(scorer, items)), table(scores_of(scorer, noisy))
    for dimension in scorer.dimensions:
        sign = 1 if scorer.higher_is_better[dimension] else -1
        pairs = [
            (true[i.candidate_id, dimension], noise[n.candidate_id, dimension]) for i, n in zip(items, noisy)
        ]
        scored = [(a, b) for a, b in pairs if a is not None and b is not None]
        if not scored:  # it finds nothing in noise that could be judged, and says so
            assert any(a is not None for a, _ in pairs), f"{dimension}: nothing was scored"
            assert all(s.reason for s in scores_of(scorer, noisy) if s.dimension == dimension)
            continue
        ahead = np.mean([sign * (a - b) for a, b in scored])
        assert ahead > 0 if "audio" in scorer.needs else ahead == 0, dimension


def test_embeddings_are_rows_of_their_items(named):
    _, scorer = named
    items = world_items()
    embeddings = scorer.judge(items).embeddings
    assert tuple(sorted(embeddings)) == tuple(sorted(scorer.embeddings))
    for name, rows in embeddings.items():
        assert len(rows) == len(items)
        alone = scorer.judge(items[2:3]).embeddings[name]
        np.testing.assert_allclose(alone[0].numpy(), rows[2].numpy(), rtol=1e-3, atol=1e-3)
