"""The report's tables and charts of the evaluation, and the colour of each system, for the template.

Fits, pairs and runs are in `sections`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from foleypref.evaluation.charts import COLOURS, Interval, Series, histogram_chart, interval_chart
from foleypref.evaluation.result import Cell, Column, Evaluation, SystemRow
from foleypref.evaluation.table import (
    guidance,
    header,
    number,
    shown_name,
    signed,
    spread,
    system_name,
    verdict,
)
from foleypref.workspace.records import GROUND_TRUTH


def colours(evaluation: Evaluation) -> dict[str, str]:
    """Return a CSS colour per system; the base is grey, the ground truth has its own."""
    names = [row.system for row in evaluation.rows if row.system not in (GROUND_TRUTH, evaluation.base)]
    tuned = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(dict.fromkeys(names))}
    return {evaluation.base: "var(--c0)", **tuned, GROUND_TRUTH: "var(--truth)"}


def tables(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return the table of the judges and that of the oracles, each as heads and rows of cells."""
    groups = []
    for oracle in (False, True):
        if columns := evaluation.group(oracle):
            heads = [header(evaluation.columns[i]) for i in columns]
            rows = [_table_row(evaluation, row, columns) for row in evaluation.shown_rows]
            groups.append({"oracle": oracle, "heads": heads, "rows": rows})
    return groups


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
    """Return one chart per metric: every system and guidance scale as a dot with its interval."""
    several, colour = len(evaluation.guidance_scales) > 1, colours(evaluation)
    charts = []
    for i, column in enumerate(evaluation.columns):
        items = []
        for row in evaluation.shown_rows:
            scale = f" @ {row.guidance_scale:g}" if several and not row.is_truth else ""
            name, cell = shown_name(row.system) + scale, row.cells[i]
            items.append(Interval(name, colour[row.system], cell.value, low=cell.low, high=cell.high))
        charts.append(interval_chart(header(column), items))
    return charts


def score_histograms(evaluation: Evaluation, scores: Mapping[str, Mapping[str, np.ndarray]]) -> list[Markup]:
    """Return one chart per dimension; `scores`: system -> "scorer/dimension" -> values over clips."""
    charts, colour = [], colours(evaluation)
    for column in evaluation.columns:
        if column.dimension is not None:
            series = [
                Series(shown_name(system), colour[system], values[column.dimension])
                for system, values in scores.items()
            ]
            charts.append(histogram_chart(header(column), series))
    return charts
