"""The evaluate stage on a workspace whose numbers are known."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from foleypref.evaluate import EvaluateSettings, evaluate, render_table
from foleypref.evaluation.metrics.mean import Mean
from foleypref.evaluation.result import Evaluation, SystemRow, load_evaluation
from foleypref.workspace.records import GROUND_TRUTH, Score
from foleypref.workspace.store import Workspace
from tests.evaluated_workspace import GAIN, REWARD, SCORERS, SYSTEMS, fill

SETTINGS = EvaluateSettings(systems=SYSTEMS, reward_dimensions=REWARD, num_resamples=60)


@pytest.fixture
def filled(workspace: Workspace) -> Workspace:
    fill(workspace)
    return workspace


def row_of(evaluation: Evaluation, system: str) -> SystemRow:
    return next(row for row in evaluation.rows if row.system == system)


def column_of(evaluation: Evaluation, label: str) -> int:
    return next(i for i, column in enumerate(evaluation.columns) if column.label == label)


def test_values_and_differences(filled: Workspace) -> None:
    evaluation = evaluate(filled, SETTINGS)
    base, tuned, truth = (row_of(evaluation, s) for s in ("base", "tuned", GROUND_TRUTH))
    assert base.num_clips == tuned.num_clips == truth.num_clips == 23
    i = column_of(evaluation, "semantic")
    gain = SCORERS["world_semantic/similarity"][1]
    cell = tuned.cells[i]
    assert cell.value == pytest.approx(np.mean(cell.by_seed))
    assert len(cell.by_seed) == 2
    assert cell.difference is not None
    assert cell.difference.value == pytest.approx(0.9 * gain, abs=0.5 * gain)
    assert cell.difference.low < cell.difference.value < cell.difference.high
    assert cell.difference.percent == pytest.approx(100 * cell.difference.value / base.cells[i].value)
    assert base.cells[i].difference is None
    assert truth.cells[i].value > cell.value > base.cells[i].value
    assert math.isnan(tuned.cells[column_of(evaluation, "noise floor")].difference.percent)  # type: ignore[union-attr]
    assert abs(truth.cells[column_of(evaluation, "Fréchet")].value) < 1e-6


def test_value_is_the_mean_of_the_scores(filled: Workspace) -> None:
    evaluation = evaluate(filled, SETTINGS)
    missing = {m.clip_id for m in evaluation.missing}
    from foleypref.workspace.records import Candidate

    ids = {
        c.candidate_id
        for c in filled.read(Candidate)
        if c.weights == "weights-base" and c.clip_id not in missing
    }
    scores = [s.value for s in filled.read(Score) if s.candidate_id in ids and s.dimension == "desync_s"]
    assert row_of(evaluation, "base").cells[column_of(evaluation, "DeSync")].value == pytest.approx(
        np.mean(scores)
    )
    assert set(GAIN) >= {"base"}


def test_missing_clips_and_unscored_rows_are_named(filled: Workspace) -> None:
    evaluation = evaluate(filled, SETTINGS)
    (missing,) = evaluation.missing
    assert missing.systems == ("tuned",)
    cell = row_of(evaluation, "base").cells[column_of(evaluation, "onset F1")]
    assert (cell.n, cell.unscored) == (22, 1)
    difference = row_of(evaluation, "tuned").cells[column_of(evaluation, "onset F1")].difference
    assert difference is not None
    assert difference.n == 22
    text = render_table(evaluation)
    assert missing.clip_id in text
    assert "unscored on onset F1: base 1 of 23" in text
    assert "pesq/pesq" in text  # asked for and not run
    assert evaluation.left_out == ("pesq/pesq",)


def test_marks_and_groups(filled: Workspace) -> None:
    evaluation = evaluate(filled, SETTINGS)
    marks = {column.label: column.mark for column in evaluation.columns}
    assert (marks["semantic"], marks["IS"], marks["Fréchet"], marks["onset F1"]) == ("*", "†", "†", "")
    assert [evaluation.columns[i].label for i in evaluation.group(True)] == [
        "onset F1", "onset error", "level correlation", "class correct", "noise floor",
    ]  # fmt: skip
    assert "semantic ↑*" in render_table(evaluation)


def test_a_system_against_itself_differs_by_exactly_zero(filled: Workspace) -> None:
    twins = {"base": SYSTEMS["tuned"], "twin": SYSTEMS["tuned"]}
    evaluation = evaluate(filled, SETTINGS.model_copy(update={"systems": twins}))
    for cell in row_of(evaluation, "twin").cells:
        assert cell.difference is not None
        assert (cell.difference.value, cell.difference.low, cell.difference.high) == (0, 0, 0)


def test_seeds_widen_the_interval(filled: Workspace) -> None:
    """Two seeds that differ a lot: the interval knows, though each seed's own is narrow."""
    i = 0
    metric = (Mean(dimension="world_semantic/similarity"),)
    changes = {"metrics": metric, "oracles": (), "num_resamples": 300}
    apart = {"base": ("weights-base",), "tuned": ("weights-base", "weights-tuned-0")}
    both = row_of(evaluate(filled, SETTINGS.model_copy(update={**changes, "systems": apart})), "tuned").cells[
        i
    ]
    one = row_of(evaluate(filled, SETTINGS.model_copy(update=changes)), "base").cells[i]
    assert both.high - both.low > one.high - one.low


