"""Iterated preference tuning: train, sample with the tuned model, score, pair, and train on those pairs.

Beside `align`, whose stage it is, the only file that knows more than one stage. Every round's candidates and
pairs are told apart by the weights that made them and by the pairs' source, so it stops and goes on anywhere.
"""

from __future__ import annotations

from typing import Any

from foleypref.models.backbones import Model
from foleypref.models.tools import loaded_fingerprint, with_weights
from foleypref.pair import pair
from foleypref.recipes.recipe import Recipe
from foleypref.sample import SampleSettings, sample
from foleypref.score import score
from foleypref.train import TrainResult, train
from foleypref.training.settings import TrainSettings, needs_of
from foleypref.workspace.records import ROUND
from foleypref.workspace.store import Workspace
from foleypref.workspace.walk import say


def run_rounds(workspace: Workspace, recipe: Recipe) -> None:
    """Train on the base's pairs; then sample with the tuned model, score, pair, and train on that, again."""
    assert recipe.rounds is not None
    for seed in recipe.train_seeds:
        tuned = recipe.sample.model
        for number, run in enumerate(recipe.rounds.runs(seed), 1):
            changes: dict[str, Any] = {"model": tuned}
            if number > 1:
                source = f"{ROUND}{number}-{run.run_name}"
                say(f"rounds: {recipe.rounds.row}, seed {seed}, round {number}")
                sample(workspace, _round_sampling(recipe, tuned, number))
                score_candidates(workspace, recipe)
                # under their own source; no human has rated them
                pair_candidates(workspace, recipe, tuned, source=source, human=False)
                changes["pair_sources"] = (source,)
            result = train_on_labels(workspace, run.model_copy(update=changes), tuned)
            tuned = with_weights(recipe.sample.model, result.weights)


def score_candidates(workspace: Workspace, recipe: Recipe) -> None:
    """Score the candidates of the split that the recipe samples."""
    score(workspace, recipe.score.model_copy(update={"split": recipe.sample.split}))


def pair_candidates(workspace: Workspace, recipe: Recipe, model: Model, **changes: Any) -> None:
    """Pair only this model's candidates, with other settings of `pair` in `changes`."""
    changes |= {**_made_by(model), "split": recipe.sample.split, "audioscore": recipe.fit.name}
    pair(workspace, recipe.pair.model_copy(update=changes))


def train_on_labels(workspace: Workspace, run: TrainSettings, model: Model) -> TrainResult:
    """Train; a run that learns from labels sees only this model's, which other rounds do not change."""
    if "labels" in needs_of(run):
        run = run.model_copy(update={"labels": run.labels.model_copy(update=_made_by(model))})
    return train(workspace, run)


def _made_by(model: Model) -> dict[str, str]:
    """Return the settings that select a model's candidates."""
    return {"model": model.part_name(), "weights": loaded_fingerprint(model)}


def _round_sampling(recipe: Recipe, model: Model, number: int) -> SampleSettings:
    """Return the base's sampling settings with seeds that no earlier round has used."""
    assert recipe.rounds is not None
    s, r = recipe.sample, recipe.rounds
    num = r.num_candidates or s.num_candidates
    clips = s.num_clips if r.num_clips is None else r.num_clips
    first = s.first_seed + s.num_candidates + (number - 2) * num
    changes = {"model": model, "num_clips": clips, "num_candidates": num, "first_seed": first}
    return s.model_copy(update=changes)
