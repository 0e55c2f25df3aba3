"""A rating campaign: what the raters' page asks and sends, without HTTP."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from foleypref.annotate.assignments import Assignments
from foleypref.annotate.checks import Refused, check_event
from foleypref.annotate.event_log import Conflict, EventLog
from foleypref.annotate.events import Event, TaskEvent, body_of, canonical
from foleypref.annotate.history import Histories, History
from foleypref.annotate.media_store import MediaStore
from foleypref.annotate.rows import NewEvent, StoredEvent, Task
from foleypref.annotate.settings import AnnotateSettings
from foleypref.annotate.task_queue import TaskQueue
from foleypref.annotate.tokens import Tokens
from foleypref.media.clip import MediaError
from foleypref.models.playback import event_times
from foleypref.workspace.records import LABELS

MAX_AHEAD = 3


class Campaign:
    """Raters, tasks and events of one workspace under one set of settings."""

    def __init__(
        self,
        settings: AnnotateSettings,
        log: EventLog,
        tokens: Tokens,
        media: MediaStore,
        assignments: Assignments,
    ) -> None:
        self.settings, self.log, self.tokens, self.media = settings, log, tokens, media
        self.assignments = assignments
        self.histories = Histories(log)
        self.queue = TaskQueue(settings, log, media, assignments=assignments, histories=self.histories)

    # -- reading ---------------------------------------------------------------------------------------------

    def me(self, rater: str) -> dict[str, Any]:
        """Return what the page needs to know about the rater and the campaign."""
        settings = self.settings
        with self.histories.lock(rater):
            history = self.histories.of(rater)
            return {
                "rater": rater,
                "task": settings.task,
                "labels": list(LABELS),
                "skip_reasons": list(settings.skip_reasons),
                "require_listen_s": settings.require_listen_s,
                "pace_per_hour": history.per_hour(settings.campaign_id),
                **self.progress(history),
            }

    def progress(self, history: History) -> dict[str, Any]:
        """Return how many tasks a rater has done, of about how many, and whether an undo is possible."""
        return {
            "done": history.num_done(self.settings.campaign_id),
            "total": self.queue.expected_total(history, max(1, len(self.tokens.names()))),
            "can_undo": history.last(self.settings.campaign_id) is not None,
        }

    def next_tasks(self, rater: str, ahead: int = 0) -> list[dict[str, Any]]:
        """Return the current task and up to `ahead` more, at most MAX_AHEAD, as the page gets them."""
        return self.queue.next(rater, 1 + min(max(ahead, 0), MAX_AHEAD), show=self._shown)

    def _shown(self, task: Task, history: History) -> dict[str, Any]:
        """Return a task without anything that tells what made a sound. Raises MediaError."""
        clip, ratings, tracks = self.assignments.clips[task.clip_id], history.state(task).given, []
        for label, candidate_id, degraded in task.tracks:
            sound = self.media.soundtrack(candidate_id, degraded)
            value = ratings[label].body["value"] if label in ratings else None
            tracks.append({"label": label, "seconds": sound.seconds, "peaks": sound.peaks, "given": value})
        return {
            "task_id": task.task_id,
            "number": task.number,
            "kind": task.kind,
            "clip": {"prompt": clip.prompt, "seconds": clip.duration_s, "fps": clip.fps},
            "tracks": tracks,
            "heard": dict(history.heard[task.task_id]),
            "events": event_times(clip) if self.settings.show_events else [],
        }

    def task_of(self, rater: str, task_id: str) -> Task:
        """Return a task of this rater. Raises Refused (404) for any other task."""
        history = self.histories.of(rater)
        if task_id not in history.tasks:
            self.histories.reload_tasks(rater, history)
        task = history.tasks.get(task_id)
        if task is None:
            raise Refused(404, "there is no such task")
        return task

    def media_file(self, rater: str, task_id: str, which: str) -> Path:
        """Return the file of a task's "video", or of the soundtrack under a letter. Raises Refused."""
        task = self.task_of(rater, task_id)
        clip = self.assignments.clips.get(task.clip_id)
        try:
            if which == "video" and clip is not None and self.media.video(clip).exists():
                return self.media.video(clip)
            for track in task.tracks:
                if track.label == which:
                    return self.media.soundtrack(track.candidate_id, track.degraded).path
        except MediaError:
            pass
        raise Refused(404, "there is no such sound or picture")

    # -- writing ---------------------------------------------------------------------------------------------

    def post(self, rater: str, event: Event) -> dict[str, Any]:
        """Write an event to the log; return the reply to the page once it is on disk. Raises Refused."""
        with self.histories.lock(rater):
            history = self.histories.of(rater)
            client_id, undoes = str(event.client_id), None
            if client_id not in history.client_ids:  # a replay was checked when it came first
                undoes = self._check(rater, history, event)
            task_id = event.task_id if isinstance(event, TaskEvent) else ""
            body = body_of(event)
            new = NewEvent(rater, client_id, event.kind, task_id=task_id, body=canonical(body), undoes=undoes)
            try:
                seq, replayed, time_ms = self.log.append(new)
            except Conflict as error:
                raise Refused(409, str(error)) from None
            if not replayed and seq > history.seq:
                stored = {**new._asdict(), "body": body}
                history.apply(StoredEvent(seq=seq, server_time_ms=time_ms, **stored))
            elif not replayed:  # another server wrote later and was read earlier: read the log again
                self.histories.forget(rater)
            reply = {"accepted": True, "seq": seq, **self.progress(history)}
            return {**reply, "replayed": True} if replayed else reply

    def _check(self, rater: str, history: History, event: Event) -> int | None:
        """Raise Refused if an event does not fit; return the seq of the event that an undo takes back."""
        if not isinstance(event, TaskEvent):
            last = history.last(self.settings.campaign_id)
            if last is None:
                raise Refused(409, "there is nothing to undo")
            return last.seq
        task = self.task_of(rater, event.task_id)
        heard, seconds_of = history.heard[task.task_id], partial(self._seconds, task)
        check_event(event, task, self.settings, heard=heard, seconds_of=seconds_of)
        return None

    def _seconds(self, task: Task, label: str) -> float:
        track = next(track for track in task.tracks if track.label == label)
        try:
            return self.media.soundtrack(track.candidate_id, track.degraded).seconds
        except MediaError as error:
            raise Refused(404, str(error)) from None
