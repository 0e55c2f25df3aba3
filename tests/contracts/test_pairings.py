"""Every file in pairings/, tested the moment it exists, for random clips and corner cases."""

from __future__ import annotations

import numpy as np
import pytest

from foleypref.scoring.pairings import Group, Paired, Pairing, ScoredCandidate, complexity
from foleypref.settings.parts import build, names
from tests.scored_workspace import make_candidate, make_clip

PAIRINGS = names("pairings")


def pairing_of(name: str) -> Pairing:
    pairing = build("pairings", name)
    assert isinstance(pairing, Pairing)
    return pairing


def group_of(index: int, probabilities: np.ndarray) -> Group:
    clip = make_clip(index)
    rows = enumerate(probabilities.tolist())
    return Group(clip, tuple(ScoredCandidate(make_candidate(clip, seed), *row) for seed, row in rows))


def random_groups(num: int = 60) -> list[Group]:
    rng = np.random.default_rng(0)
    return [group_of(i, rng.dirichlet((0.5, 0.5, 0.5), rng.integers(2, 8))) for i in range(num)]


@pytest.mark.parametrize("name", PAIRINGS)
def test_pairs_stay_in_their_clip_and_the_chosen_is_not_behind(name):
    pairing, num_pairs = pairing_of(name), 0
    for group in random_groups():
        members = {j.candidate.candidate_id: j for j in group.candidates}
        paired = pairing.pairs(group)
        assert isinstance(paired, Paired)
        assert bool(paired.pairs) != bool(paired.reason)  # pairs, or a reason, never both
        for pair in paired.pairs:
            chosen, rejected = members[pair.chosen], members[pair.rejected]
            assert pair.chosen != pair.rejected
            assert pair.clip_id == group.clip.clip_id
            assert pair.prompt == group.clip.prompt
            assert pair.complexity == complexity(chosen, rejected) >= 0
            assert (pair.score_chosen, pair.score_rejected) == (chosen.p_good, rejected.p_good)
            assert pair.source == "auto"
        assert len({p.pair_id for p in paired.pairs}) == len(paired.pairs)
        num_pairs += len(paired.pairs)
    assert num_pairs > 20


@pytest.mark.parametrize("name", PAIRINGS)
def test_the_order_of_candidates_is_irrelevant(name):
    pairing, rng = pairing_of(name), np.random.default_rng(1)
    for group in random_groups(20):
        judged = group.candidates
        shuffled = Group(group.clip, tuple(judged[i] for i in rng.permutation(len(judged))))
        assert pairing.pairs(shuffled) == pairing.pairs(group)


@pytest.mark.parametrize("name", PAIRINGS)
@pytest.mark.parametrize("num", [0, 1])
def test_too_few_candidates_give_a_reason(name, num):
    assert pairing_of(name).pairs(group_of(0, np.full((num, 3), 1 / 3))) == Paired(
        [], "fewer than two candidates"
    )


@pytest.mark.parametrize("name", PAIRINGS)
def test_candidates_that_are_judged_alike_give_a_reason(name):
    paired = pairing_of(name).pairs(group_of(0, np.tile([0.2, 0.3, 0.5], (5, 1))))
    assert paired.pairs == []
    assert paired.reason


@pytest.mark.parametrize("name", PAIRINGS)
def test_a_clear_case_gives_a_pair(name):
    group = group_of(0, np.array([[0.98, 0.01, 0.01], [0.01, 0.01, 0.98]]))
    (pair,) = pairing_of(name).pairs(group).pairs
    assert (pair.rejected, pair.chosen) == tuple(j.candidate.candidate_id for j in group.candidates)
    assert pair.complexity == pytest.approx(0.97)
