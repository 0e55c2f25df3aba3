"""The verbs that take a recipe: `align` and `demo` run it, `plan` says what that takes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from foleytune.arguments import asks_help, open_workspace, positional, take, take_flag
from foleytune.overrides import parse

if TYPE_CHECKING:
    from foleytune.store import Workspace

DEMO_RECIPES = {"ci": "world_demo-ci", "small": "world_demo", "full": "world_full"}


def run_align(args: list[str]) -> int:
    """`foleytune align RECIPE [--workspace DIR] [--dry-run] [--until STAGE] [flags]`."""
    name = _recipe_name(args, "align RECIPE", "world_demo")
    return _align_recipe(name, args, "align RECIPE", f"runs/{Path(name).stem}")


def run_demo(args: list[str]) -> int:
    """`foleytune demo [--size ci|small|full] [--workspace DIR]`: align on the embedded world."""
    size = take(args, "--size") or "small"
    if size not in DEMO_RECIPES:
        raise ValueError(f"--size is one of {', '.join(DEMO_RECIPES)}, found {size!r}")
    return _align_recipe(DEMO_RECIPES[size], args, "demo [--size ci|small|full]", "runs/demo")


def run_plan(args: list[str]) -> int:
    """`foleytune plan RECIPE [--gpus N] [--nodes N] [--tflops N] [--workspace DIR] [flags]`."""
    from foleytune.config import resolve
    from foleytune.launch import Cluster, commands, launch_text, launches
    from foleytune.plan import TFLOPS

    name = _recipe_name(args, "plan RECIPE", "v2a_dpo_mmaudio")
    default = f"runs/{Path(name).stem}"
    root, rate = take(args, "--workspace") or default, take(args, "--tflops")
    gpus, nodes = (_count(flag, take(args, flag)) for flag in ("--gpus", "--nodes"))
    note = (
        "--gpus N          GPUs in a machine (default: 1)\n"
        "--nodes N         machines that see one file system (default: 1)\n"
        f"--tflops N        sustained 1e12 operations a second of a GPU (default: {TFLOPS:g}, a guess)\n"
        f"--workspace DIR   where everything would go (default: {default})"
    )
    recipe = parse(resolve(name), args, "foleytune plan RECIPE", note)
    cluster = Cluster(gpus, nodes, TFLOPS if rate is None else _rate(rate))
    with _workspace_to_look_at(root) as workspace:
        found = launches(workspace, recipe, cluster)
        lines = commands(root, recipe, name, cluster)
    print(launch_text(found, lines, recipe, cluster, assumed=rate is None))
    return 0


def _recipe_name(args: list[str], usage: str, example: str) -> str:
    """The first argument; where help is asked for without one, the recipe that the help is shown with."""
    unnamed = asks_help(args) and (not args or args[0].startswith("-"))
    return example if unnamed else positional(args, usage)


@contextmanager
def _workspace_to_look_at(root: str) -> Iterator[Workspace]:
    """The workspace where there is one; else an empty one for a moment: a plan makes nothing."""
    if (Path(root).expanduser() / "workspace.json").exists():
        yield open_workspace(root, create=False)
        return
    with TemporaryDirectory(prefix="foleytune-plan-") as folder:
        yield open_workspace(folder, create=True)


def _count(flag: str, text: str | None) -> int:
    if text is not None and not (text.isdigit() and int(text) > 0):
        raise ValueError(f"{flag} is a whole number above 0, found {text!r}")
    return 1 if text is None else int(text)


def _align_recipe(name: str, args: list[str], shown: str, default_workspace: str) -> int:
    root = take(args, "--workspace") or default_workspace
    until, rate = take(args, "--until"), take(args, "--tflops")
    tflops = None if rate is None else _rate(rate)
    dry_run = take_flag(args, "--dry-run")
    note = (
        f"--workspace DIR   where everything goes (default: {default_workspace})\n"
        "--dry-run         print the plan and stop\n"
        "--until STAGE     stop after this stage\n"
        "--tflops N        sustained 1e12 operations a second of the device, for the plan's hours"
    )
    from foleytune.align import align, steps_until
    from foleytune.config import resolve
    from foleytune.plan import plan_text
    from foleytune.stages import say

    recipe = parse(resolve(name), args, f"foleytune {shown}", note)

    if dry_run:
        with _workspace_to_look_at(root) as workspace:
            say(plan_text(root, recipe, steps_until(workspace, recipe, until), tflops))
        return 0
    path = align(open_workspace(root, create=True), recipe, until=until, tflops=tflops)
    if path is not None:
        print(path)
    return 0


def _rate(text: str) -> float:
    """A finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ValueError(f"--tflops is a number of 1e12 operations a second, as in 400, found {text!r}")
    return value
