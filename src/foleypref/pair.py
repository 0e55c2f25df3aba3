"""Stage 5, pair: scored candidates -> preference pairs within each clip, and the pairs that raters decided.

The stage's pairs are a function of the other tables, so each run replaces those it made before; imported
pairs and those of other sources stay. A clip that gives no pair is counted under its reason. Ground truth is
not paired: no model sampled it, and the sound of a video from the wild may be wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pydantic import BaseModel, ConfigDict, Field

from foleypref.annotate.sync import sync_labels
from foleypref.flow.convention import generator_of
from foleypref.media.files import write_atomic
from foleypref.scoring.human_labels import HUMAN, SIMULATED, human_pairs
from foleypref.scoring.pairings import Group, Pairing, PairingPart, ScoredCandidate
from foleypref.scoring.scorers.audioscore import AudioScore
from foleypref.settings.parts import Settings
from foleypref.workspace.records import AUTO, Candidate, Clip, ImportedPair, Pair, Rating, Vote
from foleypref.workspace.selection import candidates_of_model, clips_of_split
from foleypref.workspace.store import Workspace
from foleypref.workspace.walk import say

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)  # 0.7 divides the paper's two training stages
EDGES = np.linspace(-1, 1, 21)
ROWS_AT_ONCE = 20_000  # candidates held as Python objects
NO_CANDIDATES = "no candidates"
SETTLED = "people decided these two candidates"


class PairSettings(Settings):
    """Which candidates are paired, and how. `model` and `weights` narrow the choice; None takes them all."""

    pairing: PairingPart = Field("best_worst", validate_default=True)
    audioscore: str = "audioscore"  # the name it was fitted under
    split: str = "align"
    model: str | None = None  # part name
    weights: str | None = None  # fingerprint
    source: str = AUTO  # of the automatic pairs; pairs of other sources ("round…") stay beside them
    human: bool = True  # add pairs from ratings and votes
    max_human_pairs: int | None = None  # at most this many, chosen at random
    seed: int = 0


class PairReport(BaseModel):
    """Counts of clips and pairs. Histogram and shares are of automatic pairs; others have complexity 0."""

    model_config = ConfigDict(frozen=True)

    audioscore: str  # version
    num_clips: int
    num_candidates: int
    num_unscored: int  # candidates no judge has scored; they are not paired
    pairs: dict[str, int]  # made by this run, by source
    others: dict[str, int]  # left in place: imported pairs and those of other sources, by source
    reasons: dict[str, int]  # clips without an automatic pair, by reason
    settled: int  # automatic pairs dropped because raters decided the same two candidates
    histogram_edges: list[float]
    histogram: list[int]  # of complexity
    share_above: dict[str, float | None]  # of complexity, by threshold
    settings: dict[str, Any]

    def line(self) -> str:
        """Return the line that the stage ends with."""
        pairs = _counts(self.pairs) or "no pairs"
        others = f" (left in place: {_counts(self.others)})" if self.others else ""
        reasons = "; ".join(f"{n}: {reason}" for reason, n in self.reasons.items()) or "none"
        return f"pair: {self.num_clips} clips -> {pairs}{others}; clips without an automatic pair: {reasons}"


def pair(workspace: Workspace, settings: PairSettings) -> PairReport:
    """Replace the pairs that this stage made before, leave all others in place, and write pairs.json.

    Raises ValueError without an AudioScore, clips or candidates, for candidates of several models, and for
    scores whose versions are not those AudioScore was fitted on.
    """
    with workspace.lock("pair"):
        sync_labels(workspace)
        score = AudioScore(weights=str(workspace.audioscore(settings.audioscore).weights)).load()
        clips = {clip.clip_id: clip for clip in clips_of_split(workspace, settings.split)}
        candidates = _candidates(workspace, settings, clips)
        probabilities, scored = _probabilities(workspace, score, candidates["candidate_id"])
        decided = _decided(workspace, settings, clips, candidates) if settings.human else []
        groups = _groups(clips, candidates, probabilities, scored)
        others = _others(workspace, settings)
        other_ids = {p.pair_id for p in others}
        automatic = _automatic(settings.pairing, groups, decided, settings.source)
        automatic = automatic._replace(pairs=[p for p in automatic.pairs if p.pair_id not in other_ids])
        without_candidates = len(clips) - len(pc.unique(candidates["clip_id"]))
        pairs = [*automatic.pairs, *(p for p in decided if p.pair_id not in other_ids)]
        workspace.replace_table(Pair, [*others, *pairs])
        report = PairReport(
            audioscore=score.version,
            num_clips=len(clips),
            num_candidates=len(candidates),
            num_unscored=int((~scored).sum()),
            pairs=_by_source(pairs),
            others=_by_source(others),
            reasons=dict(sorted((automatic.reasons + Counter({NO_CANDIDATES: without_candidates})).items())),
            settled=automatic.settled,
            **_complexities(automatic.pairs),
            settings=settings.model_dump(mode="json"),
        )
        write_atomic(workspace.pairs_report(settings.source), report.model_dump_json(indent=1).encode())
        say(report.line())
        return report


class Automatic(NamedTuple):
    """AudioScore's pairs, the number of clips without one by reason, and of pairs that raters overruled."""

    pairs: list[Pair]
    reasons: Counter[str]
    settled: int


