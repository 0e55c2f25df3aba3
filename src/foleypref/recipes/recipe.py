"""A recipe: the settings of every stage as one piece of data, by name, from YAML, and back.

A recipe is made by a Python function, changed by flags (`overrides.parse`), and written beside every result.
YAML in and out is the same data; keys that do not exist are refused with their dotted path.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import Field

from foleypref.evaluate import EvaluateSettings
from foleypref.fit import FitSettings
from foleypref.ingest import IngestSettings
from foleypref.pair import PairSettings
from foleypref.recipes.names import PRESETS, recipe_names
from foleypref.report import ReportSettings
from foleypref.sample import SampleSettings
from foleypref.score import ScoreSettings
from foleypref.scoring.simulated_raters import RaterSettings
from foleypref.settings.errors import one_line_errors
from foleypref.settings.nearest import nearest
from foleypref.settings.parts import Settings
from foleypref.settings.yaml import S, read_yaml
from foleypref.train import TrainSettings
from foleypref.training.settings import needs_of
from foleypref.world.settings import WorldSettings


class RoundSettings(Settings):
    """A row that samples again with the model it has tuned, scores, pairs and trains on, some rounds.

    Its first round learns from the base's pairs. `train` is one round's.
    """

    row: str = "iterated"
    num_rounds: int = Field(2, ge=2)
    train: TrainSettings
    num_clips: int | None = None  # sampled again in later rounds; None is as many as the base's
    num_candidates: int | None = None

    def runs(self, seed: int) -> list[TrainSettings]:
        """Return the runs of one training seed in order; all but the last are named after their round."""
        names = [f"{self.row}-{seed}-round{i}" for i in range(1, self.num_rounds)] + [f"{self.row}-{seed}"]
        return [self.train.model_copy(update={"run_name": name, "seed": seed}) for name in names]


class Recipe(Settings):
    """A whole alignment: what every stage does, and the controls that every table carries."""

    name: str
    world: WorldSettings | None = None  # render these clips to <workspace>/<ingest.folder> first
    ingest: IngestSettings
    expected_clips: dict[str, int] = Field(default_factory=dict)  # by split, for a plan before there are any
    sample: SampleSettings = SampleSettings()
    score: ScoreSettings = ScoreSettings()
    test_scorers: tuple[str, ...] = ()  # those that score the held-out candidates too, for the table alone
    rate: RaterSettings | None = None  # simulated raters; None: the ratings are there, or come from people
    fit: FitSettings = FitSettings()
    pair: PairSettings = PairSettings()
    train: TrainSettings  # the main method; `run_name` is its row in the table
    controls: dict[str, TrainSettings] = Field(default_factory=dict)  # the other rows
    rounds: RoundSettings | None = None  # one more row
    train_seeds: tuple[int, ...] = (0,)  # every method is trained once a seed
    evaluate: EvaluateSettings = EvaluateSettings()
    also_evaluate: tuple[EvaluateSettings, ...] = ()  # on other splits, or beside another row
    report: ReportSettings = ReportSettings()

    def rows(self) -> dict[str, list[TrainSettings]]:
        """Return the main method and the controls, which train once: one run `<row>-<seed>` per seed."""
        return {
            row: [run.model_copy(update={"run_name": f"{row}-{s}", "seed": s}) for s in self.train_seeds]
            for row, run in {self.train.run_name: self.train, **self.controls}.items()
        }

    def final_runs(self) -> dict[str, list[TrainSettings]]:
        """Return the last runs of every tuned row, one per training seed: the table's systems."""
        rows, rounds = self.rows(), self.rounds
        if rounds is not None:
            rows[rounds.row] = [rounds.runs(seed)[-1] for seed in self.train_seeds]
        return rows

    def learns_from(self) -> frozenset[str]:
        """Name what its runs learn from (`Objective.needs`); pairs, labels and reward need an AudioScore."""
        runs = [run for runs in self.final_runs().values() for run in runs]
        return frozenset().union(*(needs_of(run) for run in runs))

    def evaluations(self) -> tuple[EvaluateSettings, ...]:
        """Return the settings of each table."""
        return (self.evaluate, *self.also_evaluate)

    def held_out(self) -> tuple[EvaluateSettings, ...]:
        """Return the evaluations whose candidates none before them asks for."""
        seen: dict[tuple[Any, ...], EvaluateSettings] = {}
        for e in self.evaluations():
            seen.setdefault((e.split, e.solver, e.num_steps, e.seeds, e.guidance_scales), e)
        return tuple(seen.values())


def changed(settings: S, **changes: Any) -> S:
    """Return a copy with some fields changed, validated."""
    fields = {name: getattr(settings, name) for name in type(settings).model_fields}
    return type(settings).model_validate({**fields, **changes})


def every_run_changed(recipe: Recipe, **changes: Any) -> Recipe:
    """Return the recipe with these settings in its main run and in every control."""
    controls = {row: changed(run, **changes) for row, run in recipe.controls.items()}
    return changed(recipe, train=changed(recipe.train, **changes), controls=controls)


def resolve(name: str) -> Recipe:
    """Return the recipe behind `name`: a file of recipes/ (`file` or `file-variant`), a .yaml, or a .py path.

    A Python file makes its recipe in a function `recipe()`; `file-variant` calls its function `variant()`.
    """
    if name.endswith((".yaml", ".yml")):
        return read_yaml(name, Recipe)
    with one_line_errors(f"recipe {name!r}"):
        return _function(name)()


def _function(name: str) -> Callable[[], Recipe]:
    if name.endswith(".py"):
        path, variant = Path(name), "recipe"
        if not path.is_file():
            presets = ", ".join(recipe_names())
            raise ValueError(f"{name}: no such file; give a .py or .yaml file, or one of {presets}")
    else:
        stem, _, variant = name.partition("-")
        path, variant = PRESETS / f"{stem}.py", variant or "recipe"
        if stem not in recipe_names():
            raise ValueError(f"no recipe is called {name!r}; {nearest(stem, recipe_names())}")
    functions = _functions_of(path)
    if variant not in functions:
        raise ValueError(f"{path.name} makes no {variant!r}; {nearest(variant, sorted(functions))}")
    return functions[variant]


def _functions_of(path: Path) -> dict[str, Callable[[], Any]]:
    """Return the public functions that a recipe file defines itself, by name."""
    spec = importlib.util.spec_from_file_location(f"foleypref.recipes.presets.{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise ValueError(f"{path}: line {error.lineno}: {error.msg}") from error
    except ImportError as error:
        raise ValueError(f"{path}: {error}") from error
    public = {
        key: value for key, value in vars(module).items() if not key.startswith("_") and callable(value)
    }
    return {k: value for k, value in public.items() if getattr(value, "__module__", "") == module.__name__}
