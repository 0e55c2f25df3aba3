"""What the report says of the workspace besides the evaluation: fits, pairs, runs and settings.

Everything here is optional: a file that is not there, or that another version wrote with other keys, costs
its own section and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from foleypref.evaluation.charts import COLOURS, Series, bar_chart, histogram_chart, line_chart, step_chart
from foleypref.evaluation.result import Evaluation
from foleypref.evaluation.table import number
from foleypref.training.log import read_metrics
from foleypref.workspace.dimensions import Dimension
from foleypref.workspace.paths import RunFiles, WorkspacePaths

CURVES = ("loss", "rewards/margins", "rewards/accuracies", "flow/winner_delta", "flow/loser_delta")


def audioscore_sections(root: Path) -> list[dict[str, Any]]:
    """Every fitted AudioScore: numbers, reliability plot, contributions."""
    found = []
    for path in sorted(WorkspacePaths(root).audioscores.glob("*.json")):
        said = _read(path)
        if said:
            charts = [_reliability(said.get("reliability")), *_contributions(said.get("contributions"))]
            found.append({"name": path.stem, "facts": _facts(said), "charts": [c for c in charts if c]})
    return found


def _reliability(bins: Any) -> Markup | None:
    points = [
        (b["confidence"], b["accuracy"])
        for b in (bins if isinstance(bins, list) else [])
        if isinstance(b, dict)
        and b.get("n")
        and _is_number(b.get("confidence"))
        and _is_number(b.get("accuracy"))
    ]
    if not points:
        return None
    x, y = np.array(points, float).T
    return line_chart(
        "Reliability: accuracy over confidence", [Series("AudioScore", COLOURS[0], y, x)], diagonal=True
    )


def _contributions(said: Any) -> list[Markup]:
    if not isinstance(said, dict):
        return []
    drops = {
        name: next(
            (float(v) for v in (c.values() if isinstance(c, dict) else [c]) if _is_number(v)), float("nan")
        )
        for name, c in said.items()
    }
    ordered = sorted(drops, key=lambda name: -np.nan_to_num(drops[name]))
    names = [Dimension.parse(name).scorer.removeprefix("world_") or name for name in ordered]
    return [bar_chart("Accuracy lost when a dimension is shuffled", names, [drops[name] for name in ordered])]


def pairs_section(root: Path, complexities: np.ndarray) -> dict[str, Any] | None:
    """Counts of pairs.json and the histogram of complexity, from there or from the pairs themselves."""
    said = _read(WorkspacePaths(root).pairs_report())
    if not said and not complexities.size:
        return None
    edges, counts = said.get("histogram_edges"), said.get("histogram")
    if isinstance(edges, list) and isinstance(counts, list) and len(edges) == len(counts) + 1 and sum(counts):
        shares = np.array(counts, float) / sum(counts)
        series = Series("pairs", COLOURS[0], np.zeros(0))
        chart = step_chart("Complexity: 1 easy, 0 hard", np.array(edges, float), [(series, shares)])
    else:
        chart = histogram_chart("Complexity: 1 easy, 0 hard", [Series("pairs", COLOURS[0], complexities)])
    return {
        "facts": _facts(said)
        + _facts(said.get("pairs"), "pairs: ")
        + _facts(said.get("others"), "pairs left in place: ")
        + _facts(said.get("reasons")),
        "chart": chart,
    }


def run_section(root: Path, names: Sequence[str] | None) -> dict[str, Any] | None:
    """Training curves of the runs (all there are if None), one chart a logged number."""
    folders = [p for p in WorkspacePaths(root).run_folders() if names is None or p.name in names]
    logs = {folder.name: _log(folder) for folder in folders}
    logs = {name: lines for name, lines in logs.items() if lines}
    if not logs:
        return None
    logged = {key for lines in logs.values() for line in lines for key in line}
    others = sorted(k for k in logged if k.startswith("eval/") and k.removeprefix("eval/") not in CURVES)[:8]
    colour = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(logs)}
    charts = []
    for key in (*CURVES, *others):
        series = [
            Series(f"{name} {shown}", colour[name], *_curve(lines, shown), dashed=shown != key)
            for name, lines in logs.items()
            for shown in (key, f"eval/{key}")
        ]
        if any(len(s.y) for s in series):
            charts.append(line_chart(key, series))
    return {"runs": [(name, colour[name]) for name in logs], "charts": charts}


def _log(folder: Path) -> list[dict[str, Any]]:
    try:
        return [
            line for line in read_metrics(folder) if isinstance(line, dict) and _is_number(line.get("step"))
        ]
    except ValueError:
        return []


def _curve(lines: Sequence[Mapping[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """(y, x) of one logged number."""
    points = [(line[key], line["step"]) for line in lines if _is_number(line.get(key))]
    array = np.array(points, float).reshape(-1, 2)
    return array[:, 0], array[:, 1]


def settings_texts(root: Path, evaluation: Evaluation, names: Sequence[str] | None) -> list[tuple[str, str]]:
    """(title, text) of the resolved recipe, each run's settings and the evaluation's."""
    paths = [("recipe", WorkspacePaths(root).recipe)]
    for folder in WorkspacePaths(root).run_folders():
        if names is None or folder.name in names:
            settings = RunFiles(folder).settings
            paths.append((f"run {folder.name}: {settings.name}", settings))
    texts = [
        (title, path.read_text(encoding="utf-8", errors="replace")) for title, path in paths if path.is_file()
    ]
    versions = {"scorer versions": evaluation.versions}
    return [*texts, ("evaluation", json.dumps(evaluation.settings | versions, indent=1, ensure_ascii=False))]


def _facts(said: Any, prefix: str = "") -> list[tuple[str, str]]:
    """The plain numbers and words of a JSON object."""
    if not isinstance(said, dict):
        return []
    return [
        (prefix + str(key).replace("_", " "), number(value) if isinstance(value, float) else str(value))
        for key, value in said.items()
        if _is_number(value) or (isinstance(value, str) and len(value) < 40 and key != "inputs")
    ]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _read(path: Path) -> dict[str, Any]:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}
