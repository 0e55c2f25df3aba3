"""One rater's tasks and events, folded: what stands after every undo, what was heard, what is done.

An event is never changed or removed; an undo names the event that it takes back. The last word on a
soundtrack counts. A task whose last word is a skip says nothing about its soundtracks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from foleypref.annotate.events import VERDICTS
from foleypref.annotate.rows import StoredEvent, Task

BREAK_MS = 120_000  # a longer pause is no work


@dataclass
class TaskState:
    """What a rater has said of a task so far."""

    given: dict[str, StoredEvent] = field(default_factory=dict)  # rate, by letter
    compared: StoredEvent | None = None
    ranked: StoredEvent | None = None
    skipped: StoredEvent | None = None

    @property
    def verdicts(self) -> list[StoredEvent]:
        """The events that count, none of a task that is skipped."""
        if self.skipped is not None:
            return []
        return [e for e in (*self.given.values(), self.compared, self.ranked) if e is not None]

    def is_done(self, task: Task) -> bool:
        """Whether nothing is left to say."""
        if self.skipped is not None:
            return True
        if task.kind == "rate":
            return set(task.labels) <= self.given.keys()
        return (self.compared if task.kind == "compare" else self.ranked) is not None


class History:
    """A rater's tasks by id and what their events come to."""

    def __init__(self, tasks: Iterable[Task] = (), events: Iterable[StoredEvent] = ()) -> None:
        self.tasks: dict[str, Task] = {}
        self.seq = 0  # of the last event seen
        self.client_ids: set[str] = set()
        self.heard: dict[str, dict[str, float]] = defaultdict(dict)  # seconds by task and letter
        self.last_seen_ms: int | None = None
        self._given: dict[str, list[Task]] = defaultdict(list)  # by campaign, in order
        self._seen: dict[str, set[str]] = defaultdict(set)  # by campaign
        self._verdicts: dict[str, list[StoredEvent]] = defaultdict(list)  # by task, in order
        self._stack: dict[str, list[StoredEvent]] = defaultdict(list)  # by campaign, in order
        self._undone: set[int] = set()
        self._done: dict[str, set[str]] = defaultdict(set)  # by campaign
        self._active_ms: dict[str, int] = defaultdict(int)  # by campaign
        for task in tasks:
            self.add_task(task)
        for event in events:
            self.apply(event)

    def add_task(self, task: Task) -> None:
        """Take a task in that was assigned, unless it is known."""
        if task.task_id not in self.tasks:
            self.tasks[task.task_id] = task
            self._given[task.campaign].append(task)
            self._given[task.campaign].sort(key=lambda given: given.number)
            if task.shows_clip:
                self._seen[task.campaign].add(task.clip_id)

    def apply(self, event: StoredEvent) -> None:
        """Take the next event in; events come in the order of their seq, each once."""
        assert event.seq > self.seq, f"event {event.seq} after {self.seq}"
        self.seq = event.seq
        self.client_ids.add(event.client_id)
        task = self.tasks.get(event.task_id)
        if event.kind == "undo":
            task = self._undo(event)
        if task is None:
            return
        if event.kind in VERDICTS:
            self._verdicts[task.task_id].append(event)
            self._stack[task.campaign].append(event)
        heard = dict(event.body.get("heard", {}))
        if event.kind == "listen":
            heard[event.body["label"]] = event.body["seconds"]
        known = self.heard[task.task_id]
        for label, seconds in heard.items():
            known[label] = max(known.get(label, 0.0), seconds)
        if self.last_seen_ms is not None:
            pause = event.server_time_ms - self.last_seen_ms
            self._active_ms[task.campaign] += min(max(pause, 0), BREAK_MS)
        self.last_seen_ms = event.server_time_ms
        done = self._done[task.campaign]
        (done.add if self.state(task).is_done(task) else done.discard)(task.task_id)

    def _undo(self, event: StoredEvent) -> Task | None:
        """Take back the event it names; returns the task that it was about."""
        for stack in self._stack.values():
            for place in range(len(stack) - 1, -1, -1):
                if stack[place].seq == event.undoes:
                    undone = stack.pop(place)
                    self._undone.add(undone.seq)
                    return self.tasks[undone.task_id]
                if stack[place].seq < (event.undoes or 0):
                    break
        return None

    def state(self, task: Task) -> TaskState:
        """What stands of what was said of a task."""
        state = TaskState()
        for event in self._verdicts[task.task_id]:
            if event.seq in self._undone:
                continue
            state.skipped = event if event.kind == "skip" else None
            if event.kind == "rate":
                state.given[event.body["label"]] = event
            elif event.kind == "compare":
                state.compared = event
            elif event.kind == "rank":
                state.ranked = event
        return state

    def last(self, campaign: str) -> StoredEvent | None:
        """The verdict that an undo would take back."""
        return self._stack[campaign][-1] if self._stack[campaign] else None

    def of(self, campaign: str) -> list[Task]:
        """The tasks of a campaign in their order."""
        return self._given[campaign]

    def seen(self, campaign: str) -> set[str]:
        """The clips of a campaign that the rater was given to judge."""
        return self._seen[campaign]

    def is_done(self, task: Task) -> bool:
        """Whether a task is finished."""
        return task.task_id in self._done[task.campaign]

    def num_done(self, campaign: str) -> int:
        """How many tasks of a campaign are finished."""
        return len(self._done[campaign])

    def per_hour(self, campaign: str) -> float | None:
        """Finished tasks an hour of work, of a long pause two minutes; None before there is a pace."""
        hours = self._active_ms[campaign] / 3_600_000
        return round(self.num_done(campaign) / hours, 1) if hours > 0 and self.num_done(campaign) else None

    def judged(self) -> Iterable[tuple[Task, TaskState]]:
        """Every task of every campaign of which something stands."""
        for task in self.tasks.values():
            state = self.state(task)
            if state.verdicts:
                yield task, state

    def ever(self) -> Iterable[Task]:
        """Every task of which something was ever said, also what was taken back."""
        return (self.tasks[task_id] for task_id in list(self._verdicts) if self._verdicts[task_id])
