"""Training runs: resume to the bit after SIGKILL, several processes, refusals, what a run leaves on disk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from foleypref.models.tools import fingerprint_of
from foleypref.train import TrainResult, TrainSettings, learning_rate, train
from foleypref.training import checkpoints
from foleypref.training import data as train_data
from foleypref.training.context import TrainContext
from foleypref.training.log import read_metrics
from foleypref.training.objectives.flow_dpo import FlowDPO
from foleypref.workspace.records import Feature, Pair
from foleypref.workspace.store import Workspace
from tests.tiny import TinyModel, fill_workspace

REPOSITORY = Path(__file__).parent.parent
TWO_PROCESSES = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def make_settings(**changes: Any) -> TrainSettings:
    """A run of a dozen steps; logging and saving fall on different steps, so sums must be saved too."""
    base: dict[str, Any] = {
        "model": TinyModel(),
        "max_steps": 12,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-3,
        "warmup_steps": 3,
        "logging_steps": 3,
        "save_steps": 4,
        "eval_steps": 5,
        "num_eval_pairs": 6,
        "tensorboard": False,
    }
    return TrainSettings(**base | changes)


def metrics_without_time(run: Path) -> str:
    """metrics.jsonl as text, keys under time/ taken out."""
    lines = [{k: v for k, v in line.items() if not k.startswith("time/")} for line in read_metrics(run)]
    return "\n".join(json.dumps(line) for line in lines)


def assert_same_numbers(one: Path, other: Path, **tolerance: float) -> None:
    """The metrics of two runs, but for times: losses to 1e-5, the rest to `tolerance`.

    Margins are differences times β/D, 25 here, so their bound is wider.
    """
    bounds = {"abs": 1e-4, "rel": 1e-3, **tolerance}
    for here, there in zip(read_metrics(one), read_metrics(other), strict=True):
        assert {k for k in here if "time/" not in k} == {k for k in there if "time/" not in k}
        for key in (k for k in here if "time/" not in k):
            bound = {"abs": 1e-5, "rel": 0} if key.endswith("loss") else bounds
            assert there[key] == pytest.approx(here[key], **bound), (here["step"], key)


def train_elsewhere(folder: Path, settings: TrainSettings) -> TrainResult:
    """The same run, unbroken, on another workspace filled alike."""
    other = Workspace(folder / "other")
    fill_workspace(other)
    return train(other, settings)


def _spawn(
    workspace: Workspace, settings: TrainSettings, *launcher: str, **environment: str
) -> tuple[int, str]:
    """Train in another process; returns its exit code (−9 after SIGKILL) and what it said."""
    path = workspace.root.parent / "settings.json"
    path.write_text(settings.model_dump_json())
    process = subprocess.Popen(
        [sys.executable, *launcher, "-m", "tests.tiny", str(workspace.root), str(path)],
        cwd=REPOSITORY,
        env={**os.environ, "ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _, stderr = process.communicate(timeout=120)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)  # the launcher's workers too
        raise
    return process.returncode, stderr


# -- what a run leaves ---------------------------------------------------------------------------------------


def test_a_run_learns_and_leaves_weights_settings_and_metrics(filled: Workspace) -> None:
    settings = make_settings(max_steps=60, tensorboard=True)
    result = train(filled, settings)
    assert result.steps == 60
    assert result.folder == filled.root / "runs" / "train"
    lines = read_metrics(result.folder)
    assert [line["step"] for line in lines if "loss" in line] == list(range(3, 61, 3))
    assert [line["step"] for line in lines if "eval/loss" in line] == [0, *range(5, 61, 5)]
    assert lines[0]["eval/loss"] == pytest.approx(0.693147, abs=1e-6)
    assert lines[-1] == result.logs
    assert result.logs["eval/loss"] < 0.4
    assert result.logs["eval/rewards/accuracies"] > 0.8
    assert {"grad_norm", "learning_rate", "time/steps_per_s", "time/pairs_per_s"} <= set(result.logs)
    assert TrainSettings.model_validate_json((result.folder / "settings.json").read_text()) == settings
    assert list((result.folder / "tensorboard").iterdir())
    tuned = TinyModel(weights=str(result.weights)).load()
    assert tuned.fingerprint != TinyModel().load().fingerprint


def test_a_finished_run_is_skipped(filled: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    first = train(filled, make_settings())
    monkeypatch.setattr(TinyModel, "load", lambda *_: pytest.fail("a finished run loads no model"))
    assert train(filled, make_settings(save_total_limit=5)) == first


def test_training_leaves_the_settings_own_model_unloaded(filled: Workspace) -> None:
    settings = make_settings()
    train(filled, settings)
    with pytest.raises(AssertionError, match="load"):
        _ = settings.model.network


def test_only_the_newest_checkpoints_are_kept(filled: Workspace) -> None:
    result = train(filled, make_settings(save_total_limit=2))
    assert checkpoints.steps(result.folder) == [8, 12]
    assert not list(result.folder.glob(".*"))


def test_the_moving_average_is_what_is_exported(filled: Workspace) -> None:
    result = train(filled, make_settings(ema_decay=0.5, save_steps=1, save_total_limit=None))
    expected: dict[str, Tensor] = {}
    for step in range(1, 13):
        weights = load_file(result.folder / f"checkpoint-{step}" / "network.safetensors")
        for key, value in weights.items():
            expected[key] = value if step == 1 else torch.lerp(expected[key], value, 0.5)
    exported = load_file(result.weights)
    last = load_file(result.folder / "checkpoint-12" / "network.safetensors")
    for key, value in expected.items():
        torch.testing.assert_close(exported[key], value)
        assert not torch.equal(exported[key], last[key])


def test_bf16_keeps_weights_float32_and_starts_at_ln_2(filled: Workspace) -> None:
    result = train(filled, make_settings(bf16=True))
    assert read_metrics(result.folder)[0]["eval/loss"] == pytest.approx(0.693147, abs=1e-6)
    assert {value.dtype for value in load_file(result.weights).values()} == {torch.float32}


def test_sft_lowers_the_winners_error_without_a_reference(filled: Workspace) -> None:
    result = train(
        filled, make_settings(objective="sft", curriculum="uniform", max_steps=60, learning_rate=1e-2)
    )
    evals = [line["eval/flow/winner_err"] for line in read_metrics(result.folder) if "eval/loss" in line]
    assert evals[-1] < 0.9 * evals[0]
    assert "rewards/margins" not in result.logs


def test_a_joint_model_trains(workspace: Workspace) -> None:
    fill_workspace(workspace, TinyModel(joint=True))
    result = train(workspace, make_settings(model=TinyModel(joint=True)))
    assert read_metrics(result.folder)[0]["eval/loss"] == pytest.approx(2 * 0.693147, abs=1e-5)
    assert {"flow/winner_err/audio", "rewards/margins/video"} <= set(result.logs)


def test_micro_batches_add_up_to_the_batch(filled: Workspace) -> None:
    whole = train(filled, make_settings(run_name="whole"))
    shape = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4}
    parts = train(filled, make_settings(run_name="parts", **shape))
    # Adam and clipping hide a wrong scale in the weights, the norm of the gradient does not
    assert parts.logs["grad_norm"] == pytest.approx(whole.logs["grad_norm"], rel=1e-4)
    for key, value in load_file(whole.weights).items():
        torch.testing.assert_close(load_file(parts.weights)[key], value, atol=1e-5, rtol=1e-4)


def test_learning_rate_warms_up_and_stays() -> None:
    settings = make_settings(learning_rate=1.0, warmup_steps=4)
    assert [learning_rate(settings, step) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert learning_rate(make_settings(learning_rate=1.0, warmup_steps=0), 0) == 1.0


def test_the_weights_are_on_disk_before_the_result_says_so(
    filled: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut must not leave a finished run with torn weights."""
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def record_sync(descriptor: int) -> None:
        events.append(f"sync {os.readlink(f'/proc/self/fd/{descriptor}')}")
        fsync(descriptor)

    def record_rename(path: Path, target: Path) -> Path:
        events.append(f"rename {path} {target.name}")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", record_sync)
    monkeypatch.setattr(Path, "replace", record_rename)
    result = train(filled, make_settings(max_steps=1))
    weights = next(i for i, event in enumerate(events) if event.endswith(" model.safetensors"))
    ended = next(i for i, event in enumerate(events) if event.endswith(" result.json"))
    temporary = events[weights].split()[1]
    assert f"sync {temporary}" in events[:weights]
    assert f"sync {result.folder}" in events[weights:ended]


