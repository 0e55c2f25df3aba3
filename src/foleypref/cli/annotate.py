"""`foleypref annotate`: serve the rating tool, or export and import what people said."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from foleypref.annotate import require
from foleypref.cli.arguments import asks_help, positional
from foleypref.settings.flags import parse

if TYPE_CHECKING:
    from foleypref.workspace.store import Workspace

NOTE = """\
foleypref annotate WORKSPACE              a page on which people rate soundtracks, until Ctrl-C

foleypref annotate export WORKSPACE FILE  what people said, as .parquet, .csv, or Label Studio's .json

foleypref annotate import WORKSPACE FILE  add such a file's ratings and votes to the workspace"""


def run(args: list[str], open_workspace: Callable[..., Workspace]) -> int:
    """The verb with its arguments; `open_workspace` opens the folder that they name."""
    from foleypref.annotate.settings import AnnotateSettings

    if args and args[0] in ("export", "import"):
        return _interchange(args.pop(0), args, open_workspace)
    root = "" if asks_help(args) else positional(args, "annotate WORKSPACE")
    settings = parse(AnnotateSettings(), args, "foleypref annotate WORKSPACE", NOTE)
    from foleypref.annotate import serve

    serve.annotate(open_workspace(root, create=False), settings)
    return 0


def _interchange(what: str, args: list[str], open_workspace: Callable[..., Workspace]) -> int:
    if asks_help(args):
        print(f"usage: foleypref annotate {what} WORKSPACE FILE\n\n{NOTE}")
        return 0
    root = positional(args, f"annotate {what} WORKSPACE")
    path = positional(args, f"annotate {what} WORKSPACE FILE")
    if args:
        raise ValueError(f"annotate {what} takes a workspace and a file, found {args[0]!r} as well")
    require("sqlalchemy")
    from foleypref.annotate import labels

    workspace = open_workspace(root, create=False)
    if what == "export":
        print(labels.export_labels(workspace, path))
    else:
        labels.import_labels(workspace, path)
    return 0
