"""A blind listening test between two models: which of two soundtracks of one video is better, and how often.

    foleypref compare runs/mine/runs/v2a_dpo-0 base --annotate.raters ann bob
    foleypref compare runs/mine/runs/v2a_dpo-0 base --result

Both models sample the same held-out clips from the same noise. Raters compare the two on the rating tool's
page, under letters in a blind order. The win rate is the mean over clips of the share of votes for the first
model, where a tie counts half, with a bootstrap interval over clips.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import Field

from foleypref.annotate.settings import AnnotateSettings
from foleypref.annotate.sync import sync_labels
from foleypref.flow.solvers import AnySolver
from foleypref.media.files import write_atomic
from foleypref.models.backbones import Model, build_model
from foleypref.models.tools import with_weights
from foleypref.sample import SampleSettings, sample
from foleypref.scoring.bootstrap import interval, resample
from foleypref.scoring.human_labels import HUMAN
from foleypref.settings.parts import Settings
from foleypref.training.checkpoints import tuned_weights
from foleypref.workspace.paths import RunFiles
from foleypref.workspace.records import Candidate, Vote
from foleypref.workspace.store import Workspace
from foleypref.workspace.walk import say

BASE = "base"
NUM_RESAMPLES = 10_000


class CompareSettings(Settings):
    """Settings of both models' sampling and of the rating tool."""

    split: str = "test"
    num_clips: int | None = Field(50, ge=1)  # the first by id; None: all
    solver: AnySolver = "euler"
    num_steps: int = Field(25, ge=1)
    guidance_scale: float = 4.5
    seed: int = 0  # of the noise, the same for both
    device: str = "cpu"
    annotate: AnnotateSettings = AnnotateSettings(overlap=0.0)  # raters, port, checks; not what is compared


class Contest(NamedTuple):
    """Two models: their names, and the fingerprints of their weights."""

    names: tuple[str, str]
    weights: tuple[str, str]

    @property
    def title(self) -> str:
        """The name of the round of rating and of the result's file."""
        return f"{self.names[0]}-against-{self.names[1]}"


@dataclass(frozen=True)
class Outcome:
    """How often raters preferred the first model."""

    win_rate: float  # 0 to 1; NaN without votes
    low: float  # of the 95 % interval over clips
    high: float
    wins: int  # votes
    ties: int
    losses: int
    num_clips: int
    num_raters: int

    def line(self, names: tuple[str, str]) -> str:
        """Return the outcome as one sentence."""
        if not self.num_clips:
            return f"compare: nobody has compared {names[0]} with {names[1]} yet"
        return (
            f"compare: {names[0]} is preferred to {names[1]} in {100 * self.win_rate:.1f} % "
            f"[{100 * self.low:.1f}, {100 * self.high:.1f}] of {self.num_clips} clips by {self.num_raters} "
            f"raters: {self.wins} votes for it, {self.ties} ties, {self.losses} against"
        )


def compare(workspace: Workspace, first: str, second: str, settings: CompareSettings) -> None:
    """Sample missing candidates of both runs, and serve the rating tool until Ctrl-C."""
    from foleypref.annotate.serve import annotate

    models = [model_of(workspace, first, second), model_of(workspace, second, first)]
    for model in models:
        sample(workspace, _sample_settings(model, settings))
    contest = contest_of(workspace, first, second)
    rating = settings.annotate.model_copy(
        update={
            "task": "compare", "name": contest.title, "split": settings.split, "model": models[0],
            "versus": contest.weights, "num_clips": settings.num_clips,
        }
    )  # fmt: skip
    try:
        annotate(workspace, rating)
    except KeyboardInterrupt:
        say("compare: stopped; the same command continues")


def show_result(workspace: Workspace, first: str, second: str) -> None:
    """Print the outcome of the votes so far."""
    contest = contest_of(workspace, first, second)
    print(result(workspace, contest).line(contest.names))


