"""Weights cut over two processes (FSDP2, gloo): the numbers of one process, checkpoints that fit either."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from foleypref.models.lora import LoraSettings
from foleypref.train import train
from foleypref.training import checkpoints
from foleypref.workspace.store import Workspace
from tests.test_train import TWO_PROCESSES, _spawn, assert_same_numbers, make_settings, train_elsewhere
from tests.training.test_stopping import hostile

MODES: dict[str, dict[str, Any]] = {
    "full": {},
    "lora": {"use_peft": True, "lora": LoraSettings(r=2, lora_alpha=2.0)},
}


@pytest.mark.parametrize("mode", MODES)
def test_shares_give_the_curve_and_the_files_of_one_process(filled: Workspace, mode: str) -> None:
    cut = {**MODES[mode], "per_device_train_batch_size": 2}
    code, said = _spawn(filled, make_settings(**cut, run_name="two", shard_weights=True), *TWO_PROCESSES)
    assert code == 0, said
    one = train(filled, make_settings(**cut, gradient_accumulation_steps=2))
    two = filled.run_folder("two")
    assert_same_numbers(one.folder, two)
    mine, theirs = load_file(one.weights), load_file(two / "model.safetensors")
    assert mine.keys() == theirs.keys()
    for key, value in mine.items():
        torch.testing.assert_close(theirs[key], value, rtol=1e-4, atol=1e-5)
    assert {p.name for p in one.folder.iterdir()} == {p.name for p in two.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("first", [2, 1])
def test_a_run_goes_on_whole_or_in_shares(filled: Workspace, tmp_path: Path, mode: str, first: int) -> None:
    """Killed in shares and ended by one process, and the other way round."""
    cut = {**MODES[mode], "per_device_train_batch_size": 2}
    shapes = {1: {**cut, "gradient_accumulation_steps": 2}, 2: {**cut, "shard_weights": True}}
    unbroken = train_elsewhere(tmp_path, make_settings(**shapes[1]))
    for num, kill in ((first, {"KILL_AT_STEP": "10"}), (3 - first, {})):
        code, said = _spawn(
            filled, make_settings(**shapes[num]), *(TWO_PROCESSES if num == 2 else ()), **kill
        )
        assert (code != 0) == bool(kill), said
    assert "goes on after step 8" in said
    assert_same_numbers(unbroken.folder, filled.run_folder("train"))


def test_a_checkpoint_of_shares_is_a_checkpoint(filled: Workspace) -> None:
    settings = make_settings(per_device_train_batch_size=2, shard_weights=True)
    code, said = _spawn(filled, settings, *TWO_PROCESSES, KILL_AT_STEP="10")
    assert code != 0, said
    stored = checkpoints.load(filled.run_folder("train"))
    assert stored is not None
    whole = settings.model.load().network.state_dict()
    saved = stored.networks["network"]
    assert {k: v.shape for k, v in saved.items()} == {k: v.shape for k, v in whole.items()}
    moments = [moment["exp_avg"] for _, moment in sorted(stored.optimizer["state"].items())]
    assert [m.shape for m in moments] == [v.shape for v in whole.values()]
    assert all(m.abs().sum() > 0 for m in moments)


@pytest.mark.slow
def test_the_best_weights_are_kept_of_shares_too(filled: Workspace) -> None:
    """A run that a limit ends exports the weights of its last evaluation within."""
    one = train(filled, hostile(run_name="one", per_device_train_batch_size=4, gradient_accumulation_steps=2))
    assert one.stopped
    code, said = _spawn(filled, hostile(per_device_train_batch_size=4, shard_weights=True), *TWO_PROCESSES)
    assert code == 0, said
    result = json.loads((filled.run_folder("train") / "result.json").read_text())
    assert (result["steps"], result["exported_step"]) == (one.steps, one.exported_step)
    mine, theirs = load_file(one.weights), load_file(filled.run_folder("train") / "model.safetensors")
    for key, value in mine.items():
        torch.testing.assert_close(theirs[key], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ema_decay": 0.9}, "ema_decay"),
        ({"precompute_reference_errors": True}, "precompute_reference_errors"),
    ],
)
def test_what_needs_a_whole_network_is_refused(filled: Workspace, changes: dict[str, Any], said: str) -> None:
    code, text = _spawn(filled, make_settings(shard_weights=True, **changes), *TWO_PROCESSES)
    assert code != 0
    assert f"shard_weights does not go with {said}; leave one of them off" in text


def test_one_process_has_nothing_to_share(filled: Workspace) -> None:
    plain = train(filled, make_settings(run_name="plain"))
    alone = train(filled, make_settings(run_name="alone", shard_weights=True))
    assert alone.weights.read_bytes() == plain.weights.read_bytes()
