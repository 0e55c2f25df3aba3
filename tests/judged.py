"""A scorer's judgement of some items as the records that the score stage would write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from foleypref.scoring.scorers import ScoreItem, Scorer
from foleypref.workspace.records import Score


class Judged(NamedTuple):
    """The records and embeddings of one call of `judge`."""

    scores: list[Score]
    embeddings: dict[str, Tensor]


def judged(scorer: Scorer, items: Sequence[ScoreItem]) -> Judged:
    """Judge items once; the scores come item by item."""
    judgement = scorer.judge(items)
    return Judged(judgement.records(scorer.scored_as, scorer.version, items), judgement.embeddings)


def scores_of(scorer: Scorer, items: Sequence[ScoreItem]) -> list[Score]:
    """Judge items once and return only the scores."""
    return judged(scorer, items).scores
