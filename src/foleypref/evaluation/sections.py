"""The report's sections beside the evaluation: fits, pairs, runs and settings.

Each section is read from files of the workspace and left out if there are none. A file that another version
wrote with other keys costs its own section and nothing else.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from markupsafe import Markup
from pydantic import BaseModel, Field, ValidationError

from foleypref.evaluation.charts import COLOURS, Series, bar_chart, histogram_chart, line_chart, step_chart
from foleypref.evaluation.result import Evaluation
from foleypref.evaluation.table import number
from foleypref.scoring.fit_report import FitReport
from foleypref.training.log import read_metrics
from foleypref.workspace.dimensions import Dimension
from foleypref.workspace.paths import RunFiles, WorkspacePaths

CURVES = ("loss", "rewards/margins", "rewards/accuracies", "flow/winner_delta", "flow/loser_delta")
COMPLEXITY = "Complexity: 1 easy, 0 hard"
MAX_OTHER_CURVES = 8

Facts = list[tuple[str, str]]
M = TypeVar("M", bound=BaseModel)


class FitSection(NamedTuple):
    """One fitted AudioScore, ready to show."""

    name: str
    facts: Facts
    charts: list[Markup]


class PairsSection(NamedTuple):
    """The outcome of the last `pair`, ready to show."""

    facts: Facts
    chart: Markup


class TrainingSection(NamedTuple):
    """Training curves, one chart per logged number."""

    runs: list[tuple[str, str]]  # name, colour
    charts: list[Markup]


class PairCounts(BaseModel):
    """The part of pairs.json that the report shows."""

    audioscore: str
    num_clips: int
    num_candidates: int
    num_unscored: int
    settled: int
    pairs: dict[str, int]
    others: dict[str, int] = Field(default_factory=dict)
    reasons: dict[str, int]
    histogram_edges: list[float]
    histogram: list[int]


def audioscore_sections(workspace: WorkspacePaths) -> list[FitSection]:
    """Return every fitted AudioScore with its numbers, reliability plot and contributions."""
    return [
        FitSection(path.stem, _facts(fit.model_dump(exclude={"inputs"})), _fit_charts(fit))
        for path in sorted(workspace.audioscores.glob("*.json"))
        if (fit := _read(FitReport, path)) is not None
    ]


def _fit_charts(fit: FitReport) -> list[Markup]:
    charts = []
    if points := [(b["confidence"], b["accuracy"]) for b in fit.reliability if b["n"]]:
        x, y = np.array(points, float).T
        series = [Series("AudioScore", COLOURS[0], y, x)]
        charts.append(line_chart("Reliability: accuracy over confidence", series, diagonal=True))
    drops = sorted(((name, c.accuracy_drop) for name, c in fit.contributions.items()), key=lambda d: -d[1])
    names = [Dimension.parse(name).scorer.removeprefix("world_") for name, _ in drops]
    title = "Accuracy lost when a dimension is shuffled"
    return [*charts, bar_chart(title, names, [drop for _, drop in drops])]


def pairs_section(workspace: WorkspacePaths, complexities: np.ndarray) -> PairsSection | None:
    """Return the counts of pairs.json and the histogram of complexity, from there or from the pairs."""
    counts = _read(PairCounts, workspace.pairs_report())
    if counts is None and not complexities.size:
        return None
    if counts is None or not sum(counts.histogram):
        chart = histogram_chart(COMPLEXITY, [Series("pairs", COLOURS[0], complexities)])
        return PairsSection(_facts(counts.model_dump()) if counts else [], chart)
    shares = np.array(counts.histogram, float) / sum(counts.histogram)
    series = Series("pairs", COLOURS[0], np.zeros(0))
    facts = [
        *_facts(counts.model_dump()),
        *_facts(counts.pairs, "pairs: "),
        *_facts(counts.others, "pairs left in place: "),
        *_facts(counts.reasons),
    ]
    return PairsSection(facts, step_chart(COMPLEXITY, np.array(counts.histogram_edges), [(series, shares)]))


def run_section(workspace: WorkspacePaths, names: Sequence[str] | None) -> TrainingSection | None:
    """Return the training curves of the runs called `names`, or of all; None if nothing was logged."""
    folders = _run_folders(workspace, names)
    logs = {folder.name: lines for folder in folders if (lines := _log(folder))}
    if not logs:
        return None
    logged = {key for lines in logs.values() for line in lines for key in line}
    held_out = sorted(key for key in logged if key.startswith("eval/"))
    others = [key for key in held_out if key.removeprefix("eval/") not in CURVES]
    colour = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(logs)}
    charts = []
    for key in (*CURVES, *others[:MAX_OTHER_CURVES]):
        series = [
            Series(f"{name} {shown}", colour[name], *_curve(lines, shown), dashed=shown != key)
            for name, lines in logs.items()
            for shown in (key, f"eval/{key}")
        ]
        if any(len(s.y) for s in series):
            charts.append(line_chart(key, series))
    return TrainingSection(list(colour.items()), charts)


def _run_folders(workspace: WorkspacePaths, names: Sequence[str] | None) -> list[Path]:
    return [folder for folder in workspace.run_folders() if names is None or folder.name in names]


def _log(folder: Path) -> list[dict[str, Any]]:
    try:
        return read_metrics(folder)
    except ValueError:
        return []


def _curve(lines: Sequence[Mapping[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Return (y, x) of one logged number; steps at which it was not finite are left out."""
    points = [(line[key], line["step"]) for line in lines if line.get(key) is not None]
    y, x = np.array(points, float).reshape(-1, 2).T
    return y, x


def settings_texts(
    workspace: WorkspacePaths, evaluation: Evaluation, names: Sequence[str] | None
) -> list[tuple[str, str]]:
    """Return (title, text) of the resolved recipe, each run's settings and the evaluation's."""
    paths = [("recipe", workspace.recipe)]
    for folder in _run_folders(workspace, names):
        for path in (folder / "recipe.yaml", RunFiles(folder).settings):
            paths.append((f"run {folder.name}: {path.name}", path))
    texts = [(title, path.read_text("utf-8", errors="replace")) for title, path in paths if path.is_file()]
    settings = evaluation.settings | {"scorer versions": evaluation.versions}
    return [*texts, ("evaluation", json.dumps(settings, indent=1, ensure_ascii=False))]


def _facts(values: Mapping[str, Any], prefix: str = "") -> Facts:
    """Return the numbers and short words among `values` as (name, text)."""
    return [
        (prefix + key.replace("_", " "), number(value) if isinstance(value, float) else str(value))
        for key, value in values.items()
        if (isinstance(value, int | float) and math.isfinite(value))
        or (isinstance(value, str) and len(value) < 40)
    ]


def _read(model: type[M], path: Path) -> M | None:
    try:
        return model.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
