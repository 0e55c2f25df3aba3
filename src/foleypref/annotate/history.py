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

    given: dict[str, StoredEvent] = field(default_factory=dict)  # by letter; a comparison or ranking under ""
    skipped: StoredEvent | None = None

    @property
    def verdicts(self) -> list[StoredEvent]:
        """The events that count; none if the task is skipped."""
        return list(self.given.values()) if self.skipped is None else []

    def is_done(self, task: Task) -> bool:
        """Return whether the task needs no further verdict."""
        needed = set(task.labels) if task.kind == "rate" else {""}
        return self.skipped is not None or needed <= self.given.keys()


class History:
    """One rater's tasks by id, and the state that their events lead to."""

    def __init__(self, tasks: Iterable[Task] = (), events: Iterable[StoredEvent] = ()) -> None:
        self.tasks: dict[str, Task] = {}
        self.assigned: dict[str, list[Task]] = defaultdict(list)  # by campaign, in order
        self.seq = 0  # of the last event applied
        self.client_ids: set[str] = set()
        self.heard: dict[str, dict[str, float]] = defaultdict(dict)  # seconds by task and letter
        self.last_seen_ms: int | None = None
        self.seen: dict[str, set[str]] = defaultdict(set)  # ids of clips given to judge, by campaign
        self.done: dict[str, set[str]] = defaultdict(set)  # ids of finished tasks, by campaign
        self._verdicts: dict[str, list[StoredEvent]] = defaultdict(list)  # by task, in order
        # By campaign and seq, in order: the verdicts that were not taken back.
        self._standing: dict[str, dict[int, StoredEvent]] = defaultdict(dict)
        self._active_ms: dict[str, int] = defaultdict(int)  # by campaign
        for task in tasks:
            self.add_task(task)
        for event in events:
            self.apply(event)

    def add_task(self, task: Task) -> None:
        """Add an assigned task, unless it is known."""
        if task.task_id not in self.tasks:
            self.tasks[task.task_id] = task
            self.assigned[task.campaign].append(task)
            self.assigned[task.campaign].sort(key=lambda task: task.number)
            if task.shows_clip:
                self.seen[task.campaign].add(task.clip_id)

    def apply(self, event: StoredEvent) -> None:
        """Apply the next event. Events come in the order of their `seq`, each once."""
        assert event.seq > self.seq, f"event {event.seq} after {self.seq}"
        self.seq = event.seq
        self.client_ids.add(event.client_id)
        task = self._undo(event) if event.kind == "undo" else self.tasks.get(event.task_id)
        if task is None:
            return
        if event.kind in VERDICTS:
            self._verdicts[task.task_id].append(event)
            self._standing[task.campaign][event.seq] = event
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
        done = self.done[task.campaign]
        (done.add if self.state(task).is_done(task) else done.discard)(task.task_id)

    def _undo(self, event: StoredEvent) -> Task | None:
        """Take back the event that an undo names; return the task it was about."""
        for verdicts in self._standing.values():
            undone = verdicts.pop(event.undoes or 0, None)
            if undone is not None:
                return self.tasks[undone.task_id]
        return None

    def state(self, task: Task) -> TaskState:
        """Return the verdicts on a task that were not taken back."""
        state = TaskState()
        for event in self._verdicts[task.task_id]:
            if event.seq in self._standing[task.campaign]:
                state.skipped = event if event.kind == "skip" else None
                if event.kind != "skip":
                    state.given[event.body.get("label", "")] = event
        return state

    def last(self, campaign_id: str) -> StoredEvent | None:
        """Return the verdict that an undo would take back."""
        return next(reversed(self._standing[campaign_id].values()), None)

    def is_done(self, task: Task) -> bool:
        """Return whether a task is finished, without reading its events again."""
        return task.task_id in self.done[task.campaign]

    def per_hour(self, campaign_id: str) -> float | None:
        """Return finished tasks per hour of work, see BREAK_MS; None before the first is finished."""
        hours = self._active_ms[campaign_id] / 3_600_000
        num_done = len(self.done[campaign_id])
        return round(num_done / hours, 1) if hours > 0 and num_done else None

    def ever_judged(self) -> list[tuple[Task, TaskState]]:
        """Return every task that ever had a verdict, even one taken back, with its state."""
        tasks = [self.tasks[task_id] for task_id, verdicts in self._verdicts.items() if verdicts]
        return [(task, self.state(task)) for task in tasks]


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
                history = self._histories[rater] = History(self.log.tasks(rater), self.log.events(rater))
            elif self.log.is_shared:
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
