"""A rater's tasks and events, folded into a state: verdicts not taken back, seconds heard, tasks done.

An event is never changed or removed; an undo names the event that it takes back. The last verdict on a
soundtrack counts. If the last verdict on a task is a skip, its soundtracks have no verdict.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from foleypref.annotate.event_log import EventLog
from foleypref.annotate.events import VERDICTS
from foleypref.annotate.rows import StoredEvent, Task

BREAK_MS = 120_000  # of a longer pause, only this much counts as work


@dataclass
class TaskState:
    """A rater's verdicts on a task so far."""

    given: dict[str, StoredEvent] = field(default_factory=dict)  # ratings by letter
    compared: StoredEvent | None = None
    ranked: StoredEvent | None = None
    skipped: StoredEvent | None = None

    @property
    def verdicts(self) -> list[StoredEvent]:
        """The events that count; none if the task is skipped."""
        if self.skipped is not None:
            return []
        return [e for e in (*self.given.values(), self.compared, self.ranked) if e is not None]

    def is_done(self, task: Task) -> bool:
        """Return whether the task needs no further verdict."""
        if self.skipped is not None:
            return True
        if task.kind == "rate":
            return set(task.labels) <= self.given.keys()
        return (self.compared if task.kind == "compare" else self.ranked) is not None


class History:
    """One rater's tasks by id, and the state that their events lead to."""

    def __init__(self, tasks: Iterable[Task] = (), events: Iterable[StoredEvent] = ()) -> None:
        self.tasks: dict[str, Task] = {}
        self.seq = 0  # of the last event applied
        self.client_ids: set[str] = set()
        self.heard: dict[str, dict[str, float]] = defaultdict(dict)  # seconds by task and letter
        self.last_seen_ms: int | None = None
        self._assigned: dict[str, list[Task]] = defaultdict(list)  # by campaign, in order
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
        """Add an assigned task, unless it is known."""
        if task.task_id not in self.tasks:
            self.tasks[task.task_id] = task
            self._assigned[task.campaign].append(task)
            self._assigned[task.campaign].sort(key=lambda task: task.number)
            if task.shows_clip:
                self._seen[task.campaign].add(task.clip_id)

    def apply(self, event: StoredEvent) -> None:
        """Apply the next event. Events come in the order of their `seq`, each once."""
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
        """Take back the event that an undo names; return the task it was about."""
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
        """Return the verdicts on a task that were not taken back."""
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

    def last(self, campaign_id: str) -> StoredEvent | None:
        """Return the verdict that an undo would take back."""
        return self._stack[campaign_id][-1] if self._stack[campaign_id] else None

    def of(self, campaign_id: str) -> list[Task]:
        """Return the tasks of a campaign in their order."""
        return self._assigned[campaign_id]

    def seen(self, campaign_id: str) -> set[str]:
        """Return the ids of a campaign's clips that the rater was given to judge."""
        return self._seen[campaign_id]

    def is_done(self, task: Task) -> bool:
        """Return whether a task is finished, without reading its events again."""
        return task.task_id in self._done[task.campaign]

    def num_done(self, campaign_id: str) -> int:
        """Return how many tasks of a campaign are finished."""
        return len(self._done[campaign_id])

    def per_hour(self, campaign_id: str) -> float | None:
        """Return finished tasks per hour of work, see BREAK_MS; None before the first is finished."""
        hours = self._active_ms[campaign_id] / 3_600_000
        num = self.num_done(campaign_id)
        return round(num / hours, 1) if hours > 0 and num else None

    def judged(self) -> Iterable[tuple[Task, TaskState]]:
        """Yield every task of every campaign that has a verdict which was not taken back."""
        for task in self.tasks.values():
            state = self.state(task)
            if state.verdicts:
                yield task, state

    def ever_judged(self) -> Iterable[Task]:
        """Yield every task that ever had a verdict, including those taken back."""
        return (self.tasks[task_id] for task_id in list(self._verdicts) if self._verdicts[task_id])


class Histories:
    """The history of every rater, read from the event log when it is first needed and kept up to date."""

    def __init__(self, log: EventLog) -> None:
        self.log = log
        self._locks: dict[str, threading.RLock] = {}
        self._histories: dict[str, History] = {}

    def lock(self, rater: str) -> threading.RLock:
        """Return the lock to hold while this rater's history is read or changed."""
        return self._locks.setdefault(rater, threading.RLock())

    def read_all(self) -> None:
        """Read all histories now, so that after a restart no rater waits for their own."""
        self._histories.update(read_histories(self.log))

    def of(self, rater: str) -> History:
        """Return a rater's history, with the events that other servers on the same log have added."""
        with self.lock(rater):
            history = self._histories.get(rater)
            if history is None:
                history = History(self.log.tasks(rater), self.log.events(rater))
                self._histories[rater] = history
                return history
            if not self.log.is_shared:
                return history
            for event in self.log.events(rater, after=history.seq):
                if event.task_id and event.task_id not in history.tasks:
                    self.reload_tasks(rater, history)
                history.apply(event)
            return history

    def reload_tasks(self, rater: str, history: History) -> None:
        """Add the tasks that another server has assigned to this rater."""
        for task in self.log.tasks(rater):
            history.add_task(task)

    def forget(self, rater: str) -> None:
        """Read this rater's history from the log again when it is next needed."""
        self._histories.pop(rater, None)


def read_histories(log: EventLog) -> dict[str, History]:
    """Return the history of every rater who was ever given a task."""
    tasks: dict[str, list[Task]] = defaultdict(list)
    events: dict[str, list[StoredEvent]] = defaultdict(list)
    for task in log.tasks():
        tasks[task.rater].append(task)
    for event in log.events():
        events[event.rater].append(event)
    return {rater: History(assigned, events[rater]) for rater, assigned in sorted(tasks.items())}
