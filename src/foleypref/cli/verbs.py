"""The verbs beside stages, recipes, weights and the hub: each takes its arguments and calls one function."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from foleypref.cli.command import Command, Configured, Switch, WorkspaceFolder, named, open_workspace


class Generate(Configured):
    settings_class = "generate:GenerateSettings"
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

    def run(self) -> None:
        from foleypref.generate import generate

        for path in generate(self.video, self.out or self._default_out(), self.settings):
            print(path)

    def _default_out(self) -> str:
        if self.video is None:
            return "sound.flac"
        return f"{self.video}.foley" if self.video.is_dir() else f"{self.video.stem}.foley.mp4"


class WorldMake(Configured):
    settings_class = "world.settings:MakeSettings"

    def run(self) -> None:
        from foleypref.world.make import make

        make(self.settings)


class WorldRate(Configured):
    settings_class = "scoring.simulated_raters:RaterSettings"
    workspace: WorkspaceFolder

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
    settings_class = "compare:CompareSettings"
    first: Annotated[str, Positional, arg(metavar="RUN_A", help="WORKSPACE/runs/NAME, or the word base")]
    second: Annotated[str, Positional, arg(metavar="RUN_B", help="the same; one of the two is a run")]
    result: Annotated[Switch, arg(help="show the votes so far and stop")] = False

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

    settings_class = "annotate.settings:AnnotateSettings"
    workspace: WorkspaceFolder

    def run(self) -> None:
        from foleypref.annotate import serve

        serve.annotate(open_workspace(self.workspace), self.settings)


class AnnotateExport(Command):
    workspace: WorkspaceFolder
    file: Annotated[Path, Positional, arg(metavar="FILE", help=".parquet, .csv, or Label Studio's .json")]

    def run(self) -> None:
        print(_labels("export_labels")(open_workspace(self.workspace), self.file))


class AnnotateImport(Command):
    workspace: WorkspaceFolder
    file: Annotated[Path, Positional, arg(metavar="FILE", help="as `annotate export` writes it")]

    def run(self) -> None:
        _labels("import_labels")(open_workspace(self.workspace), self.file)


def _labels(name: str) -> Any:
    """Import a function of the file of ratings, or say which extra it needs."""
    from foleypref.annotate import require

    require("sqlalchemy")
    return named(f"annotate.labels:{name}")