def result(workspace: Workspace, contest: Contest) -> Outcome:
    """Return the outcome of the votes so far; write it to ROOT/annotate/<first>-against-<second>.json."""
    sync_labels(workspace)
    candidates = {c.candidate_id: c for c in workspace.read(Candidate) if c.weights in contest.weights}
    counted = outcome(workspace.read(Vote), candidates, contest.weights)
    if counted.num_clips:
        content = {"names": contest.names, "weights": contest.weights, **asdict(counted)}
        path = workspace.annotate / f"{contest.title}.json"
        write_atomic(path, (json.dumps(content, indent=1) + "\n").encode())
    return counted


def outcome(votes: Iterable[Vote], candidates: Mapping[str, Candidate], weights: tuple[str, str]) -> Outcome:
    """Count raters' votes on candidates by id that two models made from the same noise, for the first."""
    shares: dict[str, list[float]] = defaultdict(list)  # 1 for the first model, 1/2 a tie, 0, by clip
    raters = set()
    for vote in votes:
        first, second = candidates.get(vote.first), candidates.get(vote.second)
        if vote.source != HUMAN or first is None or second is None:
            continue
        if first.seed != second.seed or {first.weights, second.weights} != set(weights):
            continue
        sign = 1 if first.weights == weights[0] else -1
        shares[vote.clip_id].append((1 + sign * vote.preference) / 2)
        raters.add(vote.rater)
    by_clip = np.array([np.mean(shares[clip_id]) for clip_id in sorted(shares)])
    rate = float(by_clip.mean()) if shares else float("nan")
    rates = resample(lambda drawn: float(by_clip[drawn].mean()), len(shares), NUM_RESAMPLES if shares else 0)
    low, high = interval(rates, rate)
    counts = Counter(share for of_clip in shares.values() for share in of_clip)
    return Outcome(
        rate,
        low=max(low, 0.0),
        high=min(high, 1.0),
        wins=counts[1.0],
        ties=counts[0.5],
        losses=counts[0.0],
        num_clips=len(shares),
        num_raters=len(raters),
    )


def contest_of(workspace: Workspace, first: str, second: str) -> Contest:
    """Return both models' fingerprints. Raises ValueError if a run is missing or both models are the same."""
    weights = model_of(workspace, first, second).load().fingerprint
    other_weights = model_of(workspace, second, first).load().fingerprint
    if weights == other_weights:
        raise ValueError(f"{first} and {second} have the same weights; there is nothing to compare")
    return Contest((first, second), (weights, other_weights))


def model_of(workspace: Workspace, name: str, other: str) -> Model:
    """Return the model that run `name` tuned; for "base", the model that run `other` started from."""
    folder = workspace.run_folder(other if name == BASE else name)
    try:
        part = json.loads(RunFiles(folder).settings.read_text(encoding="utf-8"))["model"]
    except FileNotFoundError:
        runs = [run.name for run in workspace.run_folders() if RunFiles(run).settings.exists()]
        raise ValueError(
            f"{folder} is no training run; runs here: {', '.join(runs) or 'none'}, or {BASE!r}"
        ) from None
    model = build_model(part.pop("name"), **part)
    return model if name == BASE else with_weights(model, tuned_weights(folder))


def workspace_of(run: str, other: str) -> tuple[Path, str, str]:
    """Return (workspace folder, run name, run name) from paths like WORKSPACE/runs/NAME or "base"."""
    folders = {Path(path).expanduser().resolve().parent for path in (run, other) if path != BASE}
    if len(folders) != 1 or next(iter(folders)).name != "runs":
        raise ValueError(
            f"compare takes the folders of two runs of one workspace, as in mine/runs/sft-0, or one of them "
            f"and {BASE!r}; found {run} and {other}"
        )
    names = [path if path == BASE else Path(path).expanduser().resolve().name for path in (run, other)]
    return next(iter(folders)).parent, names[0], names[1]


def _sample_settings(model: Model, s: CompareSettings) -> SampleSettings:
    return SampleSettings(
        model=model, split=s.split, num_clips=s.num_clips, num_candidates=1, first_seed=s.seed,
        solver=s.solver, num_steps=s.num_steps, guidance_scale=s.guidance_scale, device=s.device,
    )  # fmt: skip
