"""The verbs that take a recipe: `foleypref align RECIPE`, `demo` and `plan RECIPE`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, FiniteFloat
from tyro.conf import Positional, arg

from foleypref.cli.command import Configured, Switch, asks_help, first, open_workspace, value_of
from foleypref.settings.parts import Settings

if TYPE_CHECKING:
    from foleypref.workspace.store import Workspace

EXAMPLE = "world_demo"
DEMO_RECIPES = {"ci": "world_demo-ci", "small": "world_demo", "full": "world_full"}

RecipeName = Annotated[
    str, Positional, arg(metavar="RECIPE", help="a name of `foleypref list recipes`, or a file")
]
Folder = Annotated[str | None, arg(metavar="DIR", help="where everything goes; None: runs/RECIPE")]
Rate = Annotated[
    FiniteFloat | None,
    Field(gt=0),
    arg(metavar="N", help="1e12 operations a second that a device sustains, for the hours; None: a guess"),
]


class ByRecipe(Configured):
    """Base of the verbs whose first argument is a recipe."""

    @classmethod
    def defaults(cls, args: Sequence[str]) -> Settings:
        """Return the recipe that is named; help without one shows an example's flags."""
        from foleypref.recipes.recipe import resolve

        unnamed = asks_help(args) and (not args or args[0].startswith("-"))
        return resolve(EXAMPLE if unnamed else first(args, "RECIPE"))


class Aligning(Configured):
    """Base of `align` and `demo`."""

    dry_run: Annotated[Switch, arg(help="print the plan and stop")] = False
    until: Annotated[str | None, arg(metavar="STAGE", help="stop after this stage")] = None
    tflops: Rate = None

    def run_in(self, root: str) -> None:
        """Align in a workspace, and print the report's path."""
        from foleypref.align import align, steps_until
        from foleypref.recipes.plan import plan_text
        from foleypref.workspace.walk import say

        if self.dry_run:
            with _workspace_to_look_at(root) as workspace:
                steps = steps_until(workspace, self.settings, self.until)
                say(plan_text(root, self.settings, steps, self.tflops))
            return
        workspace = open_workspace(root, create=True)
        if path := align(workspace, self.settings, until=self.until, tflops=self.tflops):
            print(path)


class Align(ByRecipe, Aligning):
    recipe: RecipeName
    workspace: Folder = None

    def run(self) -> None:
        self.run_in(self.workspace or _default_folder(self.recipe))


class Demo(Aligning):
    size: Literal["ci", "small", "full"] = "small"
    workspace: Annotated[str, arg(metavar="DIR", help="where everything goes")] = "runs/demo"

    @classmethod
    def defaults(cls, args: Sequence[str]) -> Settings:
        from foleypref.recipes.recipe import resolve

        size = value_of("--size", args) or "small"
        if size not in DEMO_RECIPES:
            raise ValueError(f"--size is one of {', '.join(DEMO_RECIPES)}, found {size!r}")
        return resolve(DEMO_RECIPES[size])

    def run(self) -> None:
        self.run_in(self.workspace)


class Plan(ByRecipe):
    recipe: RecipeName
    gpus: Annotated[int, Field(ge=1), arg(metavar="N", help="GPUs in a machine")] = 1
    nodes: Annotated[int, Field(ge=1), arg(metavar="N", help="machines that see one file system")] = 1
    tflops: Rate = None
    workspace: Folder = None

    def run(self) -> None:
        from foleypref.recipes.launch import Cluster, commands, launch_text, launches
        from foleypref.recipes.plan import TFLOPS

        root = self.workspace or _default_folder(self.recipe)
        cluster = Cluster(self.gpus, self.nodes, self.tflops or TFLOPS)
        with _workspace_to_look_at(root) as workspace:
            rows = launches(workspace, self.settings, cluster)
            lines = commands(root, self.settings, self.recipe, cluster)
        print(launch_text(rows, lines, self.settings, cluster, assumed=self.tflops is None))


def _default_folder(recipe: str) -> str:
    return f"runs/{Path(recipe).stem}"


@contextmanager
def _workspace_to_look_at(root: str) -> Iterator[Workspace]:
    """Open the workspace if there is one, else an empty one for a moment: a plan makes nothing."""
    if (Path(root).expanduser() / "workspace.json").exists():
        yield open_workspace(root)
        return
    with TemporaryDirectory(prefix="foleypref-plan-") as folder:
        yield open_workspace(folder, create=True)
