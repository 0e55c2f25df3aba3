"""The before/after table as plain text, and the words that the report shares with it."""

from __future__ import annotations

import io
import math

from rich import box
from rich.console import Console
from rich.table import Table

from foleypref.evaluation.result import Cell, Column, Evaluation, SystemRow
from foleypref.workspace.records import GROUND_TRUTH

ORACLES = (
    "oracles: told the truth of the clip; held out from the reward's inputs but, where ratings are "
    "simulated, not from its labels, which are made from the oracles' scores"
)
NOTES = {
    "*": "* the reward was fitted on this very dimension",
    "†": "† the reward reads another output of the same scorer",
}

PASSES = (
    "passes: forwards of one latent through the network, a backward counted as two, for the candidates that "
    "a row learned from and for its training"
)


def number(value: float, unit: str = "") -> str:
    """Return three significant digits without an exponent; "–" if nothing was measured."""
    if not math.isfinite(value):
        return "–"
    digits = 2 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(digits, 4)}f}".replace("-", "−") + (f" {unit}" if unit else "")


def signed(value: float, suffix: str = "") -> str:
    """Return the number with its sign, also a plus."""
    text = number(value)
    return text if text == "–" else ("" if value < 0 else "+") + text + suffix


def spread(value: float, low: float, high: float) -> str:
    """Return the interval as "±x" if its sides are about even, else as "[low, high]"."""
    if not (math.isfinite(low) and math.isfinite(high)) or high - low < 1e-9:
        return ""
    down, up = value - low, high - value
    if min(down, up) > 0 and max(down, up) < 1.5 * min(down, up):
        return f"±{number((high - low) / 2)}"
    return f"[{number(low)}, {number(high)}]"


def header(column: Column) -> str:
    """Return a column's head, as in "DeSync (s) ↓*": name, unit, good direction, mark."""
    unit = f" ({column.unit})" if column.unit else ""
    return f"{column.label}{unit} {'↑' if column.higher_is_better else '↓'}{column.mark}"


def verdict(cell: Cell, column: Column) -> str:
    """Return "better" or "worse" if the interval of the difference to the base excludes zero, else ""."""
    d = cell.difference
    if d is None or not (d.low > 0 or d.high < 0):
        return ""
    return "better" if (d.value > 0) == column.higher_is_better else "worse"


def shown_name(system: str) -> str:
    """Return a system's name as users read it."""
    return "ground truth" if system == GROUND_TRUTH else system


def system_name(row: SystemRow) -> str:
    """Return the name of a row, with the number of its training seeds if there are several."""
    return shown_name(row.system) + (f" ({len(row.weights)} seeds)" if len(row.weights) > 1 else "")


def compute(evaluation: Evaluation, row: SystemRow) -> str:
    """Return the thousands of network passes that the row cost, "" if the settings do not say."""
    passes = evaluation.settings.get("compute", {}).get(row.system)
    return "" if passes is None else f"{passes / 1000:,.3g}k"


def guidance(row: SystemRow) -> str:
    """Return the row's guidance scale; the ground truth has none."""
    return "" if row.is_truth else f"{row.guidance_scale:g}"


def notes(evaluation: Evaluation) -> list[str]:
    """Return the lines under the table: marks, oracles, unscored and missing clips, what was left out."""
    marks = {column.mark for column in evaluation.columns}
    lines = [text for mark, text in NOTES.items() if mark in marks]
    if evaluation.group(oracle=True):
        lines.append(ORACLES)
    if evaluation.settings.get("compute"):
        lines.append(PASSES)
    lines += _unscored(evaluation)
    for scale in evaluation.guidance_scales:
        missing = [m for m in evaluation.missing if m.guidance_scale == scale]
        if missing:
            named = ", ".join(f"{m.clip_id} ({', '.join(m.systems)})" for m in missing[:10])
            more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
            count = f"{len(missing)} clips"
            if evaluation.settings.get("common_clips", True):
                count = f"guidance {scale:g}: {count} left out"
            lines.append(f"{count}, no candidate: {named}{more}")
    if evaluation.left_out:
        lines.append(f"not scored, so not in the table: {', '.join(evaluation.left_out)}")
    return lines


def _unscored(evaluation: Evaluation) -> list[str]:
    lines = []
    for index, column in enumerate(evaluation.columns):
        counts = [
            f"{system_name(row)} {row.cells[index].unscored} of {row.num_clips}"
            for row in evaluation.rows
            if row.cells[index].unscored
        ]
        if counts:
            lines.append(f"unscored on {column.label}: {', '.join(dict.fromkeys(counts))}")
    return lines


def caption(evaluation: Evaluation) -> str:
    """Return one line on the clips, the sampling and the intervals."""
    s = evaluation.settings
    if s["solver"] == "file":
        clips = f"{max(row.num_clips for row in evaluation.rows)} clips"
    else:
        scales = [f"{row.num_clips} clips at guidance {row.guidance_scale:g}" for row in evaluation.rows]
        clips = f"{'; '.join(dict.fromkeys(scales))}; {s['solver']}, {s['num_steps']} steps"
    return (
        f"{evaluation.name}: split {s['split']}, {clips}; 95 % intervals from {s['num_resamples']} "
        f"resamples; Δ is the paired difference to {evaluation.base}"
    )


def render_table(evaluation: Evaluation, width: int = 180) -> str:
    """Return plain text: judges, then oracles; ▲ and ▼ if an interval says better or worse than the base."""
    sink = io.StringIO()
    console = Console(file=sink, width=width, highlight=False, color_system=None)
    console.print(caption(evaluation), markup=False)
    for oracle, title in ((False, "judges"), (True, "oracles")):
        if columns := evaluation.group(oracle):
            console.print(_text_table(evaluation, title, columns))
    for line in notes(evaluation):
        console.print(line, markup=False)
    return sink.getvalue()


def _text_table(evaluation: Evaluation, title: str, columns: list[int]) -> Table:
    table = Table(title=title, box=box.SIMPLE, title_justify="left", show_edge=False)
    table.add_column("system", no_wrap=True)
    if len(evaluation.guidance_scales) > 1:
        table.add_column("guidance", justify="right")
    if stated := bool(evaluation.settings.get("compute")):
        table.add_column("passes", justify="right")
    for index in columns:
        table.add_column(header(evaluation.columns[index]), justify="right", no_wrap=True)
    for row in evaluation.shown_rows:
        scale = [guidance(row)] if len(evaluation.guidance_scales) > 1 else []
        cells = ["\n".join(_lines(row.cells[i], evaluation.columns[i])) for i in columns]
        table.add_row(system_name(row), *scale, *([compute(evaluation, row)] if stated else []), *cells)
    return table


def _lines(cell: Cell, column: Column) -> list[str]:
    lines = [f"{number(cell.value)} {spread(cell.value, cell.low, cell.high)}".strip()]
    if len(cell.by_seed) > 1:
        lines.append("seeds " + ", ".join(number(value) for value in cell.by_seed))
    d = cell.difference
    if d is not None:
        arrow = {"better": " ▲", "worse": " ▼", "": ""}[verdict(cell, column)]
        percent = f" ({signed(d.percent, ' %')})" if math.isfinite(d.percent) else ""
        lines += [f"Δ {signed(d.value)}{percent}{arrow}", f"[{number(d.low)}, {number(d.high)}]"]
    return lines
