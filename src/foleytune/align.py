"""All stages of a recipe in order: the only file that knows more than one stage.

Nothing is kept in memory between stages but the recipe: each reads what it needs from the workspace and skips what
is there, so stopping anywhere and giving the same command again goes on where it was.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

from foleytune.config import Recipe, WorldSettings, dump
from foleytune.models import Model
from foleytune.plugins import Part
from foleytune.records import GROUND_TRUTH, Candidate, Clip, Pair, Rating, Score
from foleytune.sample import SampleSettings
from foleytune.shards import write_atomic
from foleytune.stages import say
from foleytune.store import Workspace

PASSES_OF_A_PAIR = 2 * (
    3 + 1
)  # two latents: forward and backward of the policy (3 forwards), one of the reference


class Step(NamedTuple):
    """A line of the plan: what will be done, how much of it is there, and its cost in network passes."""

    name: str
    run: Callable[[Workspace, Recipe], object]
    what: str
    there: str = ""
    passes: int = 0


def align(
    workspace: Workspace, recipe: Recipe, *, dry_run: bool = False, until: str | None = None
) -> Path | None:
    """Run the recipe's stages up to `until`; returns the report's path, or None if it did not come to that.

    Writes the resolved recipe to workspace/recipe.yaml. A ValueError of a stage carries the stage's name.
    """
    _check(recipe)
    steps = plan(workspace, recipe)
    names = [step.name for step in steps]
    if until is not None and until not in names:
        close = difflib.get_close_matches(until, names, n=1) or [f"one of {', '.join(names)}"]
        raise ValueError(f"until: this recipe has no stage {until!r}; did you mean {close[0]}?")
    last = names.index(until) if until else len(names) - 1
    say(plan_text(workspace, recipe, steps[: last + 1]))
    if dry_run:
        return None
    write_atomic(workspace.root / "recipe.yaml", dump(recipe).encode())
    result: object = None
    begin = time.perf_counter()
    for step in steps[: last + 1]:
        try:
            result = step.run(workspace, recipe)
        except ValueError as error:
            raise ValueError(f"{step.name}: {error}") from error
    say(f"align: {recipe.name} up to {names[last]} in {time.perf_counter() - begin:.0f} s")
    return result if isinstance(result, Path) else None


def make_world(folder: Path, settings: WorldSettings) -> None:
    """Render the clips of every split that are not there yet, with the truth in metadata.jsonl."""
    from foleytune.world.make import make

    for split, num in settings.counts().items():
        made = make(split, num, folder, settings.seed, num_workers=settings.num_workers, quiet=True)
        say(f"world: {split}: {made.made} made, {made.skipped} skipped, {made.failed} failed")


def _check(recipe: Recipe) -> None:
    for row, runs in recipe.rows().items():
        for run in runs[:1]:
            if run.model != recipe.sample.model:
                raise ValueError(
                    f"{row} tunes {run.model.settings()}, but the candidates are sampled from "
                    f"{recipe.sample.model.settings()}; a recipe tunes the model it samples from"
                )
    if recipe.evaluate.base in recipe.rows():
        raise ValueError(f"{recipe.evaluate.base!r} is the untuned model's row; give the method another name")


# -- the plan -------------------------------------------------------------------------------------------------


def plan(workspace: Workspace, recipe: Recipe) -> list[Step]:
    """The steps of a recipe in order."""
    clips = _clips(workspace, recipe)
    num_align, num_test = clips.get(recipe.sample.split, 0), clips.get(recipe.evaluate.split, 0)
    if recipe.sample.num_clips is not None:
        num_align = min(num_align, recipe.sample.num_clips)
    s, e = recipe.sample, recipe.evaluate
    wanted = num_align * s.num_candidates
    runs = [run for runs in recipe.rows().values() for run in runs]
    finished = sum((workspace.run_folder(run.run_name) / "result.json").exists() for run in runs)
    steps = [Step("ingest", _ingest, f"{recipe.ingest.folder} -> clips", f"{len(workspace.ids(Clip))} clips")]
    if recipe.world is not None:
        text = ", ".join(f"{num} {split}" for split, num in recipe.world.counts().items())
        steps.insert(0, Step("world", _world, f"render {text} clips"))
    steps += [
        Step(
            "sample",
            _sample,
            f"{num_align} clips × {s.num_candidates} candidates, {s.num_steps} steps at guidance {s.guidance_scale:g}",
            f"{sum(c.model != GROUND_TRUTH for c in workspace.read(Candidate))} candidates",
            wanted * s.num_steps * _branches(s.guidance_scale),
        ),
        Step("score", _score, ", ".join(recipe.score.scorers), f"{len(workspace.ids(Score))} scores"),
    ]
    if recipe.rate is not None:
        steps.append(Step("rate", _rate, "simulated raters", f"{len(workspace.ids(Rating))} ratings"))
    trained = sum(run.max_steps * _batch(run) for run in runs)
    tested = num_test * (1 + len(runs)) * len(e.seeds)
    return [
        *steps,
        Step("fit", _fit, "ratings and scores -> AudioScore"),
        Step("pair", _pair, recipe.pair.pairing.part_name(), f"{len(workspace.ids(Pair))} pairs"),
        Step(
            "train",
            _train,
            ", ".join(f"{r.run_name} ({r.max_steps} steps × {_batch(r)} pairs)" for r in runs),
            f"{finished} of {len(runs)} runs",
            trained * PASSES_OF_A_PAIR,
        ),
        Step(
            "test",
            _test,
            f"{1 + len(runs)} systems × {num_test} clips at guidance {', '.join(f'{g:g}' for g in e.guidance_scales)}",
            "",
            sum(tested * e.num_steps * _branches(scale) for scale in e.guidance_scales),
        ),
        Step("evaluate", _evaluate, f"{len(e.metrics)} metrics, {len(e.oracles)} oracles, intervals"),
        Step("report", _report, "one HTML page"),
    ]


def plan_text(workspace: Workspace, recipe: Recipe, steps: list[Step]) -> str:
    """The plan as lines for people."""
    lines = [f"align: {recipe.name} in {workspace.root}"]
    for step in steps:
        there = f"   [there: {step.there}]" if step.there and not step.there.startswith("0 ") else ""
        lines.append(f"  {step.name:<10}{step.what}{there}")
    passes = sum(step.passes for step in steps)
    return "\n".join([*lines, f"  about {passes:,} network passes in all if nothing were there"])


def _clips(workspace: Workspace, recipe: Recipe) -> dict[str, int]:
    """Clips by split: those the recipe renders, or those that are there."""
    if recipe.world is not None:
        return recipe.world.counts()
    counts: dict[str, int] = {}
    for clip in workspace.read(Clip):
        counts[clip.split] = counts.get(clip.split, 0) + 1
    return counts


def _branches(guidance_scale: float) -> int:
    return 1 if guidance_scale == 1 else 2


def _batch(run: Any) -> int:
    return run.per_device_train_batch_size * run.gradient_accumulation_steps


# -- the steps ------------------------------------------------------------------------------------------------


def _world(workspace: Workspace, recipe: Recipe) -> None:
    assert recipe.world is not None
    make_world(workspace.root / recipe.ingest.folder, recipe.world)


def _ingest(workspace: Workspace, recipe: Recipe) -> None:
    from foleytune.ingest import ingest

    folder = recipe.ingest.folder
    if recipe.world is not None:
        folder = workspace.root / folder
    ingest(workspace, recipe.ingest.model_copy(update={"folder": folder}))


def _sample(workspace: Workspace, recipe: Recipe) -> None:
    from foleytune.sample import sample

    sample(workspace, recipe.sample)


def _score(workspace: Workspace, recipe: Recipe) -> None:
    from foleytune.score import score

    score(workspace, recipe.score.model_copy(update={"split": recipe.sample.split}))


def _rate(workspace: Workspace, recipe: Recipe) -> None:
    from foleytune.world.raters import simulate_ratings

    assert recipe.rate is not None
    simulate_ratings(workspace, recipe.rate)


def _fit(workspace: Workspace, recipe: Recipe) -> Any:
    from foleytune.fit import fit

    return fit(workspace, recipe.fit)


def _pair(workspace: Workspace, recipe: Recipe) -> None:
    from foleytune.pair import pair

    model = recipe.sample.model
    base = {"model": model.part_name(), "weights": _fingerprint(model), "split": recipe.sample.split}
    pair(workspace, recipe.pair.model_copy(update={"audioscore": recipe.fit.name, **base}))


def _train(workspace: Workspace, recipe: Recipe) -> None:
    from foleytune.train import train

    for runs in recipe.rows().values():
        for run in runs:
            train(workspace, run)


def _test(workspace: Workspace, recipe: Recipe) -> None:
    """Every system on the held-out split, with the same noise, at every guidance scale; then their scores."""
    from foleytune.sample import sample
    from foleytune.score import score

    e = recipe.evaluate
    for label, models in systems(workspace, recipe).items():
        for model in models:
            for scale in e.guidance_scales:
                say(f"test: {label} at guidance {scale:g}")
                for seed in e.seeds:
                    sample(workspace, _test_settings(recipe, model, scale, seed))
    score(workspace, recipe.score.model_copy(update={"split": e.split}))


def _test_settings(recipe: Recipe, model: Part, guidance_scale: float, seed: int) -> SampleSettings:
    e = recipe.evaluate
    changes = {
        "model": model, "split": e.split, "num_clips": None, "num_candidates": 1, "first_seed": seed,
        "solver": e.solver, "num_steps": e.num_steps, "guidance_scale": guidance_scale,
    }  # fmt: skip
    return recipe.sample.model_copy(update=changes)


def _evaluate(workspace: Workspace, recipe: Recipe) -> None:
    from foleytune.evaluate import evaluate

    labels = {
        label: tuple(_fingerprint(model) for model in models)
        for label, models in systems(workspace, recipe).items()
    }
    read = tuple(_fit(workspace, recipe).dimensions)
    evaluate(workspace, recipe.evaluate.model_copy(update={"systems": labels, "reward_dimensions": read}))


def _report(workspace: Workspace, recipe: Recipe) -> Any:
    from foleytune.report import report

    return report(workspace, recipe.report)


def systems(workspace: Workspace, recipe: Recipe) -> dict[str, list[Part]]:
    """The table's rows: the base, then every tuned row with one model a training seed."""
    base = recipe.sample.model
    tuned = {
        row: [
            base.with_settings(weights=str(workspace.run_folder(run.run_name) / "model.safetensors"))
            for run in runs
        ]
        for row, runs in recipe.rows().items()
    }
    return {recipe.evaluate.base: [base], **tuned}


def _fingerprint(model: Part) -> str:
    return cast(Model, model).load().fingerprint
