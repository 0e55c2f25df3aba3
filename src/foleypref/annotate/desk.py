"""The desk: gives raters their tasks, takes their events, and refuses what does not fit. No HTTP in here."""

from __future__ import annotations

import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

from foleypref.annotate.book import Conflict, EventBook
from foleypref.annotate.checks import Refused, check_event
from foleypref.annotate.events import Event, TaskEvent, body_of, canonical
from foleypref.annotate.fold import histories
from foleypref.annotate.history import History
from foleypref.annotate.rows import NewEvent, StoredEvent, Task
from foleypref.annotate.settings import AnnotateSettings
from foleypref.annotate.soundtracks import Studio, make_or_drop
from foleypref.annotate.tasks import Plan, Unit, clip_uncertainty, draw_task
from foleypref.annotate.tokens import Doorkeeper
from foleypref.annotate.view import progress, shown_task
from foleypref.media.clip import MediaError
from foleypref.workspace.records import LABELS
from foleypref.workspace.walk import say

MAX_AHEAD = 3
CLAIMS_S = 5.0  # how long what other servers deal is not asked for


class Desk:
    """One campaign on one book."""

    def __init__(
        self, settings: AnnotateSettings, book: EventBook, door: Doorkeeper, studio: Studio, plan: Plan
    ) -> None:
        self.settings, self.book, self.door, self.studio, self.plan = settings, book, door, studio, plan
        self._locks: dict[str, Any] = {}
        self._histories: dict[str, History] = {}
        self._plan_lock = threading.Lock()
        self._fit_time: float | None = None
        self._claims: set[str] = set()
        self._claims_at = -CLAIMS_S
        self._free: tuple[Any, int] = (None, 0)
        self._unshown: set[str] = set()  # tasks whose media are gone for good
        self._follow_fit()

    # -- reading ---------------------------------------------------------------------------------------------

    def lock(self, rater: str) -> Any:
        """Held while a rater's history is read or changed; again by the thread that holds it."""
        return self._locks.setdefault(rater, threading.RLock())

    def warm(self) -> None:
        """Read everybody's history now, so that nobody waits for it after a restart."""
        self._histories.update(histories(self.book))

    def history(self, rater: str) -> History:
        """What a rater was given and has said, up to now."""
        with self.lock(rater):
            history = self._histories.get(rater)
            if history is None:
                history = History(self.book.tasks(rater), self.book.events(rater))
                self._histories[rater] = history
                return history
            if not self.book.is_shared:
                return history
            for event in self.book.events(rater, after=history.seq):
                if event.task_id and event.task_id not in history.tasks:
                    self._reload_tasks(rater, history)
                history.apply(event)
            return history

    def me(self, rater: str) -> dict[str, Any]:
        """Who the rater is, what they do, and how far they are."""
        s = self.settings
        with self.lock(rater):
            history = self.history(rater)
            return {
                "rater": rater,
                "task": s.task,
                "labels": list(LABELS),
                "skip_reasons": list(s.skip_reasons),
                "require_listen_s": s.require_listen_s,
                "pace_per_hour": history.per_hour(s.campaign),
                **self.progress(history),
            }

    def progress(self, history: History) -> dict[str, Any]:
        """How far a rater is; see `view.progress`."""
        heads, unshown = max(1, len(self.door.names())), len(self._unshown & history.tasks.keys())
        return progress(history, self.plan, self.settings, heads, self._num_free(), unshown)

    def _num_free(self) -> int:
        """Clips that were not dealt to anybody."""
        key = (self.plan.version, len(self._claims))
        if self._free[0] != key:
            self._free = (key, sum(clip_id not in self._claims for clip_id in self.plan.rest))
        return self._free[1]

    def task_of(self, rater: str, task_id: str) -> Task:
        """A rater's own task. Raises Refused (404) for any other."""
        history = self.history(rater)
        if task_id not in history.tasks:
            self._reload_tasks(rater, history)
        task = history.tasks.get(task_id)
        if task is None:
            raise Refused(404, "there is no such task")
        return task

    def media(self, rater: str, task_id: str, which: str) -> Path:
        """The file of a task's video ("video") or of the soundtrack under a letter. Raises Refused."""
        task = self.task_of(rater, task_id)
        clip = self.plan.clips.get(task.clip_id)
        try:
            if which == "video" and clip is not None and self.studio.video(clip).exists():
                return self.studio.video(clip)
            for track in task.tracks:
                if track.label == which:
                    return self.studio.soundtrack(track.candidate_id, track.degraded).path
        except MediaError:
            pass
        raise Refused(404, "there is no such sound or picture")

    # -- giving tasks ----------------------------------------------------------------------------------------

    def next_tasks(self, rater: str, ahead: int = 0) -> list[dict[str, Any]]:
        """The current task and up to `ahead` more, new ones written down before they are shown."""
        wanted = 1 + min(max(ahead, 0), MAX_AHEAD)
        self._follow_fit()
        while True:
            with self.lock(rater):
                history = self.history(rater)
                found = self._open(history)[:wanted]
                todo = next((task for task in found if not self._is_ready(task)), None)
                if todo is None and len(found) < wanted:
                    todo = draw_task(self.plan, self.settings, rater, history, self._taken())
                    if todo is not None and self._is_ready(todo):
                        self._assign(todo, history)
                        continue
                if todo is None:
                    clips = self.plan.clips
                    marks = self.settings.show_events
                    return [
                        shown_task(task, history, clips[task.clip_id], self.studio, show_events=marks)
                        for task in found
                    ]
            self._make(todo, history)  # may take long: the rater's verdicts do not wait for it

    def _open(self, history: History) -> list[Task]:
        """Tasks that were given out and are not finished."""
        given = history.of(self.settings.campaign)
        return [task for task in given if not history.is_done(task) and task.task_id not in self._unshown]

    def _assign(self, task: Task, history: History) -> None:
        """Write a task down, unless somebody was faster; then look at the book again."""
        if self.book.add_task(task):
            history.add_task(task)
            self._claims.update({task.claim} - {None})  # type: ignore[arg-type]
        else:
            self._claims_at = -CLAIMS_S
            self._reload_tasks(task.rater, history)

    def _is_ready(self, task: Task) -> bool:
        clip = self.plan.clips.get(task.clip_id)
        return clip is not None and self.studio.has(clip, [(t.candidate_id, t.degraded) for t in task.tracks])

    def _make(self, task: Task, history: History) -> None:
        """Make a task's media; what cannot be made is left out of the plan, or of what is shown."""
        degraded = [(t.candidate_id, t.degraded) for t in task.tracks if t.degraded]
        if task.task_id not in history.tasks:
            make_or_drop(self.studio, self.plan, task.clip_id, degraded)
            return
        clip = self.plan.clips.get(task.clip_id)
        try:
            if clip is None:
                raise MediaError(f"clip {task.clip_id} is gone")
            self.studio.make(Unit(clip, tuple(task.genuine.values())), degraded)
        except ValueError as error:
            say(f"annotate: {task.rater}'s task {task.number} is left out: {error}")
            self._unshown.add(task.task_id)

    def _taken(self) -> set[str]:
        if time.monotonic() - self._claims_at >= CLAIMS_S:
            self._claims = self.book.claims(self.settings.campaign)
            self._claims_at = time.monotonic()
        return self._claims

    def _follow_fit(self) -> None:
        """Put the clips in order again when AudioScore was fitted anew."""
        fitted = self.studio.workspace.audioscore(self.settings.audioscore).weights
        try:
            changed = fitted.stat().st_mtime
        except FileNotFoundError:
            return
        with self._plan_lock:
            if changed != self._fit_time:
                self._fit_time = changed
                found = clip_uncertainty(self.studio.workspace, self.plan, self.settings.audioscore)
                self.plan.order(self.settings, found)

    def _reload_tasks(self, rater: str, history: History) -> None:
        for task in self.book.tasks(rater):
            history.add_task(task)

    # -- taking events ---------------------------------------------------------------------------------------

    def post(self, rater: str, event: Event) -> dict[str, Any]:
        """Write an event; what is returned is on disk. Raises Refused."""
        with self.lock(rater):
            history = self.history(rater)
            client_id, undoes = str(event.client_id), None
            if client_id not in history.client_ids:  # a replay was checked when it came first
                undoes = self._check(rater, history, event)
            task_id = event.task_id if isinstance(event, TaskEvent) else ""
            body = body_of(event)
            new = NewEvent(rater, client_id, event.kind, task_id, canonical(body), undoes)
            try:
                seq, replayed, time_ms = self.book.append(new)
            except Conflict as error:
                raise Refused(409, str(error)) from None
            if not replayed and seq > history.seq:
                stored = StoredEvent(seq, rater, client_id, event.kind, task_id, body, undoes, time_ms)
                history.apply(stored)
            elif not replayed:  # another server wrote later and was read earlier: begin again from the book
                self._histories.pop(rater, None)
            said = {"accepted": True, "seq": seq, **self.progress(history)}
            return {**said, "replayed": True} if replayed else said

    def _check(self, rater: str, history: History, event: Event) -> int | None:
        """Raise Refused for an event that does not fit; returns the seq that an undo takes back."""
        if not isinstance(event, TaskEvent):
            last = history.last(self.settings.campaign)
            if last is None:
                raise Refused(409, "there is nothing to undo")
            return last.seq
        task = self.task_of(rater, event.task_id)
        check_event(event, task, self.settings, history.heard[task.task_id], partial(self._seconds, task))
        return None

    def _seconds(self, task: Task, label: str) -> float:
        track = next(track for track in task.tracks if track.label == label)
        try:
            return self.studio.soundtrack(track.candidate_id, track.degraded).seconds
        except MediaError as error:
            raise Refused(404, str(error)) from None
