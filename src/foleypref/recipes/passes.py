"""Count what a recipe asks of networks, in forward passes of one latent, by which methods are compared.

A backward pass counts as two forward passes. A step of a solver counts as `solvers.passes_per_step` says, and
guidance doubles it.
"""

from __future__ import annotations

from collections import Counter

from foleypref.flow.convention import guidance_passes
from foleypref.flow.solvers import passes_per_step
from foleypref.recipes.recipe import Recipe
from foleypref.train import TrainSettings
from foleypref.training.settings import needs_of
from foleypref.workspace.records import Clip
from foleypref.workspace.store import Workspace


def passes_of(workspace: Workspace, recipe: Recipe) -> dict[str, float]:
    """Return the passes of each row: the candidates it learns from, and its training.

    The candidates that AudioScore was fitted on are left out, because all rows share them.
    """
    num_clips = clips_of(workspace, recipe)[recipe.sample.split]
    sampled = sampled_passes(recipe, num_clips)
    passes = {
        row: trained_passes(run) + (sampled if needs_of(run) & {"pairs", "labels"} else 0)
        for row, (run, *_) in recipe.rows().items()
    }
    if (rounds := recipe.rounds) is not None:
        runs = rounds.runs(recipe.train_seeds[0])
        again = sampled_passes(recipe, num_clips, rounds.num_clips, rounds.num_candidates)
        passes[rounds.row] = sum(map(trained_passes, runs)) + sampled + (len(runs) - 1) * again
    return passes


def trained_passes(run: TrainSettings) -> float:
    """Return the passes of training one run, from what its objective takes per item."""
    return run.max_steps * batch_of(run) * run.objective.forwards


def sampled_passes(
    recipe: Recipe, num_clips: int, only: int | None = None, num_candidates: int | None = None
) -> int:
    """Return the passes that sample the recipe's candidates, optionally for fewer clips or other seeds."""
    s = recipe.sample
    limits = [n for n in (s.num_clips, only) if n is not None]
    num = min([num_clips, *limits]) * (num_candidates or s.num_candidates)
    return num * integration_passes(s.num_steps, s.solver, s.guidance_scale)


def clips_of(workspace: Workspace, recipe: Recipe) -> Counter[str]:
    """Return the clips per split: those the recipe renders, those that are there, or those it expects."""
    if recipe.world is not None:
        return Counter(recipe.world.counts())
    return Counter(clip.split for clip in workspace.read(Clip)) or Counter(recipe.expected_clips)


def integration_passes(num_steps: int, solver: str, guidance_scale: float) -> int:
    """Count the network passes that one latent takes from noise to data; for dopri5 the least it can be."""
    return num_steps * passes_per_step(solver) * guidance_passes(guidance_scale)


def batch_of(run: TrainSettings) -> int:
    """Return the items per step on one process."""
    return run.per_device_train_batch_size * run.gradient_accumulation_steps
