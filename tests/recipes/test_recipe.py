"""Recipes as data: YAML and back, flags, swapped parts, and one-line errors with the nearest match."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from foleypref.recipes import recipe as config
from foleypref.recipes.names import recipe_names
from foleypref.recipes.plan import FROM_CANDIDATES, plan
from foleypref.recipes.recipe import Recipe, changed, resolve
from foleypref.settings.flags import parse, parts_of
from foleypref.settings.parts import Settings
from foleypref.settings.yaml import dump, read_yaml
from foleypref.train import TrainSettings
from foleypref.training.rule_settings import RulePairSettings
from foleypref.workspace.store import Workspace

RECIPES = [*recipe_names(), "world_demo-ci"]


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return resolve("world_demo")


@pytest.fixture
def parsed(recipe: Recipe) -> Callable[..., Recipe]:
    return lambda *args: parse(Settings, args, "foleypref align", settings=recipe).settings


def same(a: Recipe, b: Recipe) -> bool:
    return a.model_dump(mode="json") == b.model_dump(mode="json")


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_resolves_and_comes_back_from_yaml_as_the_same_data(name: str, tmp_path: Path) -> None:
    made = resolve(name)
    assert made.name == name
    path = tmp_path / "recipe.yaml"
    path.write_text(dump(made))
    assert same(read_yaml(path, Recipe), made)
    assert dump(read_yaml(path, Recipe)) == dump(made)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_has_a_plan_and_tunes_the_model_it_samples(name: str, workspace: Workspace) -> None:
    made = resolve(name)
    steps = plan(workspace, made)
    first = [] if made.world is None else ["world"]
    first += ["ingest", "sample" if made.learns_from() & FROM_CANDIDATES else "train"]
    assert [s.name for s in steps][: len(first)] == first
    assert all(step.there == "" for step in steps)
    assert sum(step.passes for step in steps) > 0
    for runs in made.rows().values():
        assert [run.seed for run in runs] == list(made.train_seeds)
        assert all(run.model.settings() == made.sample.model.settings() for run in runs)
    names = [run.run_name for runs in made.rows().values() for run in runs]
    assert len(set(names)) == len(names)


def test_the_ci_variant_is_smaller_than_the_demo_and_the_full_one_larger(workspace: Workspace) -> None:
    cost = [
        sum(s.passes for s in plan(workspace, resolve(n)))
        for n in ("world_demo-ci", "world_demo", "world_full")
    ]
    assert cost[0] < cost[1] / 2 < cost[1] < cost[2] / 5


def test_a_number_that_yaml_calls_a_string_is_a_number(recipe: Recipe, tmp_path: Path) -> None:
    text = dump(recipe).replace("learning_rate: 0.0001", "learning_rate: 1e-5")
    assert isinstance(yaml.safe_load(text)["train"]["learning_rate"], str)  # YAML 1.1 wants 1.0e-5
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    assert read_yaml(path, Recipe).train.learning_rate == 1e-5


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (["trian"], {}, "trian: unknown setting; did you mean 'train'"),
        (["train", "learning_rat"], 1, "train.learning_rat: unknown setting; did you mean 'learning_rate'"),
        (["train", "model", "wieghts"], "", "train.model.wieghts: unknown setting; did you mean 'weights'"),
        (["train", "objective", "betta"], 1, "train.objective.betta: unknown setting; did you mean 'beta'"),
        (
            ["controls", "sft", "max_step"],
            1,
            "controls.sft.max_step: unknown setting; did you mean 'max_steps'",
        ),
        (["train", "objective"], "flow_dop", "train.objective: .*did you mean 'flow_dpo'"),
        (["sample", "num_steps"], "many", "sample.num_steps: .*found 'many'"),
        (["rate", "raters_per_item"], 99, "rate: raters_per_item 99 is more than num_raters"),
        (["train", "max_steps"], 0, "train.max_steps: .*greater than or equal to 1, found 0"),
    ],
)
def test_a_mistake_in_yaml_is_one_line_with_its_path(
    recipe: Recipe, tmp_path: Path, keys: list[str], value: object, message: str
) -> None:
    data = recipe.model_dump(mode="json")
    node = data
    for key in keys[:-1]:
        node = node[key]
    node[keys[-1]] = value
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(ValueError, match=message) as caught:
        read_yaml(path, Recipe)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "a: [1", "just words"])
def test_yaml_that_is_no_settings_says_so(tmp_path: Path, text: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"holds no settings|is no YAML"):
        read_yaml(path, Recipe)


def test_flags_change_what_they_name_and_nothing_else(recipe: Recipe, parsed: Callable[..., Recipe]) -> None:
    found = parsed(
        "--train.objective.beta", "300", "--sample.num_steps", "3", "--train.learning-rate", "1e-6"
    )
    assert found.train.objective.beta == 300.0
    assert (found.sample.num_steps, found.train.learning_rate) == (3, 1e-6)
    undone = changed(
        found,
        sample=changed(found.sample, num_steps=recipe.sample.num_steps),
        train=changed(
            found.train, objective=recipe.train.objective, learning_rate=recipe.train.learning_rate
        ),
    )
    assert same(undone, recipe)
    assert same(parsed(), recipe)


@pytest.mark.parametrize("flag", ["--train.max-steps", "--train.max_steps"])
def test_dashes_and_underscores_are_the_same(parsed: Callable[..., Recipe], flag: str) -> None:
    assert parsed(flag, "7").train.max_steps == 7
    assert parsed(f"{flag}=8").train.max_steps == 8


@pytest.mark.parametrize(
    "args",
    [("--train.objective", "sft"), ("--train.objective.name", "sft"), ("--train.objective=sft",)],
)
def test_a_part_is_swapped_by_its_name(parsed: Callable[..., Recipe], args: tuple[str, ...]) -> None:
    found = parsed(*args, "--train.objective.time-distribution", "logit_normal")
    assert found.train.objective.settings()["name"] == "sft"
    assert found.train.objective.time_distribution == "logit_normal"
    assert found.controls["flow_dpo"].objective.part_name() == "flow_dpo"


def test_items_of_dicts_and_tuples_can_be_named(parsed: Callable[..., Recipe]) -> None:
    found = parsed(
        "--controls.sft.max-steps", "3",
        "--controls.sft.curriculum", "two_stage", "--controls.sft.curriculum.threshold", "0.5",
        "--train-seeds", "4", "5",
        "--evaluate.guidance-scales", "1.5",
        "--score.scorers", "world_text", "world_sync",
        "--evaluate.oracles.1.label", "late by",
    )  # fmt: skip
    assert found.controls["sft"].max_steps == 3
    assert found.controls["sft"].curriculum.settings() == {
        "name": "two_stage", "threshold": 0.5, "stage_one_fraction": None,
    }  # fmt: skip
    assert found.train_seeds == (4, 5)
    assert found.evaluate.guidance_scales == (1.5,)
    assert found.score.scorers == ("world_text", "world_sync")
    assert found.evaluate.oracles[1].label == "late by"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--train.learning-rat", "1"], "did you mean --train.learning-rate"),
        (["--train.max-steps", "many"], "--train.max-steps.*'many'"),
        (["--train.max-steps", "0"], "greater than or equal to 1"),
        (["--train.objective", "flow_dop"], "--train.objective: .*did you mean 'flow_dpo'"),
        (["--train.objective"], "wants the name of a part"),
        (["--train.objective", "sft", "--train.objective.beta", "1"], "--train.objective.beta"),
        (["--controls.stf.max-steps", "1"], "did you mean --controls.sft.max-steps"),
        (["stray"], "stray"),
    ],
)
def test_a_mistake_in_flags_is_one_line(parsed: Callable[..., Recipe], args: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        parsed(*args)
    assert "\n" not in str(caught.value)
    assert "│" not in str(caught.value)


def test_a_flag_inside_settings_that_are_none_takes_their_defaults() -> None:
    train = TrainSettings()
    assert train.negatives is None
    flags = ["--negatives.rules", "mute", "shift", "--negatives.share", "0.5"]
    found = parse(Settings, flags, "train", settings=train).settings.negatives
    assert found is not None
    assert [rule.part_name() for rule in found.rules] == ["mute", "shift"]
    assert found == RulePairSettings(rules=("mute", "shift"), share=0.5)
    assert parse(Settings, ["--max-steps", "3"], "train", settings=train).settings.negatives is None
    flags = ["--run-name", "negatives.v2"]  # a value is no flag
    named = parse(Settings, flags, "train", settings=train).settings
    assert (named.run_name, named.negatives) == ("negatives.v2", None)


def test_help_shows_every_part_and_flag(recipe: Recipe, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parse(Settings, ["--help"], "foleypref align RECIPE", settings=recipe)
    text = capsys.readouterr().out
    assert stop.value.code == 0
    for flag, _ in parts_of(recipe):
        assert f"--{flag} NAME" in text
    for flag in ("--train.objective.beta", "--world.align", "--rate.spread", "--controls.sft.max-steps"):
        assert flag in text


def test_a_recipe_in_a_python_file_or_yaml(tmp_path: Path, recipe: Recipe) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from foleypref.recipes.recipe import changed\n"
        "from foleypref.recipes.presets.world_demo import recipe as demo\n\n"
        "def recipe():\n    return changed(demo(), name='mine')\n"
    )
    assert resolve(str(path)).name == "mine"
    (tmp_path / "mine.yaml").write_text(dump(recipe))
    assert same(resolve(str(tmp_path / "mine.yaml")), recipe)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("world_dmeo", "did you mean 'world_demo'"),
        ("world_demo-cii", "did you mean 'ci'"),
        ("nope.py", "nope.py: no such file"),
        ("nope.yaml", "nope.yaml: no such file"),
    ],
)
def test_an_unknown_recipe_gets_the_nearest_match(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve(name)


def test_a_broken_recipe_file_names_itself(tmp_path: Path) -> None:
    for text, message in (
        ("def recipe(:\n", "line 1"),
        ("import not_there\n", "not_there"),
        ("x = 1\n", "makes no"),
    ):
        path = tmp_path / "mine.py"
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            resolve(str(path))


def test_a_change_is_validated(recipe: Recipe) -> None:
    with pytest.raises(ValueError, match="max_steps"):
        changed(recipe.train, max_steps=0)
    with pytest.raises(ValueError, match="max_stps"):
        changed(recipe.train, max_stps=5)
    assert config.changed(recipe.train, max_steps=5).objective == recipe.train.objective
