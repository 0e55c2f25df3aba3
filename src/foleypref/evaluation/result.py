"""The result of an evaluation as data: columns are metrics, rows are systems, numbers have intervals.

Kept as workspace/evaluations/<name>.json; NaN ("not measured") is null there. `evaluate` writes it, the table
and the report read it.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, TypeAdapter

from foleypref.media.files import write_atomic
from foleypref.workspace.records import GROUND_TRUTH
from foleypref.workspace.store import Workspace

Number = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]
"""A number of the table: NaN where the file says null."""


@dataclass(frozen=True)
class Column:
    """One metric of the table.

    mark: "*" if the reward reads this dimension, "†" if it reads another output of the same scorer, else "".
    """

    label: str
    unit: str
    reads: tuple[str, ...]
    higher_is_better: bool
    oracle: bool  # its scorer is told the truth; simulated ratings are made from it
    mark: str
    metric: dict[str, Any]  # the part as data

    @property
    def dimension(self) -> str | None:
        """The scored dimension that this column averages, or None for a metric over sets."""
        return self.metric.get("dimension")


@dataclass(frozen=True)
class Difference:
    """A system minus the base on the clips that both have scored; `percent` is relative to |base|.

    Percentages are NaN if they mean nothing: for decibels, or if the base's interval holds zero.
    """

    value: Number
    low: Number
    high: Number
    n: int
    percent: Number
    percent_low: Number
    percent_high: Number


@dataclass(frozen=True)
class Cell:
    """One metric of one system: the mean over training seeds with its 95 % interval."""

    value: Number
    low: Number
    high: Number
    n: int  # fewest scored clips among the seeds
    unscored: int
    by_seed: tuple[Number, ...]  # each training seed's own value
    difference: Difference | None  # None for the base and the ground truth


@dataclass(frozen=True)
class SystemRow:
    """One system at one guidance scale; `cells` in the order of the columns."""

    system: str
    weights: tuple[str, ...]
    guidance_scale: float
    num_clips: int
    cells: tuple[Cell, ...]

    @property
    def is_truth(self) -> bool:
        """True for the clips' own sound."""
        return self.system == GROUND_TRUTH


@dataclass(frozen=True)
class Missing:
    """A clip that was left out at a guidance scale because these systems have no candidate for it."""

    clip_id: str
    guidance_scale: float
    systems: tuple[str, ...]


@dataclass(frozen=True)
class Evaluation:
    """A whole before/after table with everything that is needed to make it again."""

    name: str
    base: str
    columns: tuple[Column, ...]
    rows: tuple[SystemRow, ...]
    missing: tuple[Missing, ...]
    left_out: tuple[str, ...]  # keys of asked-for metrics whose scorer has judged nothing
    versions: dict[str, str]  # scorer -> version
    settings: dict[str, Any]  # of `evaluate`, resolved

    @property
    def guidance_scales(self) -> tuple[float, ...]:
        """The guidance scales of the table, in its order."""
        return tuple(dict.fromkeys(row.guidance_scale for row in self.rows))

    @property
    def shown_rows(self) -> tuple[SystemRow, ...]:
        """The rows to print: a ground truth that is equal at every guidance scale comes once, last."""
        truths = {repr(row.cells): row for row in self.rows if row.is_truth}
        others = (row for row in self.rows if not row.is_truth)
        return (*others, *truths.values()) if len(truths) == 1 else self.rows

    def group(self, oracle: bool) -> list[int]:
        """Return the indices of the columns of oracles, or of judges."""
        return [i for i, column in enumerate(self.columns) if column.oracle == oracle]


def save_evaluation(workspace: Workspace, evaluation: Evaluation) -> Path:
    """Write the evaluation atomically and return its path; the same evaluation gives the same bytes."""
    path = workspace.evaluation(evaluation.name)
    write_atomic(path, json.dumps(_nulls(asdict(evaluation)), indent=1, ensure_ascii=False).encode())
    return path


def load_evaluation(workspace: Workspace, name: str) -> Evaluation:
    """Read an evaluation by its name. Raises ValueError if there is none."""
    path = workspace.evaluation(name)
    if not path.exists():
        there = ", ".join(sorted(p.stem for p in path.parent.glob("*.json"))) or "none"
        raise ValueError(f"no evaluation is called {name!r} (there are: {there}); run `foleypref evaluate`")
    return TypeAdapter(Evaluation).validate_python(json.loads(path.read_text()))


def _nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _nulls(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_nulls(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