# -- resume --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", [{"KILL_AT_STEP": "10"}, {"KILL_AT_SAVE": "8"}, {"KILL_AT_STEP": "2"}])
def test_a_run_that_was_killed_goes_on_to_the_same_bits(
    filled: Workspace, tmp_path: Path, when: dict[str, str]
) -> None:
    settings = make_settings(ema_decay=0.9)
    code, said = _spawn(filled, settings, **when)
    assert code == -9, said
    folder = filled.run_folder("train")
    assert not (folder / "result.json").exists()
    resumed = train(filled, settings)

    unbroken = train_elsewhere(tmp_path, settings)
    assert resumed.weights.read_bytes() == unbroken.weights.read_bytes()
    assert metrics_without_time(resumed.folder) == metrics_without_time(unbroken.folder)
    last = ("checkpoint-12/network.safetensors", "checkpoint-12/ema.safetensors", "checkpoint-12/state.json")
    for name in last:
        assert (resumed.folder / name).read_bytes() == (unbroken.folder / name).read_bytes()
    assert not list(folder.glob(".*"))


def test_two_processes_give_the_same_curve_as_one(filled: Workspace) -> None:
    settings = make_settings(per_device_train_batch_size=2, gradient_accumulation_steps=2)
    two = make_settings(per_device_train_batch_size=2, run_name="two")
    code, said = _spawn(filled, two, *TWO_PROCESSES)
    assert code == 0, said
    one = train(filled, settings)
    assert_same_numbers(one.folder, filled.run_folder("two"), abs=1e-5, rel=1e-4)


