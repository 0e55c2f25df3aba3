"""A rating campaign: what the raters' page asks and sends, without HTTP, and which events it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from foleypref.annotate.assignments import Assignments
from foleypref.annotate.event_log import Conflict, EventLog
from foleypref.annotate.events import Compare, Event, Listen, Rank, Rate, Skip, TaskEvent
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
SLACK_S = 0.05  # tolerance, because the page measures listening by the screen's refreshes


class Refused(Exception):
    """A request that is refused: an HTTP status, and one line to show."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class Campaign:
    """Raters, tasks and events of one workspace under one set of settings."""

    def __init__(
        self, settings: AnnotateSettings, log: EventLog, media: MediaStore, assignments: Assignments
    ) -> None:
        self.settings, self.log, self.media, self.assignments = settings, log, media, assignments
        self.tokens, self.histories = Tokens(log), Histories(log)
        self.queue = TaskQueue(settings, media, assignments, self.histories)

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
            "done": len(history.done[self.settings.campaign_id]),
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
        if task_id not in history.tasks:
            raise Refused(404, "there is no such task")
        return history.tasks[task_id]

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

    def post(self, rater: str, event: Event) -> dict[str, Any]:
        """Write an event to the log; return the reply to the page once it is on disk. Raises Refused."""
        with self.histories.lock(rater):
            history = self.histories.of(rater)
            client_id = str(event.client_id)
            is_replay = client_id in history.client_ids  # it was checked when it came first
            undoes = None if is_replay else self._check(rater, history, event)
            task_id = event.task_id if isinstance(event, TaskEvent) else ""
            body = event.model_dump(mode="json", exclude={"client_id"})
            # Equal bodies give the same text; only ASCII, because databases refuse NUL and lone surrogates.
            text = json.dumps(body, sort_keys=True, separators=(",", ":"))
            new = NewEvent(rater, client_id, event.kind, task_id=task_id, body=text, undoes=undoes)
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
        judged = _judged_letters(event)
        unknown = sorted({*judged, *event.heard} - set(task.labels))
        if event.kind not in (task.kind, "listen", "skip"):
            raise Refused(422, f"kind: this task is to {task.kind}, found {event.kind}")
        if unknown:
            raise Refused(422, f"this task has no soundtrack {unknown[0]}")
        if isinstance(event, Rank) and len(judged) < len(task.labels):
            raise Refused(422, f"order: rank all of {', '.join(task.labels)}")
        if isinstance(event, Skip) and event.reason not in self.settings.skip_reasons:
            raise Refused(422, f"reason: one of {', '.join(self.settings.skip_reasons)}")
        for label in judged if event.kind == task.kind else ():
            heard_s = max(history.heard[task.task_id].get(label, 0.0), event.heard.get(label, 0.0))
            if heard_s < min(self.settings.require_listen_s, self._seconds(task, label)) - SLACK_S:
                raise Refused(409, f"listen to {label} first")
        return None

    def _seconds(self, task: Task, label: str) -> float:
        track = next(track for track in task.tracks if track.label == label)
        try:
            return self.media.soundtrack(track.candidate_id, track.degraded).seconds
        except MediaError as error:
            raise Refused(404, str(error)) from None


def _judged_letters(event: TaskEvent) -> list[str]:
    """Return the letters that an event is about."""
    if isinstance(event, Rate | Listen):
        return [event.label]
    if isinstance(event, Compare):
        return [event.first, event.second]
    return sorted(event.labels()) if isinstance(event, Rank) else []
