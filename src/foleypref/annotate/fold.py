"""Events to records: what stands in the book becomes ratings and votes, and the workspace's tables follow.

A record that the book ever said something about is the tool's: it is replaced by what stands now, or goes.
All others (simulated, imported, written from Python) stay. Repeats and degraded soundtracks never become
records.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import NamedTuple, TypeVar

from foleypref.annotate.book import EventBook
from foleypref.annotate.history import History, TaskState
from foleypref.annotate.rows import StoredEvent, Task
from foleypref.scoring.opinions import HUMAN
from foleypref.workspace.records import Rating, Record, Vote
from foleypref.workspace.store import Workspace
from foleypref.workspace.walk import say

R = TypeVar("R", bound=Record)


class Folded(NamedTuple):
    """What stands, by record id, and every id that the tool ever spoke of."""

    ratings: dict[str, Rating]
    votes: dict[str, Vote]
    ever: set[str]


def histories(book: EventBook) -> dict[str, History]:
    """The history of everybody who was ever given a task."""
    tasks: dict[str, list[Task]] = defaultdict(list)
    events: dict[str, list[StoredEvent]] = defaultdict(list)
    for task in book.tasks():
        tasks[task.rater].append(task)
    for event in book.events():
        events[event.rater].append(event)
    return {rater: History(given, events[rater]) for rater, given in sorted(tasks.items())}


def fold(found: Iterable[tuple[str, History]]) -> Folded:
    """Records of all raters; of two verdicts on the same thing by one rater the later one counts."""
    ratings: dict[str, tuple[int, Rating]] = {}
    votes: dict[str, tuple[int, Vote]] = {}
    ever: set[str] = set()
    for _, history in found:
        for task in history.ever():
            ever.update(_possible(task))
        for task, state in history.judged():
            for seq, rating in _ratings(task, state):
                _keep_later(ratings, seq, rating)
            for seq, vote in _votes(task, state):
                _keep_later(votes, seq, vote)
    last_ratings = {key: rating for key, (_, rating) in ratings.items()}
    return Folded(last_ratings, {key: vote for key, (_, vote) in votes.items()}, ever)


def _keep_later(kept: dict[str, tuple[int, R]], seq: int, record: R) -> None:
    there = kept.get(record.record_id)
    if there is None or there[0] < seq:
        kept[record.record_id] = (seq, record)


def _ratings(task: Task, state: TaskState) -> Iterator[tuple[int, Rating]]:
    if task.counts and task.kind == "rate":
        for label, event in state.given.items():
            if label in task.genuine and state.skipped is None:
                said = event.body
                candidate_id = task.genuine[label]
                yield event.seq, Rating.make(candidate_id, task.rater, said["value"], HUMAN, said["seconds"])


def _votes(task: Task, state: TaskState) -> Iterator[tuple[int, Vote]]:
    for seq, first, second, preference, seconds in comparisons(task, state):
        if task.counts and {first, second} <= task.genuine.keys():
            vote = _vote(task, task.genuine[first], task.genuine[second], preference, seconds)
            yield seq, vote


def comparisons(task: Task, state: TaskState) -> Iterator[tuple[int, str, str, int, float]]:
    """(seq, first letter, second letter, preference, seconds) of what was compared or ranked."""
    if state.skipped is not None:
        return
    if task.kind == "compare" and state.compared is not None:
        said = state.compared.body
        yield state.compared.seq, said["first"], said["second"], said["value"], said["seconds"]
    if task.kind == "rank" and state.ranked is not None:
        said = state.ranked.body
        place = {label: rank for rank, group in enumerate(said["order"]) for label in group}
        for first, second in combinations(sorted(place), 2):
            preference = (place[first] < place[second]) - (place[first] > place[second])
            yield state.ranked.seq, first, second, preference, said["seconds"]


def _vote(task: Task, first: str, second: str, preference: int, seconds: float) -> Vote:
    """Always the lower id first, so that two verdicts on the same two soundtracks have the same id."""
    if first > second:
        first, second, preference = second, first, -preference
    return Vote.make(task.clip_id, first, second, task.rater, preference, HUMAN, seconds)


def _possible(task: Task) -> Iterator[str]:
    """The ids of all records that verdicts on a task could make."""
    if not task.counts:
        return
    if task.kind == "rate":
        yield from (Rating.make(c, task.rater, 0, HUMAN).rating_id for c in task.genuine.values())
    else:
        for first, second in combinations(task.genuine.values(), 2):
            yield _vote(task, first, second, 0, 0.0).vote_id


def merged(workspace: Workspace, folded: Folded) -> tuple[list[Rating], list[Vote]]:
    """The tables as they should be: what is not the tool's, and what stands."""
    ratings = [r for r in workspace.read(Rating) if r.rating_id not in folded.ever]
    votes = [v for v in workspace.read(Vote) if v.vote_id not in folded.ever]
    return [*ratings, *folded.ratings.values()], [*votes, *folded.votes.values()]


def sync(workspace: Workspace) -> Folded:
    """Bring the workspace's ratings and votes up to what stands in its book; `fit` and `pair` do so first."""
    with workspace.lock("annotate_sync"):
        book = EventBook.of(workspace.root)
        try:
            folded = fold(histories(book).items())
        finally:
            book.close()
        ratings, votes = merged(workspace, folded)
        changed = [_replace(workspace, Rating, ratings), _replace(workspace, Vote, votes)]
    if any(changed):
        say(f"annotate: {len(folded.ratings)} ratings and {len(folded.votes)} votes by people in the tables")
    return folded


def _replace(workspace: Workspace, cls: type[R], records: list[R]) -> bool:
    wanted = sorted(records, key=lambda record: record.record_id)
    if workspace.read(cls) == wanted:
        return False
    workspace.replace_table(cls, wanted)
    return True
