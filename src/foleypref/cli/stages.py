"""The eight stages as verbs: `foleypref STAGE WORKSPACE [--config FILE.yaml | --recipe NAME] [flags]`."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar

from tyro.conf import Positional, arg

from foleypref.cli.command import Configured, WorkspaceFolder, asks_help, open_workspace, value_of
from foleypref.settings.parts import Settings

UNNAMED = Path("FOLDER")


class Stage(Configured):  # no docstring: help shows the stage's summary
    stage: ClassVar[str]  # `foleypref.<stage>` has a function of that name
    settings_class: ClassVar[str]
    workspace: WorkspaceFolder
    config: Annotated[str | None, arg(metavar="FILE.yaml", help="take defaults from this file")] = None
    recipe: Annotated[str | None, arg(metavar="NAME|FILE", help="take defaults from this recipe")] = None

    @classmethod
    def defaults(cls, args: Sequence[str]) -> Settings:
        """Return a recipe's or a file's settings of this stage, or those of its class."""
        settings_class = getattr(importlib.import_module(f"foleypref.{cls.stage}"), cls.settings_class)
        if recipe := value_of("--recipe", args):
            from foleypref.recipes.recipe import resolve

            return getattr(resolve(recipe), cls.stage)
        if config := value_of("--config", args):
            from foleypref.settings.yaml import read_yaml

            return read_yaml(config, settings_class)
        return settings_class()

    def run(self) -> None:
        """Run the stage; print the path or text that it returns."""
        stage = getattr(importlib.import_module(f"foleypref.{self.stage}"), self.stage)
        result = stage(open_workspace(self.workspace, create=self.stage == "ingest"), self.settings)
        if isinstance(result, str | Path):
            print(result)


class Ingest(Stage):
    stage, settings_class = "ingest", "IngestSettings"
    videos: Annotated[
        Path | None, Positional, arg(metavar="FOLDER", help="the videos; --config may name it instead")
    ] = None

    @classmethod
    def defaults(cls, args: Sequence[str]) -> Settings:
        if value_of("--recipe", args) or value_of("--config", args):
            return super().defaults(args)
        from foleypref.ingest import IngestSettings

        return IngestSettings(folder=UNNAMED)

    def run(self) -> None:
        folder = self.videos or self.settings.folder
        if folder == UNNAMED:
            raise ValueError("wants its FOLDER: where are the videos?")
        if not folder.is_dir():  # before a workspace is made for nothing
            raise ValueError(f"{folder}: no such folder; give the folder that holds the videos")
        settings = self.settings.model_copy(update={"folder": folder})
        super(Ingest, self.model_copy(update={"settings": settings})).run()


class Sample(Stage):
    stage, settings_class = "sample", "SampleSettings"


class Score(Stage):
    stage, settings_class = "score", "ScoreSettings"


class Fit(Stage):
    stage, settings_class = "fit", "FitSettings"


class Pair(Stage):
    stage, settings_class = "pair", "PairSettings"


class Train(Stage):
    stage, settings_class = "train", "TrainSettings"

    @classmethod
    def defaults(cls, args: Sequence[str]) -> Settings:
        """Refuse to guess the model, for training is the one stage that has no default for it."""
        if not (asks_help(args) or any(value_of(f, args) for f in ("--model", "--recipe", "--config"))):
            raise ValueError("wants --model NAME (or --recipe, --config): what is to be tuned?")
        return super().defaults(args)


class Evaluate(Stage):
    stage, settings_class = "evaluate", "EvaluateSettings"


class Report(Stage):
    stage, settings_class = "report", "ReportSettings"


class Benchmark(Configured):
    """Evaluate folders of sounds against videos: `foleypref evaluate SOUNDS --against VIDEOS`."""

    sounds: Annotated[
        tuple[Path, ...],
        Positional,
        arg(metavar="SOUNDS …", help="folders of sounds, named as their videos"),
    ]
    compare: Annotated[
        tuple[Path, ...], arg(metavar="SOUNDS …", help="more of them: one table, differences to the first")
    ] = ()

    @classmethod
    def defaults(cls, args: Sequence[str]) -> Settings:
        from foleypref.benchmark import BenchmarkSettings

        return BenchmarkSettings(against=Path("VIDEOS"))

    def run(self) -> None:
        from foleypref.benchmark import benchmark

        if not self.sounds:
            raise ValueError("wants its SOUNDS: which folder of sound files is to be scored?")
        benchmark([*self.sounds, *self.compare], self.settings)
