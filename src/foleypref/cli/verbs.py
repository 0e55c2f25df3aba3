"""The verbs beside stages, recipes, weights and the hub: each takes its arguments and calls one function."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from foleypref.cli.command import Command, Configured, Switch, WorkspaceFolder, open_workspace
from foleypref.settings.parts import Settings


class Generate(Configured):
    video: Annotated[
        Path | None,
        Positional,
        arg(metavar="[VIDEO]", help="or a folder of them; without, the --prompt sounds"),
    ] = None
    out: Annotated[
        Path | None,
        arg(
            aliases=["-o"], metavar="FILE", help="a video with its new sound, or only the sound (.wav, .flac)"
        ),
    ] = None

    @classmethod
    def defaults(cls, args: Sequence[str]) -> Settings:
        from foleypref.generate import GenerateSettings

        return GenerateSettings()

    def run(self) -> None:
        from foleypref.generate import generate

        for path in generate(self.video, self.out or self._default_out(), self.settings):
            print(path)

    def _default_out(self) -> str:
        if self.video is None:
            return "sound.flac"
        return f"{self.video}.foley" if self.video.is_dir() else f"{self.video.stem}.foley.mp4"


class WorldMake(Configured):
    @classmethod
    def defaults(cls, args: Sequence[str]) -> Settings:
        from foleypref.world.settings import MakeSettings

        return MakeSettings()

    def run(self) -> None:
        from foleypref.world.make import make

        make(self.settings)


class WorldRate(Configured):
    workspace: WorkspaceFolder

    @classmethod
    def defaults(cls, args: Sequence[str]) -> Settings:
        from foleypref.scoring.simulated_raters import RaterSettings

        return RaterSettings()

    def run(self) -> None:
        from foleypref.scoring.simulated_raters import simulate_ratings

        simulate_ratings(open_workspace(self.workspace), self.settings)


class PairsExport(Command):
    workspace: WorkspaceFolder
    folder: Annotated[Path, Positional, arg(metavar="FOLDER")]

    def run(self) -> None:
        from foleypref.scoring.pairs_folder import export_pairs

        print(export_pairs(open_workspace(self.workspace), self.folder))


class PairsImport(Command):
    workspace: WorkspaceFolder
    folder: Annotated[
        Path, Positional, arg(metavar="FOLDER", help="such a folder, or its metadata.jsonl or .csv")
    ]

    def run(self) -> None:
        from foleypref.scoring.pairs_folder import import_pairs

        import_pairs(open_workspace(self.workspace), self.folder)


class Compare(Configured):
    first: Annotated[str, Positional, arg(metavar="RUN_A", help="WORKSPACE/runs/NAME, or the word base")]
    second: Annotated[str, Positional, arg(metavar="RUN_B", help="the same; one of the two is a run")]
    result: Annotated[Switch, arg(help="show the votes so far and stop")] = False

    @classmethod
    def defaults(cls, args: Sequence[str]) -> Settings:
        from foleypref.compare import CompareSettings

        return CompareSettings()

    def run(self) -> None:
        from foleypref import compare as verb

        root, first, second = verb.workspace_of(self.first, self.second)
        workspace = open_workspace(root)
        if not self.result:
            verb.compare(workspace, first, second, self.settings)
        verb.show_result(workspace, first, second)


class Annotate(Configured):
    """Serve the page on which raters rate soundtracks, blind, until Ctrl-C.

    `foleypref annotate export` and `foleypref annotate import` take ratings to files and back.
    """

    workspace: WorkspaceFolder

    @classmethod
    def defaults(cls, args: Sequence[str]) -> Settings:
        from foleypref.annotate.settings import AnnotateSettings

        return AnnotateSettings()

    def run(self) -> None:
        from foleypref.annotate import serve

        serve.annotate(open_workspace(self.workspace), self.settings)


class AnnotateExport(Command):
    workspace: WorkspaceFolder
    file: Annotated[Path, Positional, arg(metavar="FILE", help=".parquet, .csv, or Label Studio's .json")]

    def run(self) -> None:
        from foleypref.annotate import require

        require("sqlalchemy")
        from foleypref.annotate.labels import export_labels

        print(export_labels(open_workspace(self.workspace), self.file))


class AnnotateImport(Command):
    workspace: WorkspaceFolder
    file: Annotated[Path, Positional, arg(metavar="FILE", help="as `annotate export` writes it")]

    def run(self) -> None:
        from foleypref.annotate import require

        require("sqlalchemy")
        from foleypref.annotate.labels import import_labels

        import_labels(open_workspace(self.workspace), self.file)
