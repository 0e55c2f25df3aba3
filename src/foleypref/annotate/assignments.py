"""Which clip comes next for which rater, and the blind order of its soundtracks.

A share `overlap` of the clips goes to every rater; each other clip goes to the first rater who is free.
Within both sets the clips have one order: a share `random_share` of them at random, the others by
AudioScore's uncertainty, which is the entropy of its probabilities. Some tasks repeat an earlier one, and
some have a degraded soundtrack; which ones is a function of (seed, rater, number).
"""

from __future__ import annotations

import math
import random
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from foleypref.annotate.history import History
from foleypref.annotate.rows import Task, Track
from foleypref.annotate.settings import AnnotateSettings
from foleypref.flow.convention import seed_of
from foleypref.scoring.scorers.audioscore import AudioScore
from foleypref.workspace.records import GROUND_TRUTH, LABELS, Candidate, Clip, digest
from foleypref.workspace.selection import clips_of_split
from foleypref.workspace.store import Workspace
from foleypref.workspace.walk import say

REPEAT_AFTER = 5  # tasks that lie at least between a task and its repetition
LETTERS = "ABCDEFGHI"


@dataclass(frozen=True)
class ClipTask:
    """A clip and the candidates that are judged on it, the same for every rater."""

    clip: Clip
    candidates: tuple[str, ...]


@dataclass
class Assignments:
    """Every clip that can be judged. `overlap` and `rest` list clip ids in the order of assignment."""

    clip_tasks: dict[str, ClipTask]
    clips: dict[str, Clip] = field(default_factory=dict)  # of the split, also those left out since
    overlap: list[str] = field(default_factory=list)
    rest: list[str] = field(default_factory=list)
    version: int = 0  # counts changes

    def drop(self, clip_id: str) -> None:
        """Leave out a clip whose media cannot be made."""
        self.clip_tasks.pop(clip_id, None)
        self.overlap = [i for i in self.overlap if i != clip_id]
        self.rest = [i for i in self.rest if i != clip_id]
        self.version += 1

    def order(self, settings: AnnotateSettings, uncertainty: Mapping[str, float]) -> None:
        """Choose the overlap set, and put both sets in order."""
        shuffled = sorted(self.clip_tasks, key=lambda clip_id: seed_of(settings.seed, "overlap", clip_id))
        num = math.ceil(settings.overlap * len(shuffled) - 1e-9)
        self.overlap = _ordered(shuffled[:num], settings, uncertainty)
        self.rest = _ordered(shuffled[num:], settings, uncertainty)
        self.version += 1


def make_assignments(workspace: Workspace, settings: AnnotateSettings) -> Assignments:
    """Return the clips of a split that have two or more candidates of one model, in order.

    Raises ValueError if there are none, and for a joint model, whose sound belongs to its own picture.
    """
    if settings.model.spec.video is not None:
        raise ValueError(
            f"{settings.model.part_name()!r} makes a picture with every sound, but raters compare several "
            "sounds of one picture; name a video-to-audio model in --model"
        )
    clips = {clip.clip_id: clip for clip in clips_of_split(workspace, settings.split)}
    by_clip: dict[str, list[Candidate]] = {}
    for candidate in workspace.read(Candidate):
        if candidate.clip_id in clips and _is_eligible(candidate, settings):
            by_clip.setdefault(candidate.clip_id, []).append(candidate)
    if settings.versus:
        by_clip = {clip_id: _opponents(candidates, settings) for clip_id, candidates in by_clip.items()}
    ready = [i for i, of_clip in by_clip.items() if sum(c.model != GROUND_TRUTH for c in of_clip) >= 2]
    if not ready:
        raise ValueError(
            f"{workspace.root} has no clips of split {settings.split!r} with two or more candidates of "
            f"{settings.model.part_name()!r}; run `foleypref sample` first, or name another split or model"
        )
    ready.sort(key=lambda clip_id: seed_of(settings.seed, "annotated", clip_id))
    chosen = {i: ClipTask(clips[i], _choose(by_clip[i], settings)) for i in ready[: settings.num_clips]}
    assignments = Assignments(chosen, clips)
    assignments.order(settings, {})
    return assignments


def _is_eligible(candidate: Candidate, settings: AnnotateSettings) -> bool:
    if candidate.model == GROUND_TRUTH:
        return settings.ground_truth
    is_sampled = candidate.model == settings.model.part_name() and bool(candidate.shard)
    if settings.versus:
        return is_sampled and candidate.weights in settings.versus
    return is_sampled and settings.weights in (None, candidate.weights)


def _opponents(candidates: Sequence[Candidate], settings: AnnotateSettings) -> list[Candidate]:
    """Return one candidate of each of two models, sampled alike from the same noise; else []."""
    by_sampling: dict[tuple[int, str, int, float], dict[str, Candidate]] = {}
    for c in candidates:
        key = (c.seed, c.solver, c.num_steps, c.guidance_scale)
        by_sampling.setdefault(key, {})[c.weights] = c
    pairs = sorted((key for key, pair in by_sampling.items() if len(pair) == 2), key=lambda key: key[0])
    return [by_sampling[pairs[0]][weights] for weights in settings.versus] if pairs else []


