"""Labels by raters: counts per candidate for fitting, and the pairs that raters decided."""

from __future__ import annotations

import fnmatch
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from foleypref.workspace.records import Candidate, Clip, Pair, Rating, Vote, digest
from foleypref.workspace.store import Workspace

HUMAN, SIMULATED = "human", "simulated"


class HumanLabels(NamedTuple):
    """Ratings by candidate (N), in the order of candidate ids."""

    candidate_ids: list[str]
    clip_ids: np.ndarray  # (N,) str
    counts: np.ndarray  # (N, 3) ratings bad, medium, good
    table: np.ndarray  # (raters, N) labels, NaN where not rated
    sources: dict[str, int]  # ratings by source
    fingerprint: str  # of every rating and its label


def read_human_labels(workspace: Workspace, raters: Sequence[str] = ()) -> HumanLabels:
    """Read the ratings of existing candidates by raters whose name fits one of `raters` (all if empty)."""
    candidates = workspace.table(Candidate, ("clip_id",)).to_pydict()
    clip_of = dict(zip(candidates["candidate_id"], candidates["clip_id"]))
    ratings = [
        r
        for r in workspace.read(Rating)
        if r.candidate_id in clip_of and (not raters or any(fnmatch.fnmatchcase(r.rater, p) for p in raters))
    ]
    ids, table = rating_table(ratings)
    return HumanLabels(
        ids,
        clip_ids=np.array([clip_of[c] for c in ids]),
        counts=np.stack([(table == label).sum(0) for label in range(3)], 1),
        table=table,
        sources=dict(Counter(r.source for r in ratings)),
        fingerprint=digest([(r.rating_id, r.label) for r in ratings]),
    )


def rating_table(ratings: Sequence[Rating]) -> tuple[list[str], np.ndarray]:
    """Return the rated candidates' ids (N), sorted, and labels (raters, N), NaN where not rated."""
    column = {c: i for i, c in enumerate(sorted({r.candidate_id for r in ratings}))}
    row = {name: i for i, name in enumerate(sorted({r.rater for r in ratings}))}
    table = np.full((len(row), len(column)), np.nan)
    for r in ratings:
        table[row[r.rater], column[r.candidate_id]] = r.label
    return list(column), table


def majority_labels(counts: np.ndarray) -> np.ndarray:
    """Return the majority class (N,) of counts (N, 3).

    A tie goes to the tied class nearest to the mean rating, the lower one first.
    """
    mean = counts @ np.arange(3) / counts.sum(1)
    distance = np.round(np.abs(np.arange(3)[None, :] - mean[:, None]), 9)
    return np.where(counts == counts.max(1, keepdims=True), distance, np.inf).argmin(1)


def human_pairs(
    clips: Mapping[str, Clip],
    clip_of: Mapping[str, str],
    ratings: Iterable[Rating],
    votes: Iterable[Vote],
    min_gap: float = 1.0,
) -> list[Pair]:
    """Return the pairs that raters decided: complexity 0 (arXiv 2603.11089), source "human" or "simulated".

    From ratings, a clip's best- and worst-rated candidate if their mean ratings are `min_gap` classes apart;
    score_chosen and score_rejected are the shares of ratings that are good. From votes, every two candidates
    whose votes do not cancel out; the scores are the shares of votes won. A vote outranks ratings on the same
    two candidates, and humans outrank simulated raters on the same clip or two candidates. `clip_of` names
    the candidates that may be paired; ids break ties.
    """
    pairs: dict[frozenset[str], Pair] = {}
    for pair in (*_from_votes(clips, clip_of, votes), *_from_ratings(clips, clip_of, ratings, min_gap)):
        pairs.setdefault(frozenset((pair.chosen, pair.rejected)), pair)
    return sorted(pairs.values(), key=lambda pair: (pair.clip_id, pair.pair_id))


def _from_votes(
    clips: Mapping[str, Clip], clip_of: Mapping[str, str], votes: Iterable[Vote]
) -> Iterable[Pair]:
    by_pair: dict[tuple[str, str, str], list[Vote]] = defaultdict(list)
    for vote in votes:
        known = vote.clip_id in clips and clip_of.get(vote.first) == clip_of.get(vote.second) == vote.clip_id
        if known and vote.first != vote.second:
            low, high = sorted((vote.first, vote.second))
            by_pair[vote.clip_id, low, high].append(vote)
    for (clip_id, low, high), ballots in sorted(by_pair.items(), key=lambda item: item[0]):
        source = HUMAN if any(v.source == HUMAN for v in ballots) else SIMULATED
        counted = [v.preference if v.first == low else -v.preference for v in ballots if v.source == source]
        won, lost = (sum(p == sign for p in counted) / len(counted) for sign in (1, -1))
        if won > lost:
            yield Pair.make(clips[clip_id], (low, high), source, (won, lost))
        elif lost > won:
            yield Pair.make(clips[clip_id], (high, low), source, (lost, won))


def _from_ratings(
    clips: Mapping[str, Clip], clip_of: Mapping[str, str], ratings: Iterable[Rating], min_gap: float
) -> Iterable[Pair]:
    by_clip: dict[str, list[Rating]] = defaultdict(list)
    for rating in ratings:
        if clip_of.get(rating.candidate_id) in clips:
            by_clip[clip_of[rating.candidate_id]].append(rating)
    for clip_id, given in sorted(by_clip.items()):
        source = HUMAN if any(r.source == HUMAN for r in given) else SIMULATED
        labels: dict[str, list[int]] = defaultdict(list)
        for rating in given:
            if rating.source == source:
                labels[rating.candidate_id].append(rating.label)
        mean = {candidate: sum(seen) / len(seen) for candidate, seen in sorted(labels.items())}
        best, worst = max(mean, key=mean.__getitem__), min(mean, key=mean.__getitem__)
        if mean[best] - mean[worst] >= min_gap - 1e-9:
            good, bad = (labels[c].count(2) / len(labels[c]) for c in (best, worst))
            yield Pair.make(clips[clip_id], (best, worst), source, (good, bad))
