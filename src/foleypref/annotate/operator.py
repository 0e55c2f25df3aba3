"""What the operator sees: who is how far and how fast, how well they agree, who noticed the checks.

Letters: R raters, U judged things (soundtracks, or pairs of them where people compare or rank).
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from foleypref.annotate.desk import Desk
from foleypref.annotate.fold import comparisons
from foleypref.annotate.history import History, TaskState
from foleypref.annotate.rows import Task
from foleypref.scoring.agreement import krippendorff_alpha, pair_agreement

NUM_RESAMPLES = 200
QUICK_S = 0.2
Said = dict[tuple[str, ...], int]
"""What stands of a task: label by (candidate,), or preference by (candidate, candidate)."""


class Table(NamedTuple):
    """Judgements (R, U), NaN where there is none, with the clip (U,) of each judged thing."""

    values: np.ndarray
    clips: np.ndarray


class Watch:
    """The operator's view, asked for every few seconds: of a large book a tenth of the time at most."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self._lock = threading.Lock()
        self._good_until, self._last = 0.0, dict[str, Any]()

    def summary(self) -> dict[str, Any]:
        """What `summary` says, a few seconds old where it takes long."""
        with self._lock:
            begin = time.monotonic()
            if begin >= self._good_until:
                self._last = summary(self.desk)
                took = time.monotonic() - begin
                self._good_until = begin + (10 * took if took > QUICK_S else 0.0)
            return self._last


def summary(desk: Desk) -> dict[str, Any]:
    """Everything on the operator's page, as JSON has it."""
    campaign, kind = desk.settings.campaign, desk.settings.task
    raters, said, skipped = [], {}, Counter[str]()
    for name in desk.door.names():
        with desk.lock(name):
            history = desk.history(name)
            states = [(task, history.state(task)) for task in history.of(campaign)]
            raters.append({"name": name, **_rater(desk, history, states)})
            said[name] = {task: spoken(task, state) for task, state in states if task.counts}
        skipped.update(s.skipped.body["reason"] for _, s in states if s.skipped is not None)
    checks = {key: _total(raters, key) for key in ("repeats", "degraded")}
    totals = {
        "clips": len(desk.plan.units),
        "overlap_clips": len(desk.plan.overlap),
        "media_ready": len(desk.studio.ready & desk.plan.units.keys()),
        "tasks_done": sum(rater["done"] for rater in raters),
        "verdicts": sum(len(one) for by_task in said.values() for one in by_task.values()),
        "skipped": dict(skipped.most_common()),
        **checks,
    }
    agreement = measure_agreement(_table(said), kind)
    return {"task": kind, "raters": raters, "agreement": agreement, "totals": totals}


def _rater(desk: Desk, history: History, states: list[tuple[Task, TaskState]]) -> dict[str, Any]:
    progress = desk.progress(history)
    seconds = [e.body["seconds"] for _, state in states for e in state.verdicts if e.body.get("seconds")]
    repeats = [_repeat(history, task, state) for task, state in states if task.repeat_of]
    caught = [seen for task, state in states for seen in _degraded(task, state)]
    return {
        "done": progress["done"],
        "total": progress["total"],
        "per_hour": history.per_hour(desk.settings.campaign),
        "last_seen": history.last_seen_ms,
        "repeats": {"agree": sum(a for a, _ in repeats), "of": sum(n for _, n in repeats)},
        "degraded": {"caught": sum(caught), "of": len(caught)},
        "median_seconds": round(float(np.median(seconds)), 2) if seconds else None,
    }


def spoken(task: Task, state: TaskState, genuine: bool = True) -> Said:
    """What stands of a task by candidate; `genuine` leaves degraded soundtracks out, else they end in "*"."""
    names = {t.label: t.candidate_id + "*" * bool(t.degraded) for t in task.tracks}
    wanted = set(task.genuine) if genuine else set(names)
    if state.skipped is not None:
        return {}
    if task.kind == "rate":
        return {(names[a],): e.body["value"] for a, e in sorted(state.given.items()) if a in wanted}
    said: Said = {}
    for _, first, second, preference, _ in comparisons(task, state):
        if {first, second} <= wanted:
            a, b = names[first], names[second]
            said[min(a, b), max(a, b)] = preference if a < b else -preference
    return said


