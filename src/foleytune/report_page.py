"""What the report says: the evaluation, the fit, the pairs and the runs as tables and charts for the
template.

Everything but the evaluation is optional: a file that is not there, or that another version wrote with
other keys, costs its own section and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from foleytune.evaluation import Cell, Column, Evaluation, SystemRow
from foleytune.evaluation_table import guidance, header, number, signed, spread, system_name, verdict
from foleytune.records import GROUND_TRUTH
from foleytune.report_charts import (
    Interval,
    Series,
    bar_chart,
    histogram_chart,
    interval_chart,
    line_chart,
    step_chart,
)
from foleytune.runlog import read_metrics

CURVES = ("loss", "rewards/margins", "rewards/accuracies", "flow/winner_delta", "flow/loser_delta")
NUM_COLOURS = 6


def colours(evaluation: Evaluation) -> dict[str, str]:
    """A CSS colour a system; the base is grey, the truth has its own."""
    names = [row.system for row in evaluation.rows if row.system not in (GROUND_TRUTH, evaluation.base)]
    tuned = {name: f"var(--c{i % NUM_COLOURS + 1})" for i, name in enumerate(dict.fromkeys(names))}
    return {evaluation.base: "var(--c0)", **tuned, GROUND_TRUTH: "var(--truth)"}


def tables(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Judges and oracles, each as heads and rows of cells."""
    found = []
    for oracle in (False, True):
        columns = evaluation.group(oracle)
        if columns:
            rows = [_table_row(evaluation, row, columns) for row in evaluation.shown_rows]
            found.append(
                {"oracle": oracle, "heads": [header(evaluation.columns[i]) for i in columns], "rows": rows}
            )
    return found


def _table_row(evaluation: Evaluation, row: SystemRow, columns: Sequence[int]) -> dict[str, Any]:
    return {
        "name": system_name(row),
        "colour": colours(evaluation)[row.system],
        "guidance": guidance(row),
        "kind": "truth" if row.is_truth else "base" if row.system == evaluation.base else "tuned",
        "cells": [_table_cell(row.cells[i], evaluation.columns[i], row.num_clips) for i in columns],
    }


def _table_cell(cell: Cell, column: Column, num_clips: int) -> dict[str, Any]:
    d = cell.difference
    interval = f"[{number(cell.low)}, {number(cell.high)}]"
    seeds = ", ".join(number(value) for value in cell.by_seed)
    return {
        "value": number(cell.value),
        "spread": spread(cell.value, cell.low, cell.high),
        "change": "" if d is None else signed(d.value),
        "interval": "" if d is None else f"[{number(d.low)}, {number(d.high)}]",
        "percent": "" if d is None or d.percent != d.percent else signed(d.percent, " %"),
        "verdict": verdict(cell, column),
        "seeds": seeds if len(cell.by_seed) > 1 else "",
        "hint": f"{cell.n} of {num_clips} clips scored; 95 % interval {interval}",
    }


def interval_charts(evaluation: Evaluation) -> list[Markup]:
    """One chart a metric: every system and guidance scale as a dot with its interval."""
    several, colour = len(evaluation.guidance_scales) > 1, colours(evaluation)
    charts = []
    for i, column in enumerate(evaluation.columns):
        items = [
            Interval(
                _short_name(row, several),
                colour[row.system],
                row.cells[i].value,
                row.cells[i].low,
                row.cells[i].high,
            )
            for row in evaluation.shown_rows
        ]
        charts.append(interval_chart(header(column), items))
    return charts


def _short_name(row: SystemRow, several: bool) -> str:
    if row.is_truth:
        return "ground truth"
    return f"{row.system} @ {row.guidance_scale:g}" if several else row.system


def score_histograms(evaluation: Evaluation, scores: Mapping[str, Mapping[str, np.ndarray]]) -> list[Markup]:
    """`scores`: system -> "scorer/dimension" -> values over clips; one chart a dimension of the table."""
    charts, colour = [], colours(evaluation)
    for column in evaluation.columns:
        if column.dimension is not None:
            series = [
                Series("ground truth" if s == GROUND_TRUTH else s, colour[s], values[column.dimension])
                for s, values in scores.items()
            ]
            charts.append(histogram_chart(header(column), series))
    return charts


def audioscore_sections(root: Path) -> list[dict[str, Any]]:
    """Every fitted AudioScore: numbers, reliability plot, contributions."""
    found = []
    for path in sorted((root / "audioscore").glob("*.json")):
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
        "Reliability: accuracy over confidence", [Series("AudioScore", "var(--c1)", y, x)], diagonal=True
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
    names = [name.rpartition("/")[0].removeprefix("world_") or name for name in ordered]
    return [bar_chart("Accuracy lost when a dimension is shuffled", names, [drops[name] for name in ordered])]


def pairs_section(root: Path, complexities: np.ndarray) -> dict[str, Any] | None:
    """Counts of pairs.json and the histogram of complexity, from there or from the pairs themselves."""
    said = _read(root / "pairs.json")
    if not said and not complexities.size:
        return None
    edges, counts = said.get("histogram_edges"), said.get("histogram")
    if isinstance(edges, list) and isinstance(counts, list) and len(edges) == len(counts) + 1 and sum(counts):
        shares = np.array(counts, float) / sum(counts)
        series = Series("pairs", "var(--c1)", np.zeros(0))
        chart = step_chart("Complexity: 1 easy, 0 hard", np.array(edges, float), [(series, shares)])
    else:
        chart = histogram_chart("Complexity: 1 easy, 0 hard", [Series("pairs", "var(--c1)", complexities)])
    return {
        "facts": _facts(said) + _facts(said.get("pairs"), "pairs: ") + _facts(said.get("reasons")),
        "chart": chart,
    }


def run_section(root: Path, names: Sequence[str] | None) -> dict[str, Any] | None:
    """Training curves of the runs (all there are if None), one chart a logged number."""
    folders = sorted(
        p for p in (root / "runs").glob("*") if p.is_dir() and (names is None or p.name in names)
    )
    logs = {folder.name: _log(folder) for folder in folders}
    logs = {name: lines for name, lines in logs.items() if lines}
    if not logs:
        return None
    logged = {key for lines in logs.values() for line in lines for key in line}
    others = sorted(k for k in logged if k.startswith("eval/") and k.removeprefix("eval/") not in CURVES)[:8]
    colour = {name: f"var(--c{i % NUM_COLOURS + 1})" for i, name in enumerate(logs)}
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
    paths = [("recipe", root / "recipe.yaml")]
    for folder in sorted((root / "runs").glob("*")):
        if names is None or folder.name in names:
            paths += [(f"run {folder.name}: {f}", folder / f) for f in ("recipe.yaml", "settings.json")]
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
