"""What a model card says of measurements: tables to read, and results as hubs index them."""

from __future__ import annotations

import itertools
import math
import re
from typing import Any

from foleypref.evaluation.result import Cell, Column
from foleypref.evaluation.table import header, number, signed, spread, verdict
from foleypref.hub.provenance import Measured, Provenance
from foleypref.workspace.markdown import code, table

_HELD_OUT = re.compile(r"eval/(loss|reward|rewards/\w+|watch/.+)")  # no bins, no sources


def metrics(provenance: Provenance) -> str:
    """Every evaluation with this run in it, and what it held out of training."""
    blocks = [_measured(one) for one in provenance.measured]
    logs = provenance.result.get("logs", {})
    held_out = sorted(key for key in logs if _HELD_OUT.fullmatch(key) and _real(logs[key]))
    if held_out:
        rows = [(code(key), number(logs[key])) for key in held_out]
        blocks.append("On the held-out items of training, at its end:\n\n" + table(("", ""), rows, 1))
    return "\n\n".join(blocks) or "Nobody has evaluated it yet."


def _measured(one: Measured) -> str:
    """Return one evaluation: the base, this row, and the paired difference, with intervals."""
    e, s, scale = one.evaluation, one.evaluation.settings, one.row.guidance_scale
    base = next((r for r in e.rows if r.system == e.base and r.guidance_scale == scale), None)
    name, seeds = code(one.row.system), len(one.row.weights)
    shown = (True, base is not one.row, True, seeds > 1, base is not one.row)
    rows = [["metric", code(e.base), name, "this seed", f"difference to {code(e.base)}, paired"]]
    for index, (column, cell) in enumerate(zip(e.columns, one.row.cells, strict=True)):
        before = "" if base is None else _value(base.cells[index])
        own = number(cell.by_seed[one.seed]) if seeds > 1 else ""
        rows.append([code(header(column)), before, _value(cell), own, _difference(cell, column)])
    heads, *body = [[*itertools.compress(row, shown)] for row in rows]
    title = (
        f"{code(e.name)}: split {code(s.get('split', ''))}, {one.row.num_clips} clips, guidance {scale:g}, "
        f"{code(s.get('solver', ''))} with {s.get('num_steps', 0)} steps, row {name}"
        + (f" (mean of {seeds} training seeds, of which this is one)" if seeds > 1 else "")
        + "; 95 % intervals; `*` marks what the reward read, `†` another output of such a judge."
    )
    return f"{title}\n\n{table(heads, body, len(heads) - 1)}"


def _value(cell: Cell) -> str:
    return f"{number(cell.value)} {spread(cell.value, cell.low, cell.high)} (n={cell.n})".replace("  ", " ")


def _difference(cell: Cell, column: Column) -> str:
    if (d := cell.difference) is None:
        return ""
    return f"{signed(d.value)} {spread(d.value, d.low, d.high)} {verdict(cell, column)}".strip()


def results(measured: list[Measured]) -> list[dict[str, Any]]:
    """Each measurement once: evaluations that differ in what they compare with have the same values."""
    by_values: dict[str, dict[str, Any]] = {}
    for one in measured:
        result = _index(one)
        values = f"{one.row.guidance_scale} {result['dataset']['split']} {result['metrics']}"
        by_values.setdefault(values, result)
    return list(by_values.values())


def _index(one: Measured) -> dict[str, Any]:
    """A result as hubs index it: this run's own value; the interval is the row's, over all its seeds."""
    metrics = [
        {
            "type": ", ".join(column.reads),
            "name": header(column),
            "value": round(cell.by_seed[one.seed], 6),
            "args": {"mean": cell.value, "low": cell.low, "high": cell.high, "clips": cell.n},
        }
        for column, cell in zip(one.evaluation.columns, one.row.cells, strict=True)
        if all(map(_real, (cell.by_seed[one.seed], cell.value, cell.low, cell.high)))
    ]
    split = str(one.evaluation.settings.get("split", ""))
    dataset = {"type": "foleypref-workspace", "name": one.evaluation.name, "split": split}
    return {"task": {"type": "video-to-audio"}, "dataset": dataset, "metrics": metrics}


def _real(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
