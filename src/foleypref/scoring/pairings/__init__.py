"""Pairings: the scored candidates of one clip in, preference pairs out.

Never across clips, and chosen is never behind rejected on the pairing's own criterion. A clip that gives no
pair says why, and the reasons are counted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, NamedTuple

from foleypref.settings.parts import FromDrawer, Part, part_help
from foleypref.workspace.records import Candidate, Clip, Pair


@dataclass(frozen=True)
class Judged:
    """A candidate with AudioScore's probabilities over (bad, medium, good)."""

    candidate: Candidate
    p_bad: float
    p_medium: float
    p_good: float


@dataclass(frozen=True)
class Group:
    """All judged candidates of one clip."""

    clip: Clip
    judged: tuple[Judged, ...]


class Paired(NamedTuple):
    """Pairs of a group, or the reason why there are none."""

    pairs: list[Pair]
    reason: str = ""


class Pairing(Part, ABC):
    """The base of every pairing, and the whole contract."""

    @abstractmethod
    def pairs(self, group: Group) -> Paired:
        """Return the pairs of one clip, or the reason why it gives none."""


PairingPart = Annotated[Pairing, FromDrawer("pairings"), part_help("pairings")]


def complexity(chosen: Judged, rejected: Judged) -> float:
    """Eq. 3 of arXiv 2603.11089: ½[(p_G^w − p_G^l) + (p_B^l − p_B^w)], in [−1, 1]; 1 is an easy pair."""
    return 0.5 * ((chosen.p_good - rejected.p_good) + (rejected.p_bad - chosen.p_bad))


def make_pair(clip: Clip, chosen: Judged, rejected: Judged) -> Pair:
    """The record of a pair that AudioScore decided: p(good) of both and Eq. 3, source "auto"."""
    ids = chosen.candidate.candidate_id, rejected.candidate.candidate_id
    pair_id = Pair.make_id(clip.clip_id, *ids, "auto")
    scores = chosen.p_good, rejected.p_good
    return Pair(pair_id, clip.clip_id, clip.prompt, *ids, *scores, complexity(chosen, rejected), "auto")