@pytest.mark.parametrize("first", [2, 1])
def test_a_run_goes_on_with_another_number_of_processes(
    filled: Workspace, tmp_path: Path, first: int
) -> None:
    """Killed with two and ended by one, and the other way round: the numbers of an unbroken run."""
    cut = {"per_device_train_batch_size": 2}  # the same micro-batches, or matrix products round otherwise
    shapes = {1: {**cut, "gradient_accumulation_steps": 2}, 2: cut}
    unbroken = train_elsewhere(tmp_path, make_settings(**shapes[1]))
    for num, kill in ((first, {"KILL_AT_STEP": "10"}), (3 - first, {})):
        how = TWO_PROCESSES if num == 2 else ()
        code, said = _spawn(filled, make_settings(**shapes[num]), *how, **kill)
        assert (code != 0) == bool(kill), said
    assert "goes on after step 8" in said
    assert_same_numbers(unbroken.folder, filled.run_folder("train"))
    again = train(filled, make_settings(per_device_train_batch_size=1, gradient_accumulation_steps=4))
    assert again.steps == unbroken.steps  # finished, whatever the cut
    with pytest.raises(ValueError, match="global_batch_size = 4, found 8"):
        train(filled, make_settings(per_device_train_batch_size=8))


# -- refusals ------------------------------------------------------------------------------------------------


