"""Iterated preference tuning: train, sample with the tuned model, score, pair, and train on those pairs.

Beside `align`, whose stage it is, the only file that knows more than one stage. Every round's candidates and
pairs are told apart by the weights that made them and by the pairs' source, so it stops and goes on anywhere.
"""

from __future__ import annotations

from typing import Any

from foleypref.models.backbones import Model
from foleypref.models.tools import loaded_fingerprint, with_weights
from foleypref.recipes.recipe import Recipe
from foleypref.sample import SampleSettings
from foleypref.training.settings import needs_of
from foleypref.workspace.records import ROUND
from foleypref.workspace.store import Workspace
from foleypref.workspace.walk import say


def run_rounds(workspace: Workspace, recipe: Recipe) -> None:
    """Train on the base's pairs; then sample with the tuned model, score, pair, and train on that, again."""
    from foleypref.sample import sample
    from foleypref.score import score
    from foleypref.train import train

    assert recipe.rounds is not None
    for seed in recipe.train_seeds:
        tuned = recipe.sample.model
        for number, run in enumerate(recipe.rounds.runs(seed), 1):
            changes: dict[str, Any] = {"model": tuned}
            if number > 1:
                source = f"{ROUND}{number}-{run.run_name}"
                say(f"rounds: {recipe.rounds.row}, seed {seed}, round {number}")
                sample(workspace, _round_sampling(recipe, tuned, number))
                score(workspace, recipe.score.model_copy(update={"split": recipe.sample.split}))
                _pair_as(workspace, recipe, tuned, source)
                changes["pair_sources"] = (source,)
            if "labels" in needs_of(run):  # each round's by its own model's candidates
                named = {"model": tuned.part_name(), "weights": loaded_fingerprint(tuned)}
                changes["labels"] = run.labels.model_copy(update=named)
            result = train(workspace, run.model_copy(update=changes))
            tuned = with_weights(recipe.sample.model, result.weights)


def _round_sampling(recipe: Recipe, model: Model, number: int) -> SampleSettings:
    """Return the base's sampling settings with seeds that no earlier round has used."""
    assert recipe.rounds is not None
    s, r = recipe.sample, recipe.rounds
    num = r.num_candidates or s.num_candidates
    clips = s.num_clips if r.num_clips is None else r.num_clips
    first = s.first_seed + s.num_candidates + (number - 2) * num
    return s.model_copy(
        update={"model": model, "num_clips": clips, "num_candidates": num, "first_seed": first}
    )


def _pair_as(workspace: Workspace, recipe: Recipe, model: Model, source: str) -> None:
    """Pair only this model's candidates, under their own source; no human has rated them."""
    from foleypref.pair import pair

    base = {"model": model.part_name(), "weights": loaded_fingerprint(model), "split": recipe.sample.split}
    named = {"audioscore": recipe.fit.name, "source": source, "human": False}
    pair(workspace, recipe.pair.model_copy(update={**named, **base}))
