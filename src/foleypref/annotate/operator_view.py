"""The operator's page: each rater's progress and pace, their agreement, and who noticed the checks.

Letters: R raters; U judged units, which are soundtracks, or pairs of them where raters compare or rank.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from itertools import combinations
from typing import Any

import numpy as np

from foleypref.annotate.campaign import Campaign
from foleypref.annotate.fold import comparisons
from foleypref.annotate.history import History, TaskState
from foleypref.annotate.rows import Task
from foleypref.scoring.agreement import krippendorff_alpha, pair_agreement
from foleypref.scoring.bootstrap import interval, resample

NUM_RESAMPLES = 200
QUICK_S = 0.2
Verdicts = dict[tuple[str, ...], int]
"""A task's verdicts: label by (candidate,), or preference by (candidate, candidate)."""


class OperatorView:
    """A campaign's summary, cached so that a large log costs at most a tenth of the server's time."""

    def __init__(self, campaign: Campaign) -> None:
        self.campaign = campaign
        self._lock = threading.Lock()
        self._valid_until, self._summary = 0.0, dict[str, Any]()

    def summary(self) -> dict[str, Any]:
        """Return `summary(campaign)`; if computing it took t > QUICK_S, the same again for 10 t."""
        with self._lock:
            begin = time.monotonic()
            if begin >= self._valid_until:
                self._summary = summary(self.campaign)
                took_s = time.monotonic() - begin
                self._valid_until = begin + (10 * took_s if took_s > QUICK_S else 0.0)
            return self._summary


def summary(campaign: Campaign) -> dict[str, Any]:
    """Return everything that the operator's page shows, as JSON values."""
    campaign_id, kind = campaign.settings.campaign_id, campaign.settings.task
    raters, verdicts, skipped = [], {}, Counter[str]()
    checks = {"repeats": Counter[str](), "degraded": Counter[str]()}
    for name in campaign.tokens.names():
        with campaign.histories.lock(name):
            history = campaign.histories.of(name)
            states = [(task, history.state(task)) for task in history.assigned[campaign_id]]
            raters.append({"name": name, **_rater_row(campaign, history, states)})
            verdicts[name] = {task: verdicts_of(task, state) for task, state in states if task.counts}
        for check, counts in checks.items():
            counts.update(raters[-1][check])
        skipped.update(s.skipped.body["reason"] for _, s in states if s.skipped is not None)
    totals = {
        "clips": len(campaign.assignments.clip_tasks),
        "overlap_clips": len(campaign.assignments.overlap),
        "media_ready": len(campaign.media.ready & campaign.assignments.clip_tasks.keys()),
        "tasks_done": sum(rater["done"] for rater in raters),
        "verdicts": sum(len(of_task) for by_task in verdicts.values() for of_task in by_task.values()),
        "skipped": dict(skipped.most_common()),
        **checks,
    }
    agreement = measure_agreement(*_table(verdicts), kind)
    return {"task": kind, "raters": raters, "agreement": agreement, "totals": totals}


def _rater_row(campaign: Campaign, history: History, states: list[tuple[Task, TaskState]]) -> dict[str, Any]:
    progress = campaign.progress(history)
    seconds = [e.body["seconds"] for _, state in states for e in state.verdicts if e.body.get("seconds")]
    repeats = [_compare_repeat(history, task, state) for task, state in states if task.repeat_of]
    caught = [is_caught for task, state in states for is_caught in _caught(task, state)]
    return {
        "done": progress["done"],
        "total": progress["total"],
        "per_hour": history.per_hour(campaign.settings.campaign_id),
        "last_seen": history.last_seen_ms,
        "repeats": {"agree": sum(same for same, _ in repeats), "of": sum(num for _, num in repeats)},
        "degraded": {"caught": sum(caught), "of": len(caught)},
        "median_seconds": round(float(np.median(seconds)), 2) if seconds else None,
    }


def verdicts_of(task: Task, state: TaskState, genuine: bool = True) -> Verdicts:
    """Return a task's verdicts by candidate id; unless `genuine`, also on degraded soundtracks, as "id*"."""
    ids = {t.label: f"{t.candidate_id}*" if t.degraded else t.candidate_id for t in task.tracks}
    letters = set(task.genuine) if genuine else set(ids)
    if task.kind == "rate":
        labels = {e.body["label"]: e.body["value"] for e in state.verdicts}
        return {(ids[a],): labels[a] for a in sorted(labels.keys() & letters)}
    verdicts: Verdicts = {}
    for _, first, second, preference, _ in comparisons(task, state):
        if {first, second} <= letters:
            a, b = ids[first], ids[second]
            verdicts[min(a, b), max(a, b)] = preference if a < b else -preference
    return verdicts


