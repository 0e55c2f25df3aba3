"""What there is: the parts of the drawers, what a workspace holds, and the machine; for people to read."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import platform
import sys
from collections import Counter
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING

import pyarrow.compute as pc

from foleytune import plugins
from foleytune.records import RECORDS, Candidate, Clip, Failure, Record, Score

if TYPE_CHECKING:
    from foleytune.store import Workspace

PACKAGES = ("torch", "numpy", "av", "pyarrow", "safetensors", "pydantic", "tyro", "accelerate", "pesq")


def recipe_names() -> list[str]:
    """The files of the recipes drawer, sorted."""
    return sorted(p.stem for p in (Path(__file__).parent / "recipes").glob("*.py") if p.stem[0] != "_")


def list_parts(drawers: Sequence[str] = ()) -> str:
    """Every part of every drawer (or of those named) with its one line and its weights' licences.

    Nothing heavy is imported.
    """
    blocks = []
    for drawer in drawers or (*plugins.DRAWERS, "recipes"):
        if drawer == "recipes":
            lines = [(name, _first_line("recipes", name)) for name in recipe_names()]
        else:
            lines = [(name, plugins.describe(drawer, name) + _terms(name)) for name in plugins.names(drawer)]
        width = max((len(name) for name, _ in lines), default=0)
        blocks.append(
            "\n".join([f"{drawer}:", *(f"  {n:<{width}}  {text}" for n, text in lines or [("(none)", "")])])
        )
    return "\n\n".join(blocks)


def _terms(name: str) -> str:
    """What the published weights that a part runs on allow; the code is the project's own."""
    from foleytune.published.registry import licences_of

    terms = licences_of(name)
    limits = ", not for commercial use" if terms.non_commercial else ""
    return f" [weights: {terms.text}{limits}]" if terms.text else ""


def show_workspace(workspace: Workspace) -> str:
    """Counts of every table, of clips and candidates by kind, failures with reasons, and runs."""
    lines = [str(workspace.root), ""]
    lines += [f"{table:<12}{len(workspace.ids(cls)):>8}" for table, cls in RECORDS.items()]
    lines += _counts("clips by split", _groups(workspace, Clip, "{split}"))
    named = "{model} {weights} {guidance_scale:g}"
    lines += _counts("candidates by model, weights and guidance", _groups(workspace, Candidate, named))
    scored = _groups(workspace, Score, "{scorer}/{dimension}", pc.field("value").is_valid())
    lines += _counts("scored candidates by scorer", scored)
    lines += _counts("failures", Counter(f"{f.stage}: {f.reason}" for f in workspace.read(Failure)))
    lines += _runs(workspace)
    pages = sorted(workspace.root.rglob("*.html"))
    return "\n".join(lines + [f"report: {page}" for page in pages])


def environment() -> str:
    """Versions and hardware as `name: value` lines."""
    rows = [("foleytune", _version("foleytune")), ("python", sys.version.split()[0])]
    rows += [(name, _version(name)) for name in PACKAGES]
    rows += [("os", platform.platform()), ("cpus", str(_usable_cpus())), ("gpu", _gpu())]
    return "\n".join(f"{name}: {value}" for name, value in rows)


def _groups(
    workspace: Workspace, cls: type[Record], name: str, where: pc.Expression | None = None
) -> Counter[str]:
    """How many records there are of each name, a format of columns."""
    columns = [field for _, field, _, _ in Formatter().parse(name) if field]
    table = workspace.table(cls, columns, where).group_by(columns).aggregate([([], "count_all")])
    found: Counter[str] = Counter()
    for row in table.to_pylist():
        shown = {key: "-" if value == "" else value for key, value in row.items()}
        found[name.format_map(shown)] += row["count_all"]
    return found


def _counts(title: str, counts: Counter[str], most: int = 20) -> list[str]:
    if not counts:
        return []
    rows = [f"  {n:>6}  {name}" for name, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    left = [f"  … and {len(rows) - most} more"] if len(rows) > most else []
    return ["", f"{title}:", *rows[:most], *left]


def _runs(workspace: Workspace) -> list[str]:
    folders = sorted(p for p in (workspace.root / "runs").glob("*") if p.is_dir())
    return ["", "runs:", *(f"  {p.name}{_last_step(p)}" for p in folders)] if folders else []


def _last_step(folder: Path) -> str:
    log = folder / "metrics.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    for line in reversed(lines):
        try:
            return f"  step {json.loads(line)['step']}"
        except (ValueError, KeyError):  # the last line of a killed run may be torn
            continue
    return ""


def _first_line(folder: str, name: str) -> str:
    source = (Path(__file__).parent / folder / f"{name}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "(no description)").splitlines()[0]


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _usable_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpu() -> str:
    if importlib.util.find_spec("torch") is None:
        return "unknown (no torch)"
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
