"""The queue of a campaign: which task a rater gets next, and when its media are on disk.

A new task is written to the event log before it is shown. Clips outside the overlap set are claimed by the
first free rater, also across several servers on one log.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from foleypref.annotate.assignments import Assignments, ClipTask, clip_uncertainty, draw_task
from foleypref.annotate.history import Histories, History
from foleypref.annotate.media_store import MediaStore, make_or_drop
from foleypref.annotate.rows import Task
from foleypref.annotate.settings import AnnotateSettings
from foleypref.media.clip import MediaError
from foleypref.workspace.walk import say

T = TypeVar("T")
CLAIMS_S = 5.0  # seconds between two looks at the claims of other servers


class TaskQueue:
    """Gives every rater their next tasks."""

    def __init__(
        self, settings: AnnotateSettings, media: MediaStore, assignments: Assignments, histories: Histories
    ) -> None:
        self.settings, self.media, self.assignments, self.histories = settings, media, assignments, histories
        self._claims: set[str] = set()
        self._claims_time = -CLAIMS_S
        self._order_lock = threading.Lock()
        self._fit_time: float | None = None
        self._num_unclaimed: tuple[object, int] = (None, 0)  # with what it was counted from
        self._unplayable: set[str] = set()  # ids of tasks whose media cannot be made again
        self._follow_fit()

    def next(self, rater: str, num: int, show: Callable[[Task, History], T]) -> list[T]:
        """Return `show(task, history)`, run under the rater's lock, of up to `num` unfinished tasks."""
        self._follow_fit()
        while True:
            with self.histories.lock(rater):
                history = self.histories.of(rater)
                assigned = history.assigned[self.settings.campaign_id]
                unfinished = [t for t in assigned if not history.is_done(t)]
                tasks = [t for t in unfinished if t.task_id not in self._unplayable][:num]
                to_make = next((task for task in tasks if not self._is_ready(task)), None)
                if to_make is None and len(tasks) < num:
                    new = draw_task(self.assignments, self.settings, rater, history, self._claimed())
                    if new is not None and self._is_ready(new):
                        self._assign(new, history)
                        continue
                    to_make = new
                if to_make is None:
                    return [show(task, history) for task in tasks]
            self._make(to_make, history)  # without the lock: decoding takes seconds, verdicts must not wait

    def expected_total(self, history: History, num_raters: int) -> int:
        """Return how many tasks a rater will have had in the end, as far as it can be told now.

        Clips outside the overlap set are divided equally between raters until others have taken more.
        """
        campaign_id, repeats = self.settings.campaign_id, self.settings.repeats
        overlap, rest = self.assignments.overlap, self.assignments.rest
        seen = history.seen[campaign_id]
        overlap_left = sum(clip_id not in seen for clip_id in overlap)
        num_claimed = len(seen) - (len(overlap) - overlap_left)
        share = math.ceil(len(rest) / num_raters) - num_claimed
        unclaimed = self._count_unclaimed()
        left = overlap_left + (min(unclaimed, share) if share > 0 else math.ceil(unclaimed / num_raters))
        num_given = len(history.assigned[campaign_id]) - len(self._unplayable & history.tasks.keys())
        return num_given + left + round(left * repeats / (1 - repeats))

    def _assign(self, task: Task, history: History) -> None:
        """Write a task to the log. If another server was faster, read what it wrote instead."""
        if self.histories.log.add_task(task):
            history.add_task(task)
            if task.claim is not None:
                self._claims.add(task.claim)
        else:
            self._claims_time = -CLAIMS_S
            self.histories.reload_tasks(task.rater, history)

    def _is_ready(self, task: Task) -> bool:
        clip = self.assignments.clips.get(task.clip_id)
        return clip is not None and self.media.has(clip, [(t.candidate_id, t.degraded) for t in task.tracks])

    def _make(self, task: Task, history: History) -> None:
        """Make a task's media. If that fails, leave out its clip, or the task if it was assigned before."""
        degraded = [(t.candidate_id, t.degraded) for t in task.tracks if t.degraded]
        if task.task_id not in history.tasks:
            make_or_drop(self.media, self.assignments, task.clip_id, degraded)
            return
        clip = self.assignments.clips.get(task.clip_id)
        try:
            if clip is None:
                raise MediaError(f"clip {task.clip_id} is gone")
            self.media.make(ClipTask(clip, tuple(task.genuine.values())), degraded)
        except ValueError as error:
            say(f"annotate: {task.rater}'s task {task.number} is left out: {error}")
            self._unplayable.add(task.task_id)

    def _claimed(self) -> set[str]:
        if time.monotonic() - self._claims_time >= CLAIMS_S:
            self._claims = self.histories.log.claims(self.settings.campaign_id)
            self._claims_time = time.monotonic()
        return self._claims

    def _count_unclaimed(self) -> int:
        state = (self.assignments.version, len(self._claims))
        if self._num_unclaimed[0] != state:
            count = sum(clip_id not in self._claims for clip_id in self.assignments.rest)
            self._num_unclaimed = (state, count)
        return self._num_unclaimed[1]

    def _follow_fit(self) -> None:
        """Order the clips again if AudioScore was fitted since the last time."""
        workspace, name = self.media.workspace, self.settings.audioscore
        try:
            fit_time = workspace.audioscore(name).weights.stat().st_mtime
        except FileNotFoundError:
            return
        with self._order_lock:
            if fit_time != self._fit_time:
                self._fit_time = fit_time
                self.assignments.order(self.settings, clip_uncertainty(workspace, self.assignments, name))
