"""Pairings: the scored candidates of one clip in, preference pairs out.

A pair never crosses clips, and its chosen candidate is never behind the rejected one on the pairing's own
criterion. A clip without a pair gives a reason, and reasons are counted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, NamedTuple

from foleypref.settings.parts import FromDrawer, Part, part_help
from foleypref.workspace.records import AUTO, Candidate, Clip, Pair


@dataclass(frozen=True)
class ScoredCandidate:
    """A candidate with AudioScore's probabilities over (bad, medium, good)."""

    candidate: Candidate
    p_bad: float
    p_medium: float
    p_good: float


@dataclass(frozen=True)
class Group:
    """All candidates of one clip that AudioScore could score."""

    clip: Clip
    candidates: tuple[ScoredCandidate, ...]


class Paired(NamedTuple):
    """The pairs of a group, or the reason why there are none."""

    pairs: list[Pair]
    reason: str = ""


class Pairing(Part, ABC):
    """The base of every pairing, and the whole contract."""

    @abstractmethod
    def pairs(self, group: Group) -> Paired:
        """Return the pairs of one clip, or the reason why it gives none."""


PairingPart = Annotated[Pairing, FromDrawer("pairings"), part_help("pairings")]


def complexity(chosen: ScoredCandidate, rejected: ScoredCandidate) -> float:
    """Return Eq. 3 of arXiv 2603.11089: ½[(p_G^w − p_G^l) + (p_B^l − p_B^w)] in [−1, 1]; 1 is easy."""
    return 0.5 * ((chosen.p_good - rejected.p_good) + (rejected.p_bad - chosen.p_bad))


def make_pair(clip: Clip, chosen: ScoredCandidate, rejected: ScoredCandidate) -> Pair:
    """Return the record of a pair that AudioScore decided: p(good) of both and Eq. 3, source "auto"."""
    ids = chosen.candidate.candidate_id, rejected.candidate.candidate_id
    scores = chosen.p_good, rejected.p_good
    return Pair.make(clip, ids, AUTO, scores, complexity=complexity(chosen, rejected))
