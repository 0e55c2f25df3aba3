"""Recipes: those of one workspace agree on its runs and keep their tables apart; short ones run whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from foleypref.align import align
from foleypref.recipes.recipe import resolve
from foleypref.workspace.store import Workspace

SHARED = (
    "world_methods",
    "world_methods-seeds",
    "world_methods-best",
    "world_methods-wide",
    "world_losers",
    "world_beta",
)


@pytest.mark.parametrize("names", [SHARED, ("world_syncdpo", "world_syncdpo-rules")])
def test_recipes_of_one_workspace_mean_the_same_by_a_runs_name(names: tuple[str, ...]) -> None:
    runs, tables = {}, {}
    for name in names:
        recipe = resolve(name)
        for run in (run for row in recipe.final_runs().values() for run in row):
            assert runs.setdefault(run.run_name, run) == run, f"{run.run_name} of {name}"
        for table in recipe.evaluations():
            assert table.name not in tables, f"{table.name} of {name} and of {tables[table.name]}"
            tables[table.name] = name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["world_methods-ci", "world_syncdpo-ci"])
def test_a_short_recipe_runs_from_clips_to_its_report(tmp_path: Path, name: str) -> None:
    recipe = resolve(name)
    align(Workspace(tmp_path), recipe)
    assert (tmp_path / "report" / "index.html").is_file()
    for table in recipe.evaluations():
        assert (tmp_path / "evaluations" / f"{table.name}.json").is_file()
