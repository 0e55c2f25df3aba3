"""A blind listening test between two models: of two soundtracks of one video, which is better, how often.

    foleypref compare runs/mine/runs/v2a_dpo-0 base --annotate.raters ann bob
    foleypref compare runs/mine/runs/v2a_dpo-0 base --result

Both models sound the same held-out clips from the same noise; people compare the two on the rating tool's
page under letters, in an order of their own. The win rate is the mean over clips of the share of votes for
the first model, a tie counting half, with a bootstrap interval over clips.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
from pydantic import Field

from foleypref.annotate.settings import AnnotateSettings
from foleypref.annotate.sync import sync_labels
from foleypref.flow.solvers import AnySolver
from foleypref.media.files import write_atomic
from foleypref.models.backbones import Model
from foleypref.models.tools import with_weights
from foleypref.sample import SampleSettings, sample
from foleypref.scoring.bootstrap import interval
from foleypref.scoring.opinions import HUMAN
from foleypref.settings.parts import Part, Settings, build
from foleypref.training.checkpoints import tuned_weights
from foleypref.workspace.paths import RunFiles
from foleypref.workspace.records import Candidate, Vote
from foleypref.workspace.store import Workspace
from foleypref.workspace.walk import say

BASE = "base"
NUM_RESAMPLES = 10_000


class CompareSettings(Settings):
    """What both models sound, and how people are asked."""

    split: str = "test"
    num_clips: int | None = Field(50, ge=1)  # the first so many by id; None is all
    solver: AnySolver = "euler"
    num_steps: int = Field(25, ge=1)
    guidance_scale: float = 4.5
    seed: int = 0  # of the noise, the same for both
    device: str = "cpu"
    annotate: AnnotateSettings = AnnotateSettings(
        overlap=0.0
    )  # raters, port, checks; what is compared is set


class Contest(NamedTuple):
    """Two models by name, and their weights' fingerprints."""

    names: tuple[str, str]
    weights: tuple[str, str]

    @property
    def title(self) -> str:
        """Of the round of rating and of the result's file."""
        return f"{self.names[0]}-against-{self.names[1]}"


@dataclass(frozen=True)
class Outcome:
    """How often people preferred the first model."""

    win_rate: float  # 0 to 1; NaN without votes
    low: float  # of the 95 % interval over clips
    high: float
    wins: int  # votes
    ties: int
    losses: int
    num_clips: int
    num_raters: int

    def line(self, names: tuple[str, str]) -> str:
        """The outcome in words."""
        if not self.num_clips:
            return f"compare: nobody has compared {names[0]} with {names[1]} yet"
        return (
            f"compare: {names[0]} is preferred to {names[1]} in {100 * self.win_rate:.1f} % "
            f"[{100 * self.low:.1f}, {100 * self.high:.1f}] of {self.num_clips} clips by {self.num_raters} "
            f"raters: {self.wins} votes for it, {self.ties} ties, {self.losses} against"
        )


def compare(workspace: Workspace, first: str, second: str, settings: CompareSettings) -> None:
    """Sample what is missing, and serve the page until Ctrl-C."""
    from foleypref.annotate.serve import annotate

    models = [model_of(workspace, first, second), model_of(workspace, second, first)]
    for model in models:
        sample(workspace, _sampling(model, settings))
    contest = contest_of(workspace, first, second)
    asked = settings.annotate.model_copy(
        update={
            "task": "compare", "name": contest.title, "split": settings.split, "model": models[0],
            "versus": contest.weights, "num_clips": settings.num_clips,
        }
    )  # fmt: skip
    try:
        annotate(workspace, asked)
    except KeyboardInterrupt:
        say("compare: stopped; the same command goes on")


def show_result(workspace: Workspace, first: str, second: str) -> None:
    """Print what people said so far."""
    contest = contest_of(workspace, first, second)
    print(result(workspace, contest).line(contest.names))


