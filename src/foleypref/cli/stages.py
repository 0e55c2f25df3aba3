"""The eight stages as verbs: `foleypref STAGE WORKSPACE [--config FILE.yaml | --recipe NAME] [flags]`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import create_model
from tyro.conf import Positional, arg

from foleypref.cli.command import Configured, WorkspaceFolder, asks_help, named, open_workspace, value_of
from foleypref.settings.parts import Settings

UNNAMED = Path("FOLDER")


class Stage(Configured):  # no docstring: help shows the stage's summary
    workspace: WorkspaceFolder
    config: Annotated[str | None, arg(metavar="FILE.yaml", help="take defaults from this file")] = None
    recipe: Annotated[str | None, arg(metavar="NAME|FILE", help="take defaults from this recipe")] = None

    @classmethod
    def stage(cls) -> str:
        """Return the name of the stage's module and of the function in it, by the name of the class."""
        return cls.__name__.lower()

    @classmethod
    def defaults(cls, args: Sequence[str]) -> Settings:
        """Return a recipe's or a file's settings of this stage, or those of its class."""
        if recipe := value_of("--recipe", args):
            from foleypref.recipes.recipe import resolve

            return getattr(resolve(recipe), cls.stage())
        settings_class = named(f"{cls.stage()}:{cls.__name__}Settings")
        if config := value_of("--config", args):
            from foleypref.settings.yaml import read_yaml

            return read_yaml(config, settings_class)
        return settings_class(**cls.placeholders)

    def run(self) -> None:
        """Run the stage; print the path or text that it returns."""
        stage = self.stage()
        workspace = open_workspace(self.workspace, create=stage == "ingest")
        result = named(f"{stage}:{stage}")(workspace, self.settings)
        if isinstance(result, str | Path):
            print(result)


class Ingest(Stage):
    placeholders: ClassVar = {"folder": UNNAMED}
    videos: Annotated[
        Path | None, Positional, arg(metavar="FOLDER", help="the videos; --config may name it instead")
    ] = None

    def run(self) -> None:
        folder = self.videos or self.settings.folder
        if folder == UNNAMED:
            raise ValueError("wants its FOLDER: where are the videos?")
        if not folder.is_dir():  # before a workspace is made for nothing
            raise ValueError(f"{folder}: no such folder; give the folder that holds the videos")
        settings = self.settings.model_copy(update={"folder": folder})
        super(Ingest, self.model_copy(update={"settings": settings})).run()


class Train(Stage):
    @classmethod
    def defaults(cls, args: Sequence[str]) -> Settings:
        """Refuse to guess the model, for training is the one stage that has no default for it."""
        if not (asks_help(args) or any(value_of(f, args) for f in ("--model", "--recipe", "--config"))):
            raise ValueError("wants --model NAME (or --recipe, --config): what is to be tuned?")
        return super().defaults(args)


Sample, Score, Fit, Pair, Evaluate, Report = (  # a stage without more arguments is a class with its name
    create_model(name, __base__=Stage) for name in ("Sample", "Score", "Fit", "Pair", "Evaluate", "Report")
)


class Benchmark(Configured):
    """Evaluate folders of sounds against videos: `foleypref evaluate SOUNDS --against VIDEOS`."""

    settings_class, placeholders = "benchmark:BenchmarkSettings", {"against": Path("VIDEOS")}
    sounds: Annotated[
        tuple[Path, ...], Positional, arg(metavar="SOUNDS …", help="folders of sounds, named as their videos")
    ]
    compare: Annotated[
        tuple[Path, ...], arg(metavar="SOUNDS …", help="more of them: one table, differences to the first")
    ] = ()

    def run(self) -> None:
        from foleypref.benchmark import benchmark

        if not self.sounds:
            raise ValueError("wants its SOUNDS: which folder of sound files is to be scored?")
        benchmark([*self.sounds, *self.compare], self.settings)
