"""What a rater's page is told: tasks without anything that says what made a sound, and how far they are."""

from __future__ import annotations

import math
from typing import Any

from foleypref.annotate.history import History
from foleypref.annotate.rows import Task
from foleypref.annotate.settings import AnnotateSettings
from foleypref.annotate.soundtracks import Studio
from foleypref.annotate.tasks import Plan
from foleypref.models.playback import event_times
from foleypref.workspace.records import Clip


def shown_task(
    task: Task, history: History, clip: Clip, studio: Studio, *, show_events: bool = False
) -> dict[str, Any]:
    """A task as the page gets it, with what was given and heard so far. Raises MediaError."""
    given, tracks = history.state(task).given, []
    for track in task.tracks:
        sound = studio.soundtrack(track.candidate_id, track.degraded)
        value = given[track.label].body["value"] if track.label in given else None
        tracks.append({"label": track.label, "seconds": sound.seconds, "peaks": sound.peaks, "given": value})
    return {
        "task_id": task.task_id,
        "number": task.number,
        "kind": task.kind,
        "clip": {"prompt": clip.prompt, "seconds": clip.duration_s, "fps": clip.fps},
        "tracks": tracks,
        "heard": dict(history.heard[task.task_id]),
        "events": event_times(clip) if show_events else [],
    }


def progress(
    history: History, plan: Plan, settings: AnnotateSettings, heads: int, free: int, unshown: int
) -> dict[str, Any]:
    """Tasks done, and how many it will be about.

    Dealt clips are counted by `heads` until others were faster; `free` were dealt to nobody yet, `unshown` of
    the rater's tasks cannot be shown.
    """
    seen = history.seen(settings.campaign)
    overlap_left = sum(clip_id not in seen for clip_id in plan.overlap)
    dealt = len(seen) - (len(plan.overlap) - overlap_left)
    due = math.ceil(len(plan.rest) / heads) - dealt
    left = overlap_left + (min(free, due) if due > 0 else math.ceil(free / heads))
    total = len(history.of(settings.campaign)) - unshown + left
    return {
        "done": history.num_done(settings.campaign),
        "total": total + round(left * settings.repeats / (1 - settings.repeats)),
        "can_undo": history.last(settings.campaign) is not None,
    }
