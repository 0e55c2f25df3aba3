"""All stages of a recipe in order: with `rounds`, which loops over some, the only file that knows several.

Nothing but the recipe is kept in memory between stages: each reads what it needs from the workspace and skips
what is there, so stopping anywhere and giving the same command again goes on where it was.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path

from foleypref.evaluate import evaluate
from foleypref.fit import fit
from foleypref.ingest import ingest
from foleypref.media.files import write_atomic
from foleypref.models.backbones import Model
from foleypref.models.tools import loaded_fingerprint, with_weights
from foleypref.recipes.passes import passes_of
from foleypref.recipes.plan import FROM_CANDIDATES, Step, plan, plan_text
from foleypref.recipes.recipe import Recipe
from foleypref.recipes.rounds import pair_candidates, run_rounds, score_candidates, train_on_labels
from foleypref.report import report
from foleypref.sample import sample
from foleypref.score import score
from foleypref.scoring.simulated_raters import simulate_ratings
from foleypref.settings.nearest import nearest
from foleypref.settings.yaml import dump
from foleypref.training.checkpoints import tuned_weights
from foleypref.workspace.store import Workspace
from foleypref.workspace.walk import say
from foleypref.world.settings import MakeSettings, WorldSettings


def align(
    workspace: Workspace, recipe: Recipe, *, until: str | None = None, tflops: float | None = None
) -> Path | None:
    """Run the recipe's stages up to `until`; returns the report's path, or None if it did not come to that.

    `tflops` is the sustained rate (1e12 operations a second) by which the plan reckons hours.
    Writes the resolved recipe to workspace/recipe.yaml. A ValueError of a stage carries the stage's name.
    """
    steps = steps_until(workspace, recipe, until)
    say(plan_text(str(workspace.root), recipe, steps, tflops))
    write_atomic(workspace.recipe, dump(recipe).encode())
    result: object = None
    begin = time.perf_counter()
    for step in steps:
        try:
            result = RUN[step.name](workspace, recipe)
        except ValueError as error:
            raise ValueError(f"{step.name}: {error}") from error
    say(f"align: {recipe.name} up to {steps[-1].name} in {time.perf_counter() - begin:.0f} s")
    return result if isinstance(result, Path) else None


def steps_until(workspace: Workspace, recipe: Recipe, until: str | None = None) -> list[Step]:
    """Return the plan up to a stage. Raises ValueError if the recipe has no such stage or cannot be run."""
    base = recipe.sample.model.settings()
    for row, run in {recipe.train.run_name: recipe.train, **recipe.controls}.items():
        if run.model.settings() != base:
            raise ValueError(
                f"{row} tunes {run.model.settings()}, but the candidates are sampled from {base}; "
                "a recipe tunes the model it samples from"
            )
    if recipe.evaluate.base in recipe.final_runs():
        raise ValueError(f"{recipe.evaluate.base!r} is the untuned model's row; give the method another name")
    steps = plan(workspace, recipe)
    names = [step.name for step in steps]
    if until is not None and until not in names:
        raise ValueError(f"until: this recipe has no stage {until!r}; {nearest(until, names)}")
    return steps[: names.index(until) + 1] if until else steps


def make_world(folder: Path, settings: WorldSettings) -> None:
    """Render the clips of every split that are not there yet, with the truth in metadata.jsonl."""
    from foleypref.world.make import make

    for split, num in settings.counts().items():
        clips = MakeSettings(
            split=split, num_clips=num, out=folder, seed=settings.seed, num_workers=settings.num_workers
        )
        counts = make(clips, among=settings.classes(split), quiet=True)
        say(f"world: {split}: {counts.made} made, {counts.skipped} skipped, {counts.failed} failed")


def _world(workspace: Workspace, recipe: Recipe) -> None:
    assert recipe.world is not None
    make_world(workspace.root / recipe.ingest.folder, recipe.world)


def _ingest(workspace: Workspace, recipe: Recipe) -> None:
    folder = recipe.ingest.folder if recipe.world is None else workspace.root / recipe.ingest.folder
    ingest(workspace, recipe.ingest.model_copy(update={"folder": folder}))


def _rate(workspace: Workspace, recipe: Recipe) -> None:
    assert recipe.rate is not None
    # only the base's candidates: those of later rounds must not change what AudioScore was fitted on
    weights = loaded_fingerprint(recipe.sample.model)
    simulate_ratings(workspace, recipe.rate.model_copy(update={"weights": weights}))


def _train(workspace: Workspace, recipe: Recipe) -> None:
    for runs in recipe.rows().values():
        for run in runs:
            train_on_labels(workspace, run, recipe.sample.model)


def _test(workspace: Workspace, recipe: Recipe) -> None:
    """Sample every system on the held-out splits, with one noise, at every guidance scale; then score."""
    scorers = tuple(dict.fromkeys((*recipe.score.scorers, *recipe.test_scorers)))
    for e in recipe.held_out():
        same = {"split": e.split, "num_clips": None, "num_candidates": 1, "solver": e.solver}
        settings = recipe.sample.model_copy(update={**same, "num_steps": e.num_steps})
        for label, models in systems(workspace, recipe).items():
            for model, scale in itertools.product(models, e.guidance_scales):
                say(f"test: {label} on {e.split} at guidance {scale:g}")
                for seed in e.seeds:
                    changes = {"model": model, "guidance_scale": scale, "first_seed": seed}
                    sample(workspace, settings.model_copy(update=changes))
        score(workspace, recipe.score.model_copy(update={"split": e.split, "scorers": scorers}))


def _evaluate(workspace: Workspace, recipe: Recipe) -> None:
    judged = recipe.learns_from() & FROM_CANDIDATES
    changes = {
        "systems": {
            label: tuple(map(loaded_fingerprint, models))
            for label, models in systems(workspace, recipe).items()
        },
        "reward_dimensions": tuple(fit(workspace, recipe.fit).dimensions) if judged else (),
        "compute": passes_of(workspace, recipe),
    }
    for e in recipe.evaluations():
        evaluate(workspace, e.model_copy(update=changes))


def _report(workspace: Workspace, recipe: Recipe) -> object:
    changes = {
        "model": recipe.sample.model,
        "evaluation": recipe.evaluate.name,
        "compare": recipe.report.compare or recipe.train.run_name,
        "runs": tuple(run.run_name for runs in recipe.final_runs().values() for run in runs),
    }
    return report(workspace, recipe.report.model_copy(update=changes))


def systems(workspace: Workspace, recipe: Recipe) -> dict[str, list[Model]]:
    """Return the table's rows: the base, then every tuned row with one model per training seed."""
    base = recipe.sample.model
    tuned = {
        row: [with_weights(base, tuned_weights(workspace.run_folder(run.run_name))) for run in runs]
        for row, runs in recipe.final_runs().items()
    }
    return {recipe.evaluate.base: [base], **tuned}


RUN: dict[str, Callable[[Workspace, Recipe], object]] = {
    "world": _world,
    "ingest": _ingest,
    "sample": lambda workspace, recipe: sample(workspace, recipe.sample),
    "score": score_candidates,
    "rate": _rate,
    "fit": lambda workspace, recipe: fit(workspace, recipe.fit),
    "pair": lambda workspace, recipe: pair_candidates(workspace, recipe, recipe.sample.model),
    "train": _train,
    "rounds": run_rounds,
    "test": _test,
    "evaluate": _evaluate,
    "report": _report,
}
