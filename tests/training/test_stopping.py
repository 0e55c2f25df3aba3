"""The stop rule: fires where it should and only there, patience, resume, and whose weights are exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from foleypref import train
from foleypref.train import TrainResult
from foleypref.training import checkpoints, stopping
from foleypref.training.log import read_metrics
from foleypref.training.objectives.flow_dpo import FlowDPO
from foleypref.training.stopping import StopSettings, Verdict, check_limits, judge
from foleypref.workspace.store import Workspace
from tests.test_train import TWO_PROCESSES, _spawn, make_settings, metrics_without_time, train_elsewhere
from tests.tiny import TinyModel, fill_workspace

M = "eval/m"
LIMIT = 0.15


def lines(*values: float | None, every: int = 10, name: str = M) -> list[dict[str, Any]]:
    """Evaluations at 0, 10, 20 …"""
    return [{"step": every * i, name: value} for i, value in enumerate(values)]


def said(verdict: Verdict) -> tuple[bool, int]:
    return bool(verdict.reason), verdict.last_good_step


# -- the verdict ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "amount", "inside", "outside"),
    [
        ("above", 1.5, [1.0, 1.5, 0.0], 1.51),
        ("below", 0.5, [1.0, 0.5, 9.0], 0.49),
        ("rises_by", 0.1, [-2.0, -1.8, -9.0], -1.79),
        ("falls_by", 0.1, [2.0, 1.8, 9.0], 1.79),
        ("rises_from_best", 0.5, [4.0, 2.0, 3.0], 3.01),  # half as much again as the lowest, 2
        ("falls_from_best", 0.5, [2.0, 4.0, 2.0], 1.99),  # half of the highest, 4
    ],
)
def test_each_limit_fires_just_beyond_it(
    kind: str, amount: float, inside: list[float], outside: float
) -> None:
    settings = StopSettings.model_validate({kind: {M: amount}})
    assert said(judge(settings, lines(*inside))) == (False, 20)
    verdict = judge(settings, lines(*inside, outside, *inside))
    assert said(verdict) == (True, 20)
    side = "above" if kind in ("above", "rises_by", "rises_from_best") else "below"
    assert verdict.reason.startswith(f"{M} is {outside:.4g}, {side} ")
    assert f"(stop.{kind}" in verdict.reason
    assert verdict.reason.endswith(", step 30)")


def test_patience_counts_evaluations_in_a_row() -> None:
    settings = StopSettings(above={M: 1.0}, patience=3)
    assert said(judge(settings, lines(0, 2, 2, 0, 2, 2))) == (False, 30)
    assert said(judge(settings, lines(0, 2, 2, 0, 2, 2, 2))) == (True, 30)
    assert said(judge(settings, lines(0, 2, 2, 2, 0))) == (True, 0)


def test_lines_without_the_metric_say_nothing() -> None:
    settings = StopSettings(above={M: 1.0}, patience=2)
    between = [{"step": 5, "loss": 3.0}, {"step": 7, "eval/other": 1.0}]
    a, b, c = lines(0, 2, 2)
    assert said(judge(settings, [a, *between, b])) == (False, 0)
    assert said(judge(settings, [a, b, *between, c])) == (True, 0)


def test_all_metrics_must_be_within_for_weights_to_be_kept_and_each_has_its_own_count() -> None:
    settings = StopSettings(above={"eval/a": 1.0}, below={"eval/b": 0.0}, patience=2)

    def rows(*pairs: tuple[float, float]) -> list[dict[str, Any]]:
        return [{"step": i, "eval/a": a, "eval/b": b} for i, (a, b) in enumerate(pairs)]

    assert said(judge(settings, rows((0, 1), (2, 1), (0, -1), (2, 1), (0, 1)))) == (False, 4)
    assert said(judge(settings, rows((0, 1), (0, 1), (2, 1), (0, -1), (0, -1)))) == (True, 1)


def test_what_is_not_finite_is_outside() -> None:
    verdict = judge(StopSettings(above={M: 1.0}), lines(0, None))
    assert verdict == Verdict(f"{M} is not finite (stop.above, step 10)", 0)


def test_without_limits_nothing_stops() -> None:
    assert judge(StopSettings(), lines(0, 1e9, None)) == Verdict()


def test_the_first_evaluation_is_checked() -> None:
    first = {"step": 0, "eval/flow/winner_delta": 0.0, "eval/loss": 0.7}
    with pytest.raises(ValueError, match=r"no 'eval/winner_delta'; did you mean 'eval/flow/winner_delta'\?"):
        check_limits(StopSettings(above={"eval/winner_delta": 1.0}), first)
    with pytest.raises(ValueError, match="is 0 at step 0, a share of which is 0; use above or below"):
        check_limits(StopSettings(rises_by={"eval/flow/winner_delta": 0.1}), first)
    with pytest.raises(ValueError, match=r"outside already: eval/loss is 0\.7, above 0\.5"):
        check_limits(StopSettings(above={"eval/loss": 0.5}, patience=4), first)
    check_limits(StopSettings(above={"eval/loss": 0.7}), first)


# -- runs ----------------------------------------------------------------------------------------------------


def hostile(**changes: Any) -> Any:
    """A run whose winners are soon lost: a high learning rate, no winner term, evaluated at every other step.

    With `stop` at a limit that is passed after a few evaluations.
    """
    base: dict[str, Any] = {
        "objective": FlowDPO(beta=5.0),
        "curriculum": "uniform",  # two stages would depend on max_steps
        "learning_rate": 0.05,
        "max_steps": 26,
        "eval_steps": 2,
        "save_steps": 5,
        "logging_steps": 3,
        "per_device_train_batch_size": 8,
        "num_eval_pairs": 4,
        "stop": StopSettings(above={"eval/flow/winner_delta": LIMIT}, patience=2),
    }
    return make_settings(**base | changes)


def _deltas(folder: Path) -> dict[int, float]:
    found = read_metrics(folder)
    return {x["step"]: x["eval/flow/winner_delta"] for x in found if "eval/flow/winner_delta" in x}


def _expected(folder: Path) -> tuple[int, int]:
    """(step it must stop at, last step within limits) by hand, of a run without a rule."""
    row, kept = 0, 0
    for step, delta in sorted(_deltas(folder).items()):
        row = row + 1 if delta > LIMIT else 0
        if row == 2:
            return step, kept
        kept = step if row == 0 else kept
    raise AssertionError("this run loses no winners; make it more hostile")


@pytest.fixture(scope="module")
def free(tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """The run without a rule, every checkpoint there."""
    settings = hostile(stop=StopSettings(), save_steps=1, save_total_limit=None)
    return train_elsewhere(tmp_path_factory.mktemp("free"), settings)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """The run that its rule stops."""
    return train_elsewhere(tmp_path_factory.mktemp("unbroken"), hostile())


def _weights_at(workspace: Workspace, step: int, **changes: Any) -> dict[str, torch.Tensor]:
    """Return the weights that an unwatched run of `step` steps exports."""
    settings = hostile(stop=StopSettings(), max_steps=step, run_name=f"to-{step}", **changes)
    return load_file(train.train(workspace, settings).weights)


def _same(result: TrainResult, weights: dict[str, torch.Tensor]) -> bool:
    found = load_file(result.weights)
    return found.keys() == weights.keys() and all(torch.equal(found[key], weights[key]) for key in found)


def test_a_run_stops_and_exports_the_last_weights_within_limits(
    free: TrainResult, unbroken: TrainResult
) -> None:
    step, kept = _expected(free.folder)
    assert 0 < kept < step - 2 < 24
    assert (unbroken.steps, unbroken.exported_step) == (step, kept)
    assert unbroken.stopped.startswith("eval/flow/winner_delta is ")
    assert "at 2 evaluations in a row (stop.above, " in unbroken.stopped
    assert _same(unbroken, load_file(free.folder / f"checkpoint-{kept}" / "network.safetensors"))
    assert not _same(unbroken, load_file(free.weights))
    assert (free.stopped, free.exported_step) == ("", 26)


def test_a_stopped_run_says_so_and_is_finished(free: TrainResult, unbroken: TrainResult) -> None:
    watched = read_metrics(unbroken.folder)
    said = {"stopped": unbroken.stopped, "exported_step": unbroken.exported_step}
    assert watched[-1] == {"step": unbroken.steps, **said}
    assert unbroken.logs == watched[-2]
    assert said.items() <= json.loads((unbroken.folder / "result.json").read_text()).items()
    assert stopping.kept_steps(unbroken.folder) == []
    before = metrics_without_time(unbroken.folder).splitlines()[:-1]
    assert before == metrics_without_time(free.folder).splitlines()[: len(before)]
    assert train.train(Workspace(unbroken.folder.parent.parent), hostile()) == unbroken


def test_a_run_within_limits_is_the_run_without_them(filled: Workspace) -> None:
    free = train.train(filled, make_settings(run_name="free"))
    stop = StopSettings(above={"eval/flow/winner_delta": 1e3}, falls_from_best={"eval/flow/winner_err": 2.0})
    watched = train.train(filled, make_settings(run_name="watched", stop=stop))
    assert watched.weights.read_bytes() == free.weights.read_bytes()
    assert metrics_without_time(watched.folder) == metrics_without_time(free.folder)
    assert (watched.stopped, watched.exported_step, watched.steps) == ("", 12, 12)


def test_the_moving_average_of_the_right_step_is_exported(filled: Workspace) -> None:
    result = train.train(filled, hostile(ema_decay=0.7))
    assert result.stopped
    assert _same(result, _weights_at(filled, result.exported_step, ema_decay=0.7))


def test_adapters_of_the_right_step_are_exported(filled: Workspace) -> None:
    pytest.importorskip("peft")
    changes = {"use_peft": True, "learning_rate": 0.1}
    result = train.train(filled, hostile(**changes))
    assert result.stopped
    assert _same(result, _weights_at(filled, result.exported_step, **changes))
    merged = TinyModel(weights=str(result.weights)).load()
    assert merged.fingerprint != TinyModel().load().fingerprint


def test_a_metric_that_is_not_logged_is_refused_before_the_first_step(filled: Workspace) -> None:
    stop = StopSettings(above={"eval/reward": 1.0})
    with pytest.raises(ValueError, match="the evaluation at step 0 has no 'eval/reward'"):
        train.train(filled, hostile(stop=stop))
    with pytest.raises(ValueError, match="num_eval_pairs 0 has none"):
        train.train(filled, hostile(run_name="none", num_eval_pairs=0))


def test_weights_kept_for_a_resumption_are_those_it_needs(tmp_path: Path) -> None:
    state = {"w": torch.zeros(2)}
    for step in (0, 2, 4):
        stopping.keep(tmp_path, step, state)
    assert stopping.kept_steps(tmp_path) == [0, 4]  # without a checkpoint it begins again at 0
    (tmp_path / "checkpoint-4").mkdir()
    stopping.keep(tmp_path, 6, state)
    assert stopping.kept_steps(tmp_path) == [4, 6]
    stopping.keep(tmp_path, 8, state)
    assert stopping.kept_steps(tmp_path) == [4, 8]
    stopping.forget(tmp_path)
    assert list(tmp_path.glob("kept-*")) == []


class Killed(BaseException):
    """Raised in place of SIGKILL: the disk is left as it is, without another process."""


def _same_end(resumed: TrainResult, unbroken: TrainResult) -> None:
    assert (resumed.stopped, resumed.steps, resumed.exported_step) == (
        unbroken.stopped,
        unbroken.steps,
        unbroken.exported_step,
    )
    assert resumed.weights.read_bytes() == unbroken.weights.read_bytes()
    assert metrics_without_time(resumed.folder) == metrics_without_time(unbroken.folder)


@pytest.mark.parametrize("before", [1, 3, 5])
def test_a_run_killed_before_it_stops_goes_on_to_the_same_end(
    filled: Workspace, unbroken: TrainResult, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    """In the middle of its patience (with a checkpoint there), just before it, and earlier."""
    one_step = train._train_step

    def dies(run: Any) -> None:
        if run.step == unbroken.steps - before:
            raise Killed
        one_step(run)

    with monkeypatch.context() as patch:
        patch.setattr(train, "_train_step", dies)
        with pytest.raises(Killed):
            train.train(filled, hostile())
    resumed_at = max(checkpoints.steps(filled.run_folder("train")))
    assert (before == 1) == (resumed_at > unbroken.steps - 4)
    _same_end(train.train(filled, hostile()), unbroken)


@pytest.mark.slow
def test_a_killed_process_goes_on_to_the_same_end(filled: Workspace, unbroken: TrainResult) -> None:
    code, text = _spawn(filled, hostile(), KILL_AT_STEP=str(unbroken.steps - 1))
    assert code == -9, text
    _same_end(train.train(filled, hostile()), unbroken)


def test_a_run_killed_while_it_exports_stops_again_at_once(
    filled: Workspace, unbroken: TrainResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = hostile(save_steps=2)

    def dies(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(train, "write_atomic", dies)  # of result.json
        with pytest.raises(Killed):
            train.train(filled, settings)
    steps: list[int] = []
    monkeypatch.setattr(train, "_train_step", lambda run: steps.append(run.step))
    resumed = train.train(filled, settings)
    assert steps == []
    _same_end(resumed, unbroken)


@pytest.mark.slow
def test_two_processes_stop_where_one_does(workspace: Workspace) -> None:
    fill_workspace(workspace)
    shape = {"per_device_train_batch_size": 4}
    one = train.train(workspace, hostile(run_name="one", gradient_accumulation_steps=2, **shape))
    code, text = _spawn(workspace, hostile(run_name="two", **shape), *TWO_PROCESSES)
    assert code == 0, text
    two = train.train(
        workspace, hostile(run_name="two", gradient_accumulation_steps=2, **shape)
    )  # ended: read
    assert (two.steps, two.exported_step) == (one.steps, one.exported_step)
    for key, value in load_file(one.weights).items():
        torch.testing.assert_close(load_file(two.weights)[key], value, atol=1e-4, rtol=1e-3)
