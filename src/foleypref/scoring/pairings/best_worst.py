"""The likeliest good candidate of a clip over its likeliest bad one (V2A-DPO, arXiv 2603.11089, Eq. 1-2)."""

from __future__ import annotations

from foleypref.scoring.pairings import Group, Paired, Pairing, ScoredCandidate, complexity, make_pair

TOO_FEW = "fewer than two candidates"
SAME = "one candidate is both best and worst"
NOT_AHEAD = "the winner is not ahead in p(good) and p(bad)"
TOO_CLOSE = "complexity under min_complexity"


class BestWorst(Pairing):
    """At most one pair per clip. Ties go to the smaller candidate id, so their order is irrelevant."""

    min_complexity: float = 0.0  # in [-1, 1]; pairs under it are dropped

    def pairs(self, group: Group) -> Paired:
        """Return the pair, unless one candidate wins both, is not ahead in both, or the gap is too small."""
        if len(group.candidates) < 2:
            return Paired([], TOO_FEW)
        winner, loser = _most(group, "p_good"), _most(group, "p_bad")  # Eq. 1, Eq. 2
        if winner.candidate.candidate_id == loser.candidate.candidate_id:
            return Paired([], SAME)
        if not (winner.p_good > loser.p_good and winner.p_bad < loser.p_bad):
            return Paired([], NOT_AHEAD)
        if complexity(winner, loser) < self.min_complexity:
            return Paired([], TOO_CLOSE)
        return Paired([make_pair(group.clip, winner, loser)])


def _most(group: Group, name: str) -> ScoredCandidate:
    return min(group.candidates, key=lambda one: (-getattr(one, name), one.candidate.candidate_id))
