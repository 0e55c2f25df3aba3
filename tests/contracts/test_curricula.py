"""The contract of every curriculum in the drawer, and further promises of two of them."""

from __future__ import annotations

from collections import Counter

import pytest

from foleypref.settings.parts import Part, build, find, names
from foleypref.training.curricula import Curriculum, walk
from foleypref.training.curricula.two_stage import TwoStage
from foleypref.workspace.records import Pair

every = pytest.mark.parametrize("name", names("curricula"))


def _pairs(num: int = 30, num_hard: int = 10) -> list[Pair]:
    """Pairs of which `num_hard` are below the paper's threshold of 0.7, human ones among them."""
    complexities = [
        0.0 if i < num_hard // 2 else 0.4 if i < num_hard else 0.7 + 0.01 * (i % 30) for i in range(num)
    ]
    return [
        Pair(f"p{i:03}", f"c{i}", "", f"w{i}", f"l{i}", 0.9, 0.1, c, "auto" if c else "human")
        for i, c in enumerate(complexities)
    ]


def _build(name: str) -> Curriculum:
    curriculum = build("curricula", name)
    assert isinstance(curriculum, Curriculum)
    return curriculum


@every
def test_is_a_part_with_a_line_for_the_start_of_a_run(name: str) -> None:
    assert issubclass(find("curricula", name), Part)
    summary = _build(name).summary(_pairs(), 100)
    assert summary
    assert "\n" not in summary


@every
@pytest.mark.parametrize("n", [1, 8, 50])
def test_picks_n_of_the_pairs(name: str, n: int) -> None:
    pairs = _pairs()
    for step in (0, 7, 19):
        picked = _build(name).pick(pairs, step, 20, n, seed=0)
        assert len(picked) == n
        assert set(picked) <= set(pairs)


@every
def test_is_pure_in_step_and_seed(name: str) -> None:
    pairs, curriculum = _pairs(), _build(name)
    forwards = [curriculum.pick(pairs, step, 20, 4, seed=0) for step in range(20)]
    backwards = [_build(name).pick(pairs, step, 20, 4, seed=0) for step in reversed(range(20))]
    assert forwards == backwards[::-1]
    assert forwards != [curriculum.pick(pairs, step, 20, 4, seed=1) for step in range(20)]


@every
def test_covers_every_pair_by_the_end_of_a_long_run(name: str) -> None:
    pairs, curriculum = _pairs(), _build(name)
    seen = {pair for step in range(60) for pair in curriculum.pick(pairs, step, 60, 4, seed=0)}
    assert seen == set(pairs)


@every
def test_works_with_one_pair_and_with_one_step(name: str) -> None:
    pair = _pairs(1, 0)
    assert _build(name).pick(pair, 0, 1, 3, seed=0) == pair * 3
    assert len(_build(name).pick(_pairs(), 0, 1, 3, seed=0)) == 3


@every
def test_stages_count_up_from_0(name: str) -> None:
    stages = [_build(name).stage(_pairs(), step, 30) for step in range(30)]
    assert stages[0] == 0
    assert stages == sorted(stages)


@every
@pytest.mark.parametrize("max_steps", [1, 2, 50])
def test_severity_is_pure_in_the_step_from_0_to_1_and_never_grows(name: str, max_steps: int) -> None:
    found = [_build(name).severity(step, max_steps) for step in range(max_steps)]
    assert found == [_build(name).severity(step, max_steps) for step in reversed(range(max_steps))][::-1]
    assert all(0 <= severity <= 1 for severity in found)
    assert found == sorted(found, reverse=True)
    assert found[0] == 1.0


@every
def test_there_may_be_no_pairs_where_all_are_made_by_rule(name: str) -> None:
    stages = [_build(name).stage([], step, 30) for step in range(30)]
    assert stages[0] == 0
    assert stages == sorted(stages)


def test_walk_visits_everything_once_a_pass() -> None:
    steps = [walk(10, 3 * step, 3, 0) for step in range(10)]
    flat = [i for step in steps for i in step]
    assert all(sorted(flat[10 * k : 10 * k + 10]) == list(range(10)) for k in range(3))
    assert flat[:10] != flat[10:20]


def test_two_stage_shows_easy_pairs_first_and_visits_all_equally_often() -> None:
    pairs, curriculum = _pairs(30, 9), TwoStage()
    visits: Counter[str] = Counter()
    for step in range(60):  # 21 easy and 9 hard pairs: 42 steps, then 18
        picked = curriculum.pick(pairs, step, 60, 4, seed=0)
        assert curriculum.stage(pairs, step, 60) == (0 if step < 42 else 1)
        assert {pair.complexity >= 0.7 for pair in picked} == {step < 42}
        visits.update(pair.pair_id for pair in picked)
    assert set(visits.values()) == {8}
    assert curriculum.summary(pairs, 60) == (
        "two_stage: 21 pairs with complexity ≥ 0.7 in 42 steps, then 9 pairs in 18 steps"
    )


def test_two_stage_puts_the_threshold_itself_in_stage_1_and_human_pairs_in_stage_2() -> None:
    easy = Pair("a", "c", "", "w", "l", 0.9, 0.1, 0.7, "auto")
    human = Pair("b", "c", "", "w", "l", 0.9, 0.1, 0.0, "human")
    assert TwoStage().pick([easy, human], 0, 2, 1, seed=0) == [easy]
    assert TwoStage().pick([easy, human], 1, 2, 1, seed=0) == [human]


def test_two_stage_takes_a_fraction() -> None:
    stages = [TwoStage(stage_one_fraction=0.25).stage(_pairs(), step, 40) for step in range(40)]
    assert stages.count(0) == 10


@pytest.mark.parametrize(
    ("num_hard", "empty", "stage"), [(0, "stage 2 is empty", 0), (30, "stage 1 is empty", 1)]
)
@pytest.mark.parametrize("fraction", [None, 0.5])
def test_two_stage_gives_all_steps_to_the_stage_that_has_pairs(
    num_hard: int, empty: str, stage: int, fraction: float | None
) -> None:
    pairs, curriculum = _pairs(30, num_hard), TwoStage(stage_one_fraction=fraction)
    assert {curriculum.stage(pairs, step, 20) for step in range(20)} == {stage}
    assert {p for step in range(20) for p in curriculum.pick(pairs, step, 20, 6, seed=0)} == set(pairs)
    assert empty in curriculum.summary(pairs, 20)


def test_two_stage_gives_a_rare_stage_a_step() -> None:
    assert [TwoStage().stage(_pairs(30, 1), step, 10) for step in range(10)].count(1) == 1
    assert [TwoStage().stage(_pairs(30, 29), step, 10) for step in range(10)].count(0) == 1
