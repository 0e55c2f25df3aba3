"""Turns the event log into records: ratings and votes that bring the workspace's tables up to date.

The rating tool owns every record that any of its events ever led to: such a record is updated from the log,
or removed if no verdict is left. All other records (simulated, imported, written from Python) stay. Repeats
and degraded soundtracks never become records.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import combinations
from operator import itemgetter
from typing import NamedTuple, TypeVar

from foleypref.annotate.event_log import EventLog
from foleypref.annotate.history import History, TaskState, read_histories
from foleypref.annotate.rows import Task
from foleypref.scoring.human_labels import HUMAN
from foleypref.workspace.records import Rating, Record, Vote
from foleypref.workspace.store import Workspace
from foleypref.workspace.walk import say

R = TypeVar("R", bound=Record)


class Folded(NamedTuple):
    """The records that the log leads to, by id, and the ids of all that it ever led to."""

    ratings: dict[str, Rating]
    votes: dict[str, Vote]
    owned: set[str]


def fold(histories: Iterable[History]) -> Folded:
    """Return the records of all raters. Of two verdicts by one rater on the same thing the later counts."""
    ratings: list[tuple[int, Rating]] = []
    votes: list[tuple[int, Vote]] = []
    owned: set[str] = set()
    for history in histories:
        for task, state in history.ever_judged():
            if task.counts:
                owned.update(_possible_ids(task))
                ratings += _ratings(task, state)
                votes += _votes(task, state)
    return Folded(_last_by_id(ratings), _last_by_id(votes), owned)


def _last_by_id(records: list[tuple[int, R]]) -> dict[str, R]:
    return {record.record_id: record for _, record in sorted(records, key=itemgetter(0))}


def _ratings(task: Task, state: TaskState) -> Iterator[tuple[int, Rating]]:
    for event in state.verdicts if task.kind == "rate" else ():
        candidate_id = task.genuine.get(event.body["label"])
        if candidate_id is not None:
            value, seconds = event.body["value"], event.body["seconds"]
            yield event.seq, Rating.make(candidate_id, task.rater, value, source=HUMAN, seconds=seconds)


def _votes(task: Task, state: TaskState) -> Iterator[tuple[int, Vote]]:
    for seq, first, second, preference, seconds in comparisons(task, state):
        if {first, second} <= task.genuine.keys():
            ids = task.genuine[first], task.genuine[second]
            yield seq, _vote(task, *ids, preference=preference, seconds=seconds)


def comparisons(task: Task, state: TaskState) -> Iterator[tuple[int, str, str, int, float]]:
    """Yield (seq, first letter, second, preference, seconds) of a comparison, or of every pair of a ranking.

    The preference is 1 for the first, -1 for the second, 0 for a tie.
    """
    for event in state.verdicts if task.kind != "rate" else ():
        body, seconds = event.body, event.body["seconds"]
        if task.kind == "compare":
            yield event.seq, body["first"], body["second"], body["value"], seconds
            continue
        place = {label: rank for rank, group in enumerate(body["order"]) for label in group}
        for first, second in combinations(sorted(place), 2):
            preference = (place[first] < place[second]) - (place[first] > place[second])
            yield event.seq, first, second, preference, seconds


def _vote(task: Task, first: str, second: str, *, preference: int, seconds: float) -> Vote:
    """Return a vote with the lower id first, so that verdicts on the same two soundtracks share an id."""
    if first > second:
        first, second, preference = second, first, -preference
    return Vote.make(
        task.clip_id, first, second, task.rater, preference=preference, source=HUMAN, seconds=seconds
    )


def _possible_ids(task: Task) -> Iterator[str]:
    """Yield the ids of all records that verdicts on a task can lead to."""
    if task.kind == "rate":
        yield from (Rating.make(c, task.rater, 0, HUMAN).rating_id for c in task.genuine.values())
    else:
        for first, second in combinations(task.genuine.values(), 2):
            yield _vote(task, first, second, preference=0, seconds=0.0).vote_id


def merged(workspace: Workspace, folded: Folded) -> tuple[list[Rating], list[Vote]]:
    """Return both tables as they should be: the records that the tool does not own, and its own."""
    ratings = [r for r in workspace.read(Rating) if r.rating_id not in folded.owned]
    votes = [v for v in workspace.read(Vote) if v.vote_id not in folded.owned]
    return [*ratings, *folded.ratings.values()], [*votes, *folded.votes.values()]


def sync(workspace: Workspace) -> Folded:
    """Bring the workspace's ratings and votes up to date with its event log."""
    with workspace.lock("annotate_sync"), closing(EventLog.of(workspace.root)) as log:
        folded = fold(read_histories(log).values())
        ratings, votes = merged(workspace, folded)
        changed = [_replace(workspace, Rating, ratings), _replace(workspace, Vote, votes)]
    if any(changed):
        say(f"annotate: {len(folded.ratings)} ratings and {len(folded.votes)} votes by people in the tables")
    return folded


def _replace(workspace: Workspace, cls: type[R], records: list[R]) -> bool:
    """Replace a table, unless it is the same; return whether it changed."""
    table = sorted(records, key=lambda record: record.record_id)
    if workspace.read(cls) == table:
        return False
    workspace.replace_table(cls, table)
    return True
