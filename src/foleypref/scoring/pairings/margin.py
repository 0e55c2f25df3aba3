"""Up to k pairs per clip whose expected scores lie a margin apart; no candidate is used twice."""

from __future__ import annotations

from pydantic import Field

from foleypref.scoring.pairings import Group, Paired, Pairing, ScoredCandidate, make_pair

TOO_FEW = "fewer than two candidates"
TOO_CLOSE = "expected scores closer than the margin"


class Margin(Pairing):
    """Best with worst, second best with second worst, and so on: disjoint pairs, the widest gaps first.

    The expected score is p_medium + 2 p_good in [0, 2]; as probabilities add up to 1, a gap is twice the
    complexity of Eq. 3 (arXiv 2603.11089). Ties go to the smaller candidate id.
    """

    margin: float = Field(0.5, gt=0, le=2)  # classes
    max_pairs: int = Field(2, ge=1)  # per clip

    def pairs(self, group: Group) -> Paired:
        """Pair from the outside in, until the gap is under the margin."""
        if len(group.candidates) < 2:
            return Paired([], TOO_FEW)
        ranked = sorted(group.candidates, key=lambda j: (-expected_score(j), j.candidate.candidate_id))
        pairs = []
        for chosen, rejected in zip(ranked[: min(self.max_pairs, len(ranked) // 2)], reversed(ranked)):
            if expected_score(chosen) - expected_score(rejected) < self.margin:
                break  # the pairs that follow are nested in this one
            pairs.append(make_pair(group.clip, chosen, rejected))
        return Paired(pairs, "" if pairs else TOO_CLOSE)


def expected_score(one: ScoredCandidate) -> float:
    """Return the expected class: bad 0, medium 1, good 2."""
    return one.p_medium + 2 * one.p_good