def _compare_repeat(history: History, task: Task, state: TaskState) -> tuple[int, int]:
    """Return (number of equal verdicts, number of verdicts) on a repeated task and its first showing."""
    first = history.tasks.get(task.repeat_of or "")
    before = verdicts_of(first, history.state(first)) if first is not None else {}
    again = verdicts_of(task, state)
    both = before.keys() & again.keys()
    return sum(before[key] == again[key] for key in both), len(both)


def _caught(task: Task, state: TaskState) -> list[bool]:
    """Return whether each degraded soundtrack was called bad, or worse than its original."""
    verdicts = verdicts_of(task, state, genuine=False)
    caught = []
    for original in [track.candidate_id for track in task.tracks if track.degraded]:
        degraded = f"{original}*"
        if task.kind == "rate" and (degraded,) in verdicts:
            label = verdicts[(degraded,)]
            caught.append(label == 0 or label < verdicts.get((original,), 0))
        elif (original, degraded) in verdicts:
            caught.append(verdicts[original, degraded] > 0)
    return caught


def _table(verdicts: dict[str, dict[Task, Verdicts]]) -> tuple[np.ndarray, np.ndarray]:
    """Return verdicts (R, U), NaN where there is none, and clips (U,) of units that two or more judged."""
    clip_of: dict[tuple[str, ...], str] = {}
    for by_task in verdicts.values():
        for task, of_task in by_task.items():
            clip_of.update(dict.fromkeys(of_task, task.clip_id))
    column = {unit: index for index, unit in enumerate(sorted(clip_of))}
    values = np.full((len(verdicts), len(column)), np.nan)
    for row, by_task in enumerate(verdicts.values()):
        for of_task in by_task.values():
            for unit, value in of_task.items():
                values[row, column[unit]] = value
    is_shared = (~np.isnan(values)).sum(0) >= 2
    return values[:, is_shared], np.array([clip_of[unit] for unit in column])[is_shared]


def measure_agreement(values: np.ndarray, clips: np.ndarray, kind: str) -> dict[str, Any]:
    """Return Krippendorff's alpha (ordinal), its 95 % interval over clips, and the pairwise agreement.

    Pairwise agreement: of two soundtracks of a clip that one rater tells apart, how often another rater
    orders them alike, a tie counting half.
    """
    counts = [_ordered_alike(first, second, clips, kind) for first, second in combinations(values, 2)]
    num = sum(n for _, n in counts)
    units_of = [np.flatnonzero(clips == clip_id) for clip_id in sorted(set(clips.tolist()))]

    def alpha_of(drawn: np.ndarray) -> float:
        return krippendorff_alpha(values[:, np.concatenate([units_of[i] for i in drawn])])

    alphas = resample(alpha_of, len(units_of), NUM_RESAMPLES if len(units_of) > 1 else 0)
    bounds = [round(bound, 4) for bound in interval(alphas)]
    alpha = krippendorff_alpha(values) if len(clips) else np.nan
    return {
        "alpha": round(float(alpha), 4) if np.isfinite(alpha) else None,
        "interval": bounds if np.isfinite(bounds).all() else None,
        "pairwise": round(sum(alike for alike, _ in counts) / num, 4) if num else None,
        "num_pairs": num,
        "overlap_items": len(clips),
    }


def _ordered_alike(first: np.ndarray, second: np.ndarray, clips: np.ndarray, kind: str) -> tuple[float, int]:
    """Return (number ordered alike, number of pairs) for two raters (U,), each taken as the truth once."""
    both = ~np.isnan(first) & ~np.isnan(second)
    alike, num = 0.0, 0
    for values, truth in ((first[both], second[both]), (second[both], first[both])):
        if kind == "rate":
            share, n = pair_agreement(values, truth, clips[both])
        else:
            true_sign, sign = np.sign(truth[truth != 0]), np.sign(values[truth != 0])
            n = len(true_sign)
            share = float(((sign == true_sign) + 0.5 * (sign == 0)).mean()) if n else 0.0
        alike, num = alike + (share * n if n else 0.0), num + n
    return alike, num
