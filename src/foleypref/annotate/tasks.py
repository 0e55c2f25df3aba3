"""Which clip comes next before whom, and in what blind order its soundtracks stand.

The first `overlap` share of the clips goes to every rater; of the others each goes to the first who is free.
Within both, clips come in one order: a share of them at random, the others by AudioScore's uncertainty, the
entropy of its probabilities. A share of tasks repeats an earlier one, and in a share one soundtrack is
degraded; which ones is a function of (seed, rater, number), and a task is written down when it is assigned.
"""

from __future__ import annotations

import math
import random
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from foleypref.annotate.history import History
from foleypref.annotate.rows import Task, Track
from foleypref.annotate.settings import AnnotateSettings
from foleypref.flow.convention import seed_of
from foleypref.models.backbones import Model
from foleypref.scoring.scorers.audioscore import AudioScore
from foleypref.workspace.records import GROUND_TRUTH, LABELS, Candidate, Clip, digest
from foleypref.workspace.score_matrix import fitted_matrix
from foleypref.workspace.selection import clips_of_split
from foleypref.workspace.store import Workspace
from foleypref.workspace.walk import say

REPEAT_AFTER = 5  # tasks between one and its repetition at least
LETTERS = "ABCDEFGHI"


@dataclass(frozen=True)
class Unit:
    """What a task shows of a clip: the soundtracks of it that are judged, the same for every rater."""

    clip: Clip
    candidates: tuple[str, ...]


@dataclass
class Plan:
    """Every clip that can be judged; `overlap` and `rest` are clip ids in the order they are given out."""

    units: dict[str, Unit]
    clips: dict[str, Clip] = field(default_factory=dict)  # of the split, also those of tasks given out before
    overlap: list[str] = field(default_factory=list)
    rest: list[str] = field(default_factory=list)
    version: int = 0  # counts changes

    def drop(self, clip_id: str) -> None:
        """Leave a clip out whose media cannot be made."""
        self.units.pop(clip_id, None)
        self.overlap = [i for i in self.overlap if i != clip_id]
        self.rest = [i for i in self.rest if i != clip_id]
        self.version += 1

    def order(self, settings: AnnotateSettings, uncertainty: Mapping[str, float]) -> None:
        """Choose the overlap set, and put both sets in order."""
        shuffled = sorted(self.units, key=lambda clip_id: seed_of(settings.seed, "overlap", clip_id))
        num = math.ceil(settings.overlap * len(shuffled) - 1e-9)
        self.overlap = _ordered(shuffled[:num], settings, uncertainty)
        self.rest = _ordered(shuffled[num:], settings, uncertainty)
        self.version += 1


def make_plan(workspace: Workspace, settings: AnnotateSettings) -> Plan:
    """The clips of a split with two or more candidates of one model, in order.

    Raises ValueError where there are none, and for a joint model, whose sound belongs to its own picture.
    """
    if cast(Model, settings.model).spec.video is not None:
        raise ValueError(
            f"{settings.model.part_name()!r} makes a picture with every sound, and people rate several "
            "sounds of one picture; name a video-to-audio model in --model"
        )
    clips = {clip.clip_id: clip for clip in clips_of_split(workspace, settings.split)}
    by_clip: dict[str, list[Candidate]] = {}
    for candidate in workspace.read(Candidate):
        if candidate.clip_id in clips and _is_wanted(candidate, settings):
            by_clip.setdefault(candidate.clip_id, []).append(candidate)
    if settings.versus:
        by_clip = {i: _opponents(found, settings) for i, found in by_clip.items()}
    ready = [i for i, found in by_clip.items() if sum(c.model != GROUND_TRUTH for c in found) >= 2]
    if not ready:
        raise ValueError(
            f"{workspace.root} has no clips of split {settings.split!r} with two or more candidates of "
            f"{settings.model.part_name()!r}; run `foleypref sample` first, or name another split or model"
        )
    ready.sort(key=lambda clip_id: seed_of(settings.seed, "annotated", clip_id))
    units = {i: Unit(clips[i], _choose(by_clip[i], settings)) for i in ready[: settings.num_clips]}
    plan = Plan(units, clips)
    plan.order(settings, {})
    return plan


def _is_wanted(candidate: Candidate, settings: AnnotateSettings) -> bool:
    if candidate.model == GROUND_TRUTH:
        return settings.ground_truth
    made_here = candidate.model == settings.model.part_name() and bool(candidate.shard)
    if settings.versus:
        return made_here and candidate.weights in settings.versus
    return made_here and settings.weights in (None, candidate.weights)


def _opponents(candidates: Sequence[Candidate], settings: AnnotateSettings) -> list[Candidate]:
    """One candidate of each of two models, made alike and from the same noise; [] where there are none."""
    made: dict[tuple[object, ...], dict[str, Candidate]] = {}
    for c in candidates:
        made.setdefault((c.seed, c.solver, c.num_steps, c.guidance_scale), {})[c.weights] = c
    both = sorted((key for key, found in made.items() if len(found) == 2), key=lambda key: key[0])  # type: ignore[arg-type,return-value]
    return [made[both[0]][weights] for weights in settings.versus] if both else []


