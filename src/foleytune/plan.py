"""What a recipe would do in a workspace: its steps, how much of each is there, and a rough cost."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from foleytune.config import Recipe
from foleytune.records import GROUND_TRUTH, Candidate, Clip, Pair, Rating, Score
from foleytune.store import Workspace
from foleytune.train import TrainSettings

PASSES_OF_A_PAIR = 2 * (
    3 + 1
)  # two latents: the policy forward and backward (as 3 forwards), the reference once


class Step(NamedTuple):
    """A line of the plan; `passes` are forward passes of the network, the measure of cost."""

    name: str
    what: str
    there: str = ""
    passes: int = 0


def plan(workspace: Workspace, recipe: Recipe) -> list[Step]:
    """The steps of a recipe in order."""
    clips = _clips(workspace, recipe)
    steps = [Step("ingest", f"{recipe.ingest.folder} -> clips", _there(len(workspace.ids(Clip)), "clips"))]
    if recipe.world is not None:
        text = ", ".join(f"{num} {split}" for split, num in recipe.world.counts().items())
        steps.insert(0, Step("world", f"render clips: {text}"))
    steps.append(_sample(workspace, recipe, clips[recipe.sample.split]))
    steps.append(Step("score", ", ".join(recipe.score.scorers), _there(len(workspace.ids(Score)), "scores")))
    if recipe.rate is not None:
        steps.append(Step("rate", "simulated raters", _there(len(workspace.ids(Rating)), "ratings")))
    pairs = _there(len(workspace.ids(Pair)), "pairs")
    return [
        *steps,
        Step("fit", "ratings and scores -> AudioScore"),
        Step("pair", f"{recipe.pair.pairing.part_name()} pairs", pairs),
        _train(workspace, recipe),
        _test(recipe, clips[recipe.evaluate.split]),
        Step("evaluate", f"{len(recipe.evaluate.metrics)} metrics, {len(recipe.evaluate.oracles)} oracles"),
        Step("report", "one HTML page"),
    ]


def plan_text(workspace: Workspace, recipe: Recipe, steps: list[Step]) -> str:
    """The plan as lines for people."""
    lines = [f"align: {recipe.name} in {workspace.root}"]
    for step in steps:
        lines.append(f"  {step.name:<10}{step.what}" + (f"   [there: {step.there}]" if step.there else ""))
    passes = sum(step.passes for step in steps)
    return "\n".join([*lines, f"  about {passes:,} network passes if nothing of it were there"])


def _sample(workspace: Workspace, recipe: Recipe, num_clips: int) -> Step:
    s = recipe.sample
    num = num_clips if s.num_clips is None else min(num_clips, s.num_clips)
    what = f"{num} clips × {s.num_candidates} seeds, {s.num_steps} steps at guidance {s.guidance_scale:g}"
    made = sum(c.model != GROUND_TRUTH for c in workspace.read(Candidate))
    passes = num * s.num_candidates * s.num_steps * _branches(s.guidance_scale)
    return Step("sample", what, _there(made, "candidates"), passes)


def _train(workspace: Workspace, recipe: Recipe) -> Step:
    runs = [run for runs in recipe.rows().values() for run in runs]
    what = ", ".join(f"{r.run_name} ({r.max_steps} steps × {_batch(r)} pairs)" for r in runs)
    finished = sum((workspace.run_folder(run.run_name) / "result.json").exists() for run in runs)
    passes = sum(run.max_steps * _batch(run) for run in runs) * PASSES_OF_A_PAIR
    return Step("train", what, _there(finished, f"of {len(runs)} runs"), passes)


def _test(recipe: Recipe, num_clips: int) -> Step:
    e = recipe.evaluate
    num_systems = 1 + sum(len(runs) for runs in recipe.rows().values())
    scales = ", ".join(f"{scale:g}" for scale in e.guidance_scales)
    what = f"{num_systems} systems × {num_clips} clips × {len(e.seeds)} seeds at guidance {scales}"
    per_scale = num_systems * num_clips * len(e.seeds) * e.num_steps
    return Step("test", what, passes=sum(per_scale * _branches(scale) for scale in e.guidance_scales))


def _clips(workspace: Workspace, recipe: Recipe) -> Counter[str]:
    """Clips by split: those the recipe renders, or those that are there."""
    if recipe.world is not None:
        return Counter(recipe.world.counts())
    return Counter(clip.split for clip in workspace.read(Clip))


def _there(num: int, what: str) -> str:
    return f"{num} {what}" if num else ""


def _branches(guidance_scale: float) -> int:
    return 1 if guidance_scale == 1 else 2


def _batch(run: TrainSettings) -> int:
    return run.per_device_train_batch_size * run.gradient_accumulation_steps
