"""The ramp: where it begins and ends, what lies between, and how it holds."""

from __future__ import annotations

import math

import pytest

from foleypref.training.curricula.ramp import Ramp
from foleypref.training.curricula.uniform import Uniform
from tests.contracts.test_curricula import _pairs


@pytest.mark.parametrize("kind", ["linear", "cosine", "stages"])
def test_it_goes_from_first_to_last(kind: str) -> None:
    ramp = Ramp(kind=kind, first=0.9, last=0.3)
    assert ramp.severity(0, 100) == pytest.approx(0.9)
    assert ramp.severity(99, 100) == pytest.approx(0.3)
    assert ramp.severity(500, 100) == pytest.approx(0.3)
    assert ramp.severity(0, 1) == pytest.approx(0.9)


def test_linear_and_cosine_are_what_they_say() -> None:
    for step in range(101):
        p = step / 100
        assert Ramp().severity(step, 101) == pytest.approx(1 - 0.8 * p)
        cosine = 0.2 + 0.8 * (1 + math.cos(math.pi * p)) / 2
        assert Ramp(kind="cosine").severity(step, 101) == pytest.approx(cosine)


def test_stages_are_equal_stairs_at_equal_distances() -> None:
    ramp = Ramp(kind="stages", num_stages=4, first=1.0, last=0.1)
    found = [ramp.severity(step, 400) for step in range(400)]
    stairs = sorted({round(severity, 6) for severity in found}, reverse=True)
    assert stairs == pytest.approx([1.0, 0.7, 0.4, 0.1])
    assert [sum(abs(s - stair) < 1e-6 for s in found) for stair in stairs] == pytest.approx([100] * 4, abs=1)
    assert [ramp.stage((), step, 400) for step in (0, 110, 210, 399)] == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", ["linear", "cosine", "stages"])
def test_it_holds_before_it_falls(kind: str) -> None:
    ramp = Ramp(kind=kind, hold=0.5, num_stages=8)
    assert {ramp.severity(step, 101) for step in range(51)} == {1.0}
    assert ramp.severity(70, 101) < 1.0
    assert ramp.severity(100, 101) == pytest.approx(0.2)


def test_an_ablation_may_turn_it_around() -> None:
    assert [Ramp(first=0.0, last=1.0).severity(step, 3) for step in range(3)] == pytest.approx([0, 0.5, 1])


def test_stored_pairs_are_walked_like_uniform_ones() -> None:
    pairs = _pairs()
    visits = [p for step in range(15) for p in Ramp().pick(pairs, step, 15, 4, seed=0)]
    assert sorted(p.pair_id for p in visits) == sorted(p.pair_id for p in pairs * 2)
    assert len(visits) == len([p for step in range(15) for p in Uniform().pick(pairs, step, 15, 4, seed=0)])


def test_its_line_says_the_way_down() -> None:
    assert Ramp().summary([], 300) == "ramp: severity 1 to 0.2 (linear) over 300 steps"
    line = Ramp(kind="stages", hold=0.25).summary([], 300)
    assert line == "ramp: severity 1 to 0.2 (3 stages) over 300 steps after 25% of them at 1"