def test_file_round_trip_and_determinism(filled: Workspace) -> None:
    evaluation = evaluate(filled, SETTINGS)
    path = filled.evaluation(SETTINGS.name)
    first = path.read_bytes()
    json.loads(first)
    assert b"NaN" not in first
    again = load_evaluation(filled, SETTINGS.name)
    assert render_table(again) == render_table(evaluation)
    evaluate(filled, SETTINGS)
    assert path.read_bytes() == first


def test_two_guidance_scales(workspace: Workspace) -> None:
    fill(workspace, num_clips=12, guidance_scales=(1.0, 4.5))
    evaluation = evaluate(
        workspace, SETTINGS.model_copy(update={"guidance_scales": (1.0, 4.5), "num_resamples": 20})
    )
    assert evaluation.guidance_scales == (1.0, 4.5)
    assert len(evaluation.rows) == 6
    assert "guidance" in render_table(evaluation)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"systems": {}}, "weights-base"),
        ({"base": "nobody"}, "not among the systems"),
        ({"systems": {"base": ("weights-base",), "tuned": ("unknown",)}}, "no candidates of weights unknown"),
        ({"num_steps": 7}, "7 steps"),
        ({"metrics": (Mean(dimension="world_sync/nonsense"),)}, "world_sync/nonsense"),
        ({"metrics": (Mean(dimension="oracle_onset/onset_f1"),)}, "oracles"),
        ({"metrics": (Mean(dimension="pesq/pesq"),), "oracles": ()}, "run score first"),
        ({"name": "../up"}, "plain word"),
    ],
)
def test_errors_say_what_to_do(filled: Workspace, changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        evaluate(filled, SETTINGS.model_copy(update=changes))


def test_two_versions_of_a_scorer_must_be_chosen_from(filled: Workspace) -> None:
    old = next(s for s in filled.read(Score) if s.scorer == "world_sync")
    filled.append([Score.make(old.candidate_id, old.scorer, "2", old.dimension, 0.5)])
    with pytest.raises(ValueError, match="several versions"):
        evaluate(filled, SETTINGS)
    evaluation = evaluate(filled, SETTINGS.model_copy(update={"versions": {"world_sync": "1"}}))
    assert evaluation.versions["world_sync"] == "1"


def test_settings_survive_json() -> None:
    data = SETTINGS.model_dump(mode="json")
    assert EvaluateSettings(**json.loads(json.dumps(data))) == SETTINGS