def result(workspace: Workspace, contest: Contest) -> Outcome:
    """What people said so far; also written to WORKSPACE/annotate/<first>-against-<second>.json."""
    sync_labels(workspace)
    of = {c.candidate_id: c for c in workspace.read(Candidate) if c.weights in contest.weights}
    found = outcome(workspace.read(Vote), of, contest.weights)
    said = {"names": contest.names, "weights": contest.weights, **asdict(found)}
    if found.num_clips:
        write_atomic(
            workspace.annotate / f"{contest.title}.json", (json.dumps(said, indent=1) + "\n").encode()
        )
    return found


def outcome(votes: Iterable[Vote], of: Mapping[str, Candidate], weights: tuple[str, str]) -> Outcome:
    """People's votes on candidates of two models from the same noise, counted for the first one."""
    shares: dict[str, list[float]] = defaultdict(list)
    raters = set()
    for vote in votes:
        pair = of.get(vote.first), of.get(vote.second)
        if vote.source != HUMAN or pair[0] is None or pair[1] is None:
            continue
        if pair[0].seed != pair[1].seed or {pair[0].weights, pair[1].weights} != set(weights):
            continue
        sign = 1 if pair[0].weights == weights[0] else -1
        shares[vote.clip_id].append((1 + sign * vote.preference) / 2)
        raters.add(vote.rater)
    said = [share for clip_id in sorted(shares) for share in shares[clip_id]]
    by_clip = np.array([np.mean(shares[clip_id]) for clip_id in sorted(shares)])
    rate, low, high = float("nan"), float("nan"), float("nan")
    if len(by_clip):
        draws = np.random.default_rng(0).integers(0, len(by_clip), (NUM_RESAMPLES, len(by_clip)))
        rate = float(by_clip.mean())
        low, high = interval(by_clip[draws].mean(1), rate)
    wins, ties, losses = (sum(share == value for share in said) for value in (1.0, 0.5, 0.0))
    low, high = max(low, 0.0), min(high, 1.0)
    return Outcome(rate, low, high, wins, ties, losses, len(by_clip), len(raters))


def contest_of(workspace: Workspace, first: str, second: str) -> Contest:
    """Both models' fingerprints. Raises ValueError for runs that are not there or one and the same model."""
    found = [
        cast(Model, model_of(workspace, one, other)).load().fingerprint
        for one, other in ((first, second), (second, first))
    ]
    if found[0] == found[1]:
        raise ValueError(f"{first} and {second} have the same weights; there is nothing to hear")
    return Contest((first, second), (found[0], found[1]))


def model_of(workspace: Workspace, name: str, other: str) -> Part:
    """The model that a run tuned; "base" is the one that the other run began with."""
    folder = workspace.run_folder(other if name == BASE else name)
    try:
        said = json.loads(RunFiles(folder).settings.read_text(encoding="utf-8"))["model"]
    except FileNotFoundError:
        there = [run.name for run in workspace.run_folders() if RunFiles(run).settings.exists()]
        raise ValueError(
            f"{folder} is no training run; runs here: {', '.join(there) or 'none'}, or {BASE!r}"
        ) from None
    model = build("models", said.pop("name"), **said)
    if name == BASE:
        return model
    return with_weights(model, tuned_weights(folder))


def workspace_of(run: str, other: str) -> tuple[Path, str, str]:
    """The workspace's folder and the runs' names, from paths like WORKSPACE/runs/NAME or "base"."""
    folders = {Path(path).expanduser().resolve().parent for path in (run, other) if path != BASE}
    if len(folders) != 1 or next(iter(folders)).name != "runs":
        raise ValueError(
            f"compare takes the folders of two runs of one workspace, as in mine/runs/sft-0, or one of them "
            f"and {BASE!r}; found {run} and {other}"
        )
    names = [path if path == BASE else Path(path).expanduser().resolve().name for path in (run, other)]
    return next(iter(folders)).parent, names[0], names[1]


def _sampling(model: Part, s: CompareSettings) -> SampleSettings:
    return SampleSettings(
        model=model, split=s.split, num_clips=s.num_clips, num_candidates=1, first_seed=s.seed,
        solver=s.solver, num_steps=s.num_steps, guidance_scale=s.guidance_scale, device=s.device,
    )  # fmt: skip