def _choose(candidates: Sequence[Candidate], settings: AnnotateSettings) -> tuple[str, ...]:
    """As many as a task shows; the clip's own sound, if wanted, is always one of them."""
    order = sorted(
        candidates, key=lambda c: (c.model != GROUND_TRUTH, seed_of(settings.seed, c.candidate_id))
    )
    return tuple(c.candidate_id for c in order[: settings.tracks])


def _ordered(
    clip_ids: Iterable[str], settings: AnnotateSettings, uncertainty: Mapping[str, float]
) -> list[str]:
    """By uncertainty, greatest first, with a share taken at random; all at random where nothing is known."""
    at_random = list(clip_ids)  # sorted by a hash already
    if not uncertainty:
        return at_random
    by_uncertainty = sorted(at_random, key=lambda clip_id: -uncertainty.get(clip_id, math.inf))
    ordered: dict[str, None] = {}
    sources = {True: iter(at_random), False: iter(by_uncertainty)}
    draws = random.Random(seed_of(settings.seed, "random share"))
    while len(ordered) < len(at_random):
        source = sources[draws.random() < settings.random_share]
        ordered[next(clip_id for clip_id in source if clip_id not in ordered)] = None
    return list(ordered)


def clip_uncertainty(workspace: Workspace, plan: Plan, name: str) -> dict[str, float]:
    """Mean entropy (nats) of AudioScore's probabilities over a clip's candidates; {} without such a fit.

    A candidate that no judge has scored is as uncertain as can be.
    """
    path = workspace.audioscore(name).weights
    if not path.is_file():
        return {}
    units = dict(plan.units)  # another thread may leave a clip out
    ids = [i for unit in units.values() for i in unit.candidates]
    try:
        score = AudioScore(weights=str(path)).load()
        versions = dict(zip(score.fitted.dimensions, score.fitted.versions))
        values = fitted_matrix(workspace, ids, versions)
    except ValueError as error:
        say(f"annotate: clips come in random order: {error}")
        return {}
    p = np.clip(score.probabilities(values), 1e-12, 1.0)
    entropy = np.where(np.isfinite(values).any(1), -(p * np.log(p)).sum(1), math.log(len(LABELS)))
    by_candidate = dict(zip(ids, entropy.tolist()))
    return {
        clip_id: float(np.mean([by_candidate[i] for i in unit.candidates])) for clip_id, unit in units.items()
    }


def draw_task(
    plan: Plan, settings: AnnotateSettings, rater: str, history: History, taken: Container[str]
) -> Task | None:
    """The rater's next task, or None when no clip is left for them; `taken` clips are other raters'."""
    mine = history.of(settings.campaign)
    number = len(mine) + 1
    seen = history.seen(settings.campaign)
    clip_id = next((i for i in plan.overlap if i not in seen), None)
    dealt = clip_id is None
    if dealt:
        clip_id = next((i for i in plan.rest if i not in seen and i not in taken), None)
    if clip_id is None:
        return None
    draws = random.Random(seed_of(settings.seed, "task", rater, number))
    repeat, degrade = draws.random() < settings.repeats, draws.random() < settings.degraded
    earlier = _repeatable(plan, mine, history, number) if repeat else []
    if earlier:
        again = draws.choice(earlier)
        shown = [(track.candidate_id, "") for track in again.tracks]
        return _task(settings, rater, number, again.clip_id, shown, repeat_of=again.task_id)
    shown = [(i, "") for i in plan.units[clip_id].candidates]
    if degrade:
        shown = _degraded(shown, settings, draws)
    # With one genuine soundtrack left it was a check alone, and the clip is still to come.
    claims = dealt and sum(not how for _, how in shown) >= 2
    return _task(settings, rater, number, clip_id, shown, claim=clip_id if claims else None)


def _repeatable(plan: Plan, mine: Sequence[Task], history: History, number: int) -> list[Task]:
    """Finished tasks far enough back that were never repeated, and hold nothing degraded."""
    repeated = {task.repeat_of for task in mine}
    return [
        task
        for task in mine
        if task.number < number - REPEAT_AFTER
        and task.counts
        and task.clip_id in plan.units
        and task.task_id not in repeated
        and len(task.genuine) == len(task.tracks)
        and history.is_done(task)
        and history.state(task).skipped is None
    ]


def _degraded(
    shown: list[tuple[str, str]], settings: AnnotateSettings, draws: random.Random
) -> list[tuple[str, str]]:
    """One soundtrack once more, degraded; in a full task it takes the place of another one."""
    original = draws.choice(shown)
    others = [track for track in shown if track != original]
    if len(shown) >= settings.tracks:
        others.remove(draws.choice(others))
    return [original, *others, (original[0], draws.choice(settings.degradations))]


def _task(
    settings: AnnotateSettings,
    rater: str,
    number: int,
    clip_id: str,
    shown: Sequence[tuple[str, str]],
    repeat_of: str | None = None,
    claim: str | None = None,
) -> Task:
    """A task with its soundtracks in this rater's blind order."""
    task_id = digest("task", settings.campaign, rater, number)
    order = sorted(shown)
    random.Random(seed_of(settings.seed, "blind", rater, task_id)).shuffle(order)
    tracks = tuple(Track(letter, *track) for letter, track in zip(LETTERS, order))
    kind = settings.task
    return Task(task_id, settings.campaign, rater, number, kind, clip_id, tracks, repeat_of, claim)