def _repeat(history: History, task: Task, state: TaskState) -> tuple[int, int]:
    """(the same, of) judgements of a repeated task and the first time."""
    first = history.tasks.get(task.repeat_of or "")
    before = spoken(first, history.state(first)) if first is not None else {}
    again = spoken(task, state)
    both = before.keys() & again.keys()
    return sum(before[key] == again[key] for key in both), len(both)


def _degraded(task: Task, state: TaskState) -> list[bool]:
    """Whether each soundtrack that was made worse was heard to be worse than what it was made of, or bad."""
    said = spoken(task, state, genuine=False)
    found = []
    for original in [track.candidate_id for track in task.tracks if track.degraded]:
        worse = original + "*"
        if task.kind == "rate" and (worse,) in said:
            label = said[(worse,)]
            found.append(label == 0 or label < said.get((original,), 0))
        elif (original, worse) in said:
            found.append(said[original, worse] > 0)
    return found


def _table(said: dict[str, dict[Task, Said]]) -> Table:
    clip_of = {key: task.clip_id for tasks in said.values() for task, one in tasks.items() for key in one}
    column = {key: index for index, key in enumerate(sorted(clip_of))}
    values = np.full((len(said), len(column)), np.nan)
    for row, tasks in enumerate(said.values()):
        for one in tasks.values():
            for key, value in one.items():
                values[row, column[key]] = value
    values_of_many = (~np.isnan(values)).sum(0) >= 2
    return Table(values[:, values_of_many], np.array([clip_of[key] for key in column])[values_of_many])


def measure_agreement(table: Table, kind: str) -> dict[str, Any]:
    """Krippendorff's alpha (ordinal) with its 95 % interval over clips, and the pairwise agreement: of two
    soundtracks of a clip that one rater tells apart, how often another orders them alike (a tie is half)."""
    values, clips = table
    shares = [
        _ordered_alike(values[a], values[b], clips, kind) for a, b in combinations(range(len(values)), 2)
    ]
    num = sum(n for _, n in shares)
    generator, names = np.random.default_rng(0), sorted(set(clips.tolist()))
    columns = [np.flatnonzero(clips == name) for name in names]
    alphas = []
    for _ in range(NUM_RESAMPLES if len(names) > 1 else 0):
        drawn = generator.integers(0, len(names), len(names))
        alphas.append(krippendorff_alpha(values[:, np.concatenate([columns[i] for i in drawn])]))
    alphas = [alpha for alpha in alphas if np.isfinite(alpha)]
    interval = [round(float(q), 4) for q in np.quantile(alphas, [0.025, 0.975])] if alphas else None
    alpha = krippendorff_alpha(values) if len(clips) else np.nan
    return {
        "alpha": round(float(alpha), 4) if np.isfinite(alpha) else None,
        "interval": interval,
        "pairwise": round(sum(right for right, _ in shares) / num, 4) if num else None,
        "num_pairs": num,
        "overlap_items": len(clips),
    }


def _ordered_alike(first: np.ndarray, second: np.ndarray, clips: np.ndarray, kind: str) -> tuple[float, int]:
    """(how many, of how many) pairs two raters (U,) order alike, seen from either side."""
    both = ~np.isnan(first) & ~np.isnan(second)
    right, num = 0.0, 0
    for values, truth in ((first[both], second[both]), (second[both], first[both])):
        if kind == "rate":
            share, n = pair_agreement(values, truth, clips[both])
        else:
            wanted, found = np.sign(truth[truth != 0]), np.sign(values[truth != 0])
            n = len(wanted)
            share = float(((found == wanted) + 0.5 * (found == 0)).mean()) if n else 0.0
        right, num = right + (share * n if n else 0.0), num + n
    return right, num


def _total(raters: list[dict[str, Any]], key: str) -> dict[str, int]:
    """A check's counts over all raters."""
    counts = Counter[str]()
    for rater in raters:
        counts.update(rater[key])
    return dict(counts)
