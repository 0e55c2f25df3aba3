"""Up to k pairs a clip whose expected scores lie a margin apart; no candidate is used twice."""

from __future__ import annotations

from pydantic import Field

from foleypref.scoring.pairings import Group, Judged, Paired, Pairing, make_pair

TOO_FEW = "fewer than two candidates"
TOO_CLOSE = "expected scores closer than the margin"


class Margin(Pairing):
    """Best with worst, second best with second worst, and so on: disjoint pairs, the widest gaps first.

    The expected score is p_medium + 2 p_good in [0, 2]; as probabilities add up to 1, a gap is twice the
    complexity of Eq. 3 (arXiv 2603.11089). Ties go to the smaller candidate id.
    """

    margin: float = Field(0.5, gt=0, le=2)  # classes
    max_pairs: int = Field(2, ge=1)  # a clip

    def pairs(self, group: Group) -> Paired:
        """The pairs, or why there are none."""
        if len(group.judged) < 2:
            return Paired([], TOO_FEW)
        ranked = sorted(group.judged, key=lambda j: (-expected_score(j), j.candidate.candidate_id))
        found = []
        for chosen, rejected in zip(ranked[: min(self.max_pairs, len(ranked) // 2)], reversed(ranked)):
            if expected_score(chosen) - expected_score(rejected) < self.margin:
                break  # the pairs that follow are nested in this one
            found.append(make_pair(group.clip, chosen, rejected))
        return Paired(found, "" if found else TOO_CLOSE)


def expected_score(judged: Judged) -> float:
    """The expected class, bad 0, medium 1, good 2."""
    return judged.p_medium + 2 * judged.p_good
