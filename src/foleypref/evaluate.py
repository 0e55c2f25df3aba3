"""Stage 7, evaluate: systems × metrics on held-out clips -> a before/after table with intervals.

Judges and oracles are told apart, and columns that the reward reads are marked. The intervals are computed in
`foleypref.evaluation.bootstrap`.
"""

from __future__ import annotations

from collections.abc import Callable

from pydantic import Field

from foleypref.evaluation.bootstrap import Bootstrap, Replicas
from foleypref.evaluation.compared_systems import Judgements, Sampling, Selection, select
from foleypref.evaluation.metric_sets import world_metrics, world_oracles
from foleypref.evaluation.metrics import Metric, MetricPart
from foleypref.evaluation.result import Cell, Column, Evaluation, Missing, SystemRow, save_evaluation
from foleypref.evaluation.table import render_table
from foleypref.scoring.bootstrap import Resamples
from foleypref.settings.parts import Settings, find
from foleypref.workspace.dimensions import Dimension, scorers_of
from foleypref.workspace.records import GROUND_TRUTH, Candidate
from foleypref.workspace.store import Workspace
from foleypref.workspace.walk import progress_bar, say

__all__ = ["EvaluateSettings", "evaluate", "render_table", "world_metrics", "world_oracles"]


class EvaluateSettings(Settings):
    """Which systems are compared, and how. `systems`: label -> a weights fingerprint per training seed."""

    name: str = "evaluation"
    systems: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    base: str = "base"  # the label that differences are taken to
    compute: dict[str, float] = Field(default_factory=dict)  # label -> network passes it cost, for the table
    split: str = "test"
    guidance_scales: tuple[float, ...] = (4.5,)
    solver: str = "euler"  # of the candidates that are compared; "file": imported sounds
    num_steps: int = 25
    seeds: tuple[int, ...] = (0,)  # noise seeds of the candidates
    metrics: tuple[MetricPart, ...] = Field(default_factory=world_metrics)
    oracles: tuple[MetricPart, ...] = Field(default_factory=world_oracles)
    reward_dimensions: tuple[str, ...] = ()  # "scorer/dimension" keys that the reward was fitted on: marked *
    versions: dict[str, str] = Field(default_factory=dict)  # scorer -> version, if a scorer ran in several
    common_clips: bool = True  # False: each system on all its clips, as av-benchmark does
    num_resamples: int = Field(1000, ge=1)
    bootstrap_seed: int = 0


def evaluate(workspace: Workspace, settings: EvaluateSettings) -> Evaluation:
    """Measure the systems, write workspace/evaluations/<name>.json and print the table.

    Raises ValueError for settings that do not fit the workspace, and if nothing has been scored.
    """
    _check_settings(workspace, settings)
    s, selections = settings, dict[float, Selection]()
    for scale in s.guidance_scales:
        sampling = Sampling(s.split, s.solver, s.num_steps, s.seeds, guidance_scale=scale)
        selections[scale] = select(workspace, s.systems, sampling, common=s.common_clips)
    asked = [(metric, False) for metric in s.metrics] + [(metric, True) for metric in s.oracles]
    keys = [key for metric, _ in asked for key in metric.reads]
    everything = set().union(*(selection.all_candidates() for selection in selections.values()))
    judgements = Judgements(workspace, keys, everything, settings.versions)
    measured = [(m, oracle) for m, oracle in asked if not set(m.reads) & set(judgements.absent)]
    if not measured:
        raise ValueError(f"none of {', '.join(judgements.absent)} has been scored; run score first")
    rows: list[SystemRow] = []
    metrics = [metric for metric, _ in measured]
    with progress_bar("evaluate", len(selections) * len(metrics)) as advance:
        for scale, selection in selections.items():
            rows += _rows_at(settings, metrics, judgements, selection, scale, advance)
    evaluation = Evaluation(
        name=settings.name,
        base=settings.base,
        columns=tuple(_column(metric, oracle, settings.reward_dimensions) for metric, oracle in measured),
        rows=tuple(rows),
        missing=tuple(
            Missing(clip_id, scale, systems)
            for scale, selection in selections.items()
            for clip_id, systems in selection.missing.items()
        ),
        left_out=judgements.absent,
        versions=judgements.versions,
        settings=settings.model_dump(mode="json"),
    )
    path = save_evaluation(workspace, evaluation)
    say(render_table(evaluation))
    say(f"evaluate: {len(rows)} rows × {len(measured)} metrics -> {path}")
    return evaluation


def _check_settings(workspace: Workspace, settings: EvaluateSettings) -> None:
    if not settings.systems or any(not weights for weights in settings.systems.values()):
        there = ", ".join(sorted({c.weights for c in workspace.read(Candidate)} - {""})) or "none"
        raise ValueError(f"`systems` maps labels to weights fingerprints; candidates were made with: {there}")
    if settings.base not in settings.systems:
        raise ValueError(f"the base {settings.base!r} is not among the systems {', '.join(settings.systems)}")
    if GROUND_TRUTH in settings.systems:
        raise ValueError(f"{GROUND_TRUTH!r} is always there; give the system another label")
    for metric in settings.metrics:
        for key in metric.reads:
            if _needs_truth(Dimension.parse(key).scorer):
                raise ValueError(f"{key} is told the truth: put its metric under `oracles`, not `metrics`")


def _needs_truth(scorer: str) -> bool:
    try:
        needs: object = getattr(find("scorers", scorer), "needs", frozenset())
    except ValueError:  # a scorer that is not in the drawer, or whose extra is not installed
        return False
    return isinstance(needs, frozenset) and "truth" in needs


def _column(metric: Metric, oracle: bool, reward_dimensions: tuple[str, ...]) -> Column:
    mark = "†" if set(scorers_of(reward_dimensions)) & set(scorers_of(metric.reads)) else ""
    if set(metric.reads) & set(reward_dimensions):
        mark = "*"
    return Column(
        label=metric.label or ", ".join(Dimension.parse(key).name for key in metric.reads),
        unit=metric.unit,
        reads=metric.reads,
        higher_is_better=metric.higher_is_better,
        oracle=oracle,
        mark=mark,
        metric=metric.settings(),
    )


def _rows_at(
    settings: EvaluateSettings,
    metrics: list[Metric],
    judgements: Judgements,
    selection: Selection,
    guidance_scale: float,
    advance: Callable[[int], None],
) -> list[SystemRow]:
    clip_ids, truth = selection.clip_ids, selection.truth
    systems: dict[str, Replicas] = {
        label: {key: judgements.rows(clip_ids, ids, truth) for key, ids in replicas.items()}
        for label, replicas in selection.candidates.items()
    }
    if any(clip_id in truth for clip_id in clip_ids):
        rows = judgements.rows(clip_ids, truth, truth)
        systems[GROUND_TRUTH] = {("", seed): rows for seed in settings.seeds[:1]}
    cells = {label: list[Cell]() for label in systems}
    for metric in metrics:
        num = metric.num_resamples(settings.num_resamples)
        resamples = Resamples(len(clip_ids), settings.seeds, num, settings.bootstrap_seed)
        bootstrap = Bootstrap(metric, resamples)
        for label, replicas in systems.items():
            base = None if label in (settings.base, GROUND_TRUTH) else systems[settings.base]
            cells[label].append(bootstrap.cell(replicas, base))
        advance(1)
    weights = {**settings.systems, GROUND_TRUTH: ()}
    return [
        SystemRow(label, weights[label], guidance_scale, len(clip_ids), tuple(cells[label]))
        for label in systems
    ]
