"""What there is: the parts of the drawers, what a workspace holds, and the machine; for people to read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Annotated

import pyarrow.compute as pc
from tyro.conf import Positional, arg

from foleypref.cli.command import Command, WorkspaceFolder, open_workspace
from foleypref.recipes.names import describe_recipe, recipe_names
from foleypref.settings import parts as plugins
from foleypref.workspace.paths import RunFiles
from foleypref.workspace.records import RECORDS, Candidate, Clip, Failure, Record, Score

if TYPE_CHECKING:
    from foleypref.workspace.store import Workspace


class List(Command):
    drawers: Annotated[
        tuple[str, ...], Positional, arg(metavar="[DRAWER …]", help="only these: models, scorers, …, recipes")
    ] = ()

    def run(self) -> None:
        print(list_parts(self.drawers))


class Show(Command):
    workspace: WorkspaceFolder

    def run(self) -> None:
        print(show_workspace(open_workspace(self.workspace)))


class Env(Command):
    def run(self) -> None:
        from foleypref.workspace.environment import environment

        print(environment())


def list_parts(drawers: Sequence[str] = ()) -> str:
    """Return every part of the drawers (all by default) with its one line and its weights' licences."""
    blocks = []
    for drawer in drawers or (*plugins.DRAWERS, "recipes"):
        if drawer == "recipes":
            lines = [(name, describe_recipe(name)) for name in recipe_names()]
        else:
            lines = [(name, plugins.describe(drawer, name) + _terms(name)) for name in plugins.names(drawer)]
        width = max((len(name) for name, _ in lines), default=0)
        blocks.append(
            "\n".join([f"{drawer}:", *(f"  {n:<{width}}  {text}" for n, text in lines or [("(none)", "")])])
        )
    return "\n\n".join(blocks)


def _terms(name: str) -> str:
    """Return what the published weights that a part runs on allow, in brackets."""
    from foleypref.published.registry import licences_of

    terms = licences_of(name)
    limits = ", not for commercial use" if terms.non_commercial else ""
    return f" [weights: {terms.text}{limits}]" if terms.text else ""


def show_workspace(workspace: Workspace) -> str:
    """Return counts of every table, of clips and candidates by kind, failures with reasons, and runs."""
    lines = [str(workspace.root), ""]
    lines += [f"{table:<12}{len(workspace.ids(cls)):>8}" for table, cls in RECORDS.items()]
    lines += _counts("clips by split", _groups(workspace, Clip, "{split}"))
    named = "{model} {weights} {guidance_scale:g}"
    lines += _counts("candidates by model, weights and guidance", _groups(workspace, Candidate, named))
    scored = _groups(workspace, Score, "{scorer}/{dimension}", pc.field("value").is_valid())
    lines += _counts("scored candidates by scorer", scored)
    lines += _counts("failures", Counter(f"{f.stage}: {f.reason}" for f in workspace.read(Failure)))
    if folders := workspace.run_folders():
        lines += ["", "runs:", *(f"  {folder.name}{_last_step(folder)}" for folder in folders)]
    return "\n".join(lines + [f"report: {page}" for page in sorted(workspace.root.rglob("*.html"))])


def _groups(
    workspace: Workspace, cls: type[Record], name: str, where: pc.Expression | None = None
) -> Counter[str]:
    """Count the records of each name, which is a format of columns."""
    columns = [field for _, field, _, _ in Formatter().parse(name) if field]
    table = workspace.table(cls, columns, where).group_by(columns).aggregate([([], "count_all")])
    counts: Counter[str] = Counter()
    for row in table.to_pylist():
        shown = {key: "-" if value == "" else value for key, value in row.items()}
        counts[name.format_map(shown)] += row["count_all"]
    return counts


def _counts(title: str, counts: Counter[str], most: int = 20) -> list[str]:
    if not counts:
        return []
    rows = [f"  {n:>6}  {name}" for name, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    left = [f"  … and {len(rows) - most} more"] if len(rows) > most else []
    return ["", f"{title}:", *rows[:most], *left]


def _last_step(folder: Path) -> str:
    log = RunFiles(folder).metrics
    for line in reversed(log.read_text(encoding="utf-8").splitlines() if log.exists() else []):
        try:
            return f"  step {json.loads(line)['step']}"
        except (ValueError, KeyError):  # the last line of a killed run may be torn
            continue
    return ""