def _choose(candidates: Sequence[Candidate], settings: AnnotateSettings) -> tuple[str, ...]:
    """Return as many ids as a task shows. The clip's own sound, if eligible, is always among them."""
    order = sorted(
        candidates, key=lambda c: (c.model != GROUND_TRUTH, seed_of(settings.seed, c.candidate_id))
    )
    return tuple(c.candidate_id for c in order[: settings.tracks])


def _ordered(at_random: list[str], settings: AnnotateSettings, uncertainty: Mapping[str, float]) -> list[str]:
    """Return clips with the most uncertain first and a share at random; all at random without a fit."""
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


def clip_uncertainty(workspace: Workspace, assignments: Assignments, name: str) -> dict[str, float]:
    """Return the mean entropy (nats) of AudioScore's probabilities over each clip's candidates.

    Without a fit called `name`, {}. A candidate without scores gets the highest entropy.
    """
    path = workspace.audioscore(name).weights
    if not path.is_file():
        return {}
    chosen = dict(assignments.clip_tasks)  # a copy: another thread may leave a clip out meanwhile
    ids = [candidate_id for clip_task in chosen.values() for candidate_id in clip_task.candidates]
    try:
        probabilities, scored = AudioScore(weights=str(path)).load().stored_probabilities(workspace, ids)
    except ValueError as error:
        say(f"annotate: clips come in random order: {error}")
        return {}
    p = np.clip(probabilities, 1e-12, 1.0)
    entropy = np.where(scored, -(p * np.log(p)).sum(1), math.log(len(LABELS)))
    by_candidate = dict(zip(ids, entropy.tolist()))
    return {
        clip_id: float(np.mean([by_candidate[i] for i in clip_task.candidates]))
        for clip_id, clip_task in chosen.items()
    }


def draw_task(
    assignments: Assignments,
    settings: AnnotateSettings,
    rater: str,
    history: History,
    claimed: Container[str],
) -> Task | None:
    """Return the rater's next task, or None if no clip is left; `claimed` clips belong to other raters."""
    earlier = history.assigned[settings.campaign_id]
    number = len(earlier) + 1
    seen = history.seen[settings.campaign_id]
    clip_id = next((i for i in assignments.overlap if i not in seen), None)
    is_overlap = clip_id is not None
    if not is_overlap:
        clip_id = next((i for i in assignments.rest if i not in seen and i not in claimed), None)
    if clip_id is None:
        return None
    draws = random.Random(seed_of(settings.seed, "task", rater, number))
    repeat, degrade = draws.random() < settings.repeats, draws.random() < settings.degraded
    if repeat and (repeatable := _repeatable(assignments, earlier, history, number)):
        first = draws.choice(repeatable)
        tracks = [(track.candidate_id, "") for track in first.tracks]
        task = _task(settings, rater, number, clip_id=first.clip_id, tracks=tracks)
        return replace(task, repeat_of=first.task_id)
    tracks = [(i, "") for i in assignments.clip_tasks[clip_id].candidates]
    if degrade:
        tracks = _degraded(tracks, settings, draws)
    # With one genuine soundtrack left, the task is only a check and the clip comes again.
    is_claimed = not is_overlap and sum(not how for _, how in tracks) >= 2
    task = _task(settings, rater, number, clip_id=clip_id, tracks=tracks)
    return replace(task, claim=clip_id) if is_claimed else task


def _repeatable(
    assignments: Assignments, earlier: Sequence[Task], history: History, number: int
) -> list[Task]:
    """Return finished tasks far enough back that were not repeated yet and had no degraded soundtrack."""
    repeated = {task.repeat_of for task in earlier}
    return [
        task
        for task in earlier
        if task.number < number - REPEAT_AFTER
        and task.counts
        and task.clip_id in assignments.clip_tasks
        and task.task_id not in repeated
        and len(task.genuine) == len(task.tracks)
        and history.is_done(task)
        and history.state(task).skipped is None
    ]


def _degraded(
    tracks: list[tuple[str, str]], settings: AnnotateSettings, draws: random.Random
) -> list[tuple[str, str]]:
    """Add a degraded copy of one soundtrack; in a full task it replaces another one."""
    original = draws.choice(tracks)
    others = [track for track in tracks if track != original]
    if len(tracks) >= settings.tracks:
        others.remove(draws.choice(others))
    return [original, *others, (original[0], draws.choice(settings.degradations))]


def _task(
    settings: AnnotateSettings, rater: str, number: int, clip_id: str, tracks: Sequence[tuple[str, str]]
) -> Task:
    """Return a task with its soundtracks in this rater's blind order."""
    task_id = digest("task", settings.campaign_id, rater, number)
    order = sorted(tracks)
    random.Random(seed_of(settings.seed, "blind", rater, task_id)).shuffle(order)
    return Task(
        task_id=task_id,
        campaign=settings.campaign_id,
        rater=rater,
        number=number,
        kind=settings.task,
        clip_id=clip_id,
        tracks=tuple(Track(letter, *track) for letter, track in zip(LETTERS, order)),
    )