def _others(workspace: Workspace, settings: PairSettings) -> list[Pair]:
    """Read the pairs that this run leaves in place: imported ones and those of sources it does not make."""
    own = {settings.source}
    if settings.human or settings.source == AUTO:
        own |= {HUMAN, SIMULATED}  # a later round without human pairs keeps those of the first
    imported = workspace.ids(ImportedPair)
    return [p for p in workspace.read(Pair) if p.source not in own or p.pair_id in imported]


def _by_source(pairs: list[Pair]) -> dict[str, int]:
    return dict(sorted(Counter(p.source for p in pairs).items()))


def _counts(by_source: dict[str, int]) -> str:
    return ", ".join(f"{num} {source}" for source, num in by_source.items())


def _automatic(
    pairing: Pairing, groups: Iterable[Group], decided: list[Pair], source: str = AUTO
) -> Automatic:
    by_raters = {frozenset((p.chosen, p.rejected)) for p in decided}
    pairs: list[Pair] = []
    reasons: Counter[str] = Counter()
    settled = 0
    for group in groups:
        proposed, reason = pairing.pairs(group)
        undecided = [p for p in proposed if frozenset((p.chosen, p.rejected)) not in by_raters]
        settled += len(proposed) - len(undecided)
        if not undecided:
            reasons[reason or SETTLED] += 1
        for pair in undecided:
            pair_id = Pair.make_id(pair.clip_id, pair.chosen, pair.rejected, source)
            pairs.append(replace(pair, pair_id=pair_id, source=source))
    return Automatic(pairs, reasons, settled)


def _complexities(pairs: list[Pair]) -> dict[str, Any]:
    values = np.array([p.complexity for p in pairs])
    above = {f"{t:g}": float((values > t).mean()) if len(values) else None for t in THRESHOLDS}
    counts = np.histogram(values, EDGES)[0].tolist()
    return {"histogram_edges": EDGES.round(6).tolist(), "histogram": counts, "share_above": above}


def _candidates(workspace: Workspace, settings: PairSettings, clip_ids: Iterable[str]) -> pa.Table:
    """Return the candidates to pair, sorted by clip and id. Raises ValueError if there are none."""
    table = candidates_of_model(workspace, clip_ids, model=settings.model, weights=settings.weights)
    if not len(table):
        raise ValueError(
            f"no candidates of split {settings.split!r} fit model {settings.model!r} and weights "
            f"{settings.weights!r}; run `foleypref sample` first"
        )
    return table


def _probabilities(
    workspace: Workspace, score: AudioScore, ids: pa.ChunkedArray
) -> tuple[np.ndarray, np.ndarray]:
    """Return AudioScore's probabilities (N, 3), and whether any judge has scored the candidate (N,)."""
    probabilities, scored = score.stored_probabilities(workspace, ids.combine_chunks())
    if not scored.any():
        dimensions = ", ".join(score.fitted.dimensions)
        raise ValueError(f"no candidate has a score of {dimensions}; run `foleypref score` first")
    return probabilities, scored


def _groups(
    clips: dict[str, Clip], candidates: pa.Table, probabilities: np.ndarray, scored: np.ndarray
) -> Iterator[Group]:
    """Yield one group per clip with candidates. Rows become objects a few at a time, so memory stays flat."""
    clip_ids = pc.dictionary_encode(candidates["clip_id"].combine_chunks()).indices.to_numpy()
    starts = np.flatnonzero(np.r_[True, clip_ids[1:] != clip_ids[:-1]])
    first = 0
    while first < len(starts):
        last = max(int(np.searchsorted(starts, starts[first] + ROWS_AT_ONCE)), first + 1)
        end = starts[last] if last < len(starts) else len(clip_ids)
        rows = candidates.slice(starts[first], end - starts[first])
        columns = [rows[name].to_pylist() for name in Candidate.columns()]
        objects = [Candidate(*row) for row in zip(*columns)]
        chances = probabilities[starts[first] : end].tolist()
        for begin, stop in zip(starts[first:last], [*starts[first + 1 : last], end]):
            inside = range(begin - starts[first], stop - starts[first])
            members = tuple(
                ScoredCandidate(objects[i], *chances[i]) for i in inside if scored[starts[first] + i]
            )
            yield Group(clips[objects[inside[0]].clip_id], members)
        first = last


def _decided(
    workspace: Workspace, settings: PairSettings, clips: dict[str, Clip], candidates: pa.Table
) -> list[Pair]:
    """Return the pairs that raters decided, or a random choice of `max_human_pairs` if there are more."""
    ratings, votes = workspace.read(Rating), workspace.read(Vote)
    named = {r.candidate_id for r in ratings} | {c for v in votes for c in (v.first, v.second)}
    mask = pc.is_in(candidates["candidate_id"], value_set=pa.array(sorted(named), pa.string()))
    rated = candidates.filter(mask).select(["candidate_id", "clip_id"]).to_pydict()
    pairs = human_pairs(clips, dict(zip(rated["candidate_id"], rated["clip_id"])), ratings, votes)
    if settings.max_human_pairs is None or len(pairs) <= settings.max_human_pairs:
        return pairs
    order = torch.randperm(len(pairs), generator=generator_of(settings.seed, "human pairs")).tolist()
    return [pairs[i] for i in sorted(order[: settings.max_human_pairs])]
