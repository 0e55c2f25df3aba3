"""Checks that an event fits its task; otherwise it is refused with one line for the rater."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from foleypref.annotate.events import Compare, Listen, Rank, Rate, Skip, TaskEvent
from foleypref.annotate.rows import Task
from foleypref.annotate.settings import AnnotateSettings

SLACK_S = 0.05  # tolerance, because the page measures listening by the screen's refreshes


class Refused(Exception):
    """A request that is refused: an HTTP status, and one line to show."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


def check_event(
    event: TaskEvent,
    task: Task,
    settings: AnnotateSettings,
    heard: Mapping[str, float],
    seconds_of: Callable[[str], float],
) -> None:
    """Raise Refused (422 or 409) for an event that does not fit its task.

    `heard`: seconds of each soundtrack that the rater has heard before, by letter; `seconds_of(letter)`: its
    length in seconds.
    """
    if event.kind not in (task.kind, "listen", "skip"):
        raise Refused(422, f"kind: this task is to {task.kind}, found {event.kind}")
    judged = _judged_letters(event)
    unknown = sorted({*judged, *event.heard} - set(task.labels))
    if unknown:
        raise Refused(422, f"this task has no soundtrack {unknown[0]}")
    if isinstance(event, Rank) and len(judged) < len(task.labels):
        raise Refused(422, f"order: rank all of {', '.join(task.labels)}")
    if isinstance(event, Skip) and event.reason not in settings.skip_reasons:
        raise Refused(422, f"reason: one of {', '.join(settings.skip_reasons)}")
    if isinstance(event, Listen | Skip):
        return
    for label in judged:
        listened = max(heard.get(label, 0.0), event.heard.get(label, 0.0))
        if listened < min(settings.require_listen_s, seconds_of(label)) - SLACK_S:
            raise Refused(409, f"listen to {label} first")


def _judged_letters(event: TaskEvent) -> list[str]:
    """Return the letters that an event is about."""
    if isinstance(event, Rate | Listen):
        return [event.label]
    if isinstance(event, Compare):
        return [event.first, event.second]
    return sorted(event.labels()) if isinstance(event, Rank) else []