def _one_line(error: pytest.ExceptionInfo[ValueError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_other_settings_under_the_same_name_are_refused(filled: Workspace) -> None:
    train(filled, make_settings())
    with pytest.raises(ValueError, match="was started with") as error:
        train(filled, make_settings(objective=FlowDPO(beta=300), seed=1))
    text = _one_line(error)
    assert "objective.beta = 600.0, found 300.0 (1 more: seed)" in text
    assert "choose another run_name" in text


def test_other_pairs_under_the_same_name_are_refused(filled: Workspace) -> None:
    train(filled, make_settings())
    filled.replace_table(Pair, filled.read(Pair)[:40])
    with pytest.raises(ValueError, match="was started with pairs = ") as error:
        train(filled, make_settings())
    _one_line(error)


def test_another_reference_is_refused_on_resume(filled: Workspace, tmp_path: Path) -> None:
    weights = tmp_path / "base.safetensors"
    TinyModel(seed=1).load().export(str(weights))
    settings = make_settings(model=TinyModel(weights=str(weights)))
    assert _spawn(filled, settings, KILL_AT_STEP="10")[0] == -9
    TinyModel(seed=2).load().export(str(weights))
    with pytest.raises(ValueError, match="was started with reference = ") as error:
        train(filled, settings)
    _one_line(error)


def test_a_reference_that_moves_is_caught(filled: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    loss = FlowDPO.loss

    def moving(self: FlowDPO, policy: Any, reference: Any, batch: Any) -> Any:
        if fingerprint_of(policy.network) != fingerprint_of(reference.network):  # after the first step
            with torch.no_grad():
                next(reference.network.parameters()).add_(1e-6)
        return loss(self, policy, reference, batch)

    monkeypatch.setattr(FlowDPO, "loss", moving)
    with pytest.raises(ValueError, match="step 4: the reference's weights have changed"):
        train(filled, make_settings())


def test_the_reference_holds_the_initial_weights(filled: Workspace) -> None:
    result = train(filled, make_settings())
    stored = json.loads((result.folder / "checkpoint-12" / "state.json").read_text())["identity"]["reference"]
    assert stored == fingerprint_of(TinyModel().load().network)


def test_a_model_with_two_answers_is_refused_at_step_0(filled: Workspace) -> None:
    with pytest.raises(ValueError, match=r"the loss at step 0 is .* it must be 0.693147") as error:
        train(filled, make_settings(model=TinyModel(noisy=True)))
    _one_line(error)


def test_a_number_that_is_not_finite_stops_the_run_and_names_the_pairs(
    filled: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    latents = TrainContext.latents
    bad = train_data.split_pairs(filled.read(Pair), None, 6)[0][0].rejected

    def poisoned(self: Any, ids: Any) -> dict[str, Tensor]:
        rows = latents(self, ids)
        if bad in ids:
            rows["audio"][list(ids).index(bad)] = float("nan")
        return rows

    monkeypatch.setattr(TrainContext, "latents", poisoned)
    with pytest.raises(ValueError, match=r"step \d+: .* is not finite") as error:
        train(filled, make_settings(max_steps=40))
    _one_line(error)
    (dump,) = filled.run_folder("train").glob("failed-step-*.json")
    named = set(json.loads(dump.read_text())["item_ids"])
    assert named & {pair.pair_id for pair in filled.read(Pair) if pair.rejected == bad}
    assert len(named) <= 4


def test_pairs_that_do_not_fit_are_refused(filled: Workspace) -> None:
    with pytest.raises(ValueError, match=r"pair_sources is .*'humans'.*there are: auto, human") as error:
        train(filled, make_settings(pair_sources=("humans",)))
    _one_line(error)
    with pytest.raises(ValueError, match=r"the model to be tuned has .*video") as error:
        train(filled, make_settings(model=TinyModel(joint=True)))
    _one_line(error)
    filled.replace_table(Feature, filled.read(Feature)[:5])
    with pytest.raises(ValueError, match=r"19 of 24 clips have no cached conditions") as error:
        train(filled, make_settings())
    _one_line(error)


def test_no_pairs_at_all_says_what_to_run(workspace: Workspace) -> None:
    with pytest.raises(ValueError, match="no pairs to train on; run pair first"):
        train(workspace, make_settings())
