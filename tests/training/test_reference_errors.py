"""Precomputed reference errors: the same run without a reference, found again by whoever draws the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from foleypref.train import train
from foleypref.training import reference_errors
from foleypref.training import run as training_run
from foleypref.training.objectives.flow_dpo import FlowDPO
from foleypref.training.objectives.sft import SFT
from foleypref.workspace.store import Workspace
from tests.test_train import _spawn, make_settings, metrics_without_time, train_elsewhere

STORED = {"precompute_reference_errors": True}


def test_the_run_is_the_same_run_without_a_reference(
    filled: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference_errors, "PART_STEPS", 5)
    live = train(filled, make_settings(run_name="live"))
    monkeypatch.setattr(training_run, "frozen_copy", lambda _: pytest.fail("no reference is to be kept"))
    stored = train(filled, make_settings(run_name="stored", **STORED))
    assert stored.weights.read_bytes() == live.weights.read_bytes()
    assert metrics_without_time(stored.folder) == metrics_without_time(live.folder)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"objective": FlowDPO(beta=5.0, winner_weight=1.0)}, True),
        ({"learning_rate": 1e-5}, True),
        ({"objective": FlowDPO(condition_dropout=0.5)}, False),
        ({"seed": 1}, False),
        ({"per_device_train_batch_size": 2}, False),
        ({"bf16": True}, False),
    ],
)
def test_errors_are_found_again_exactly_where_the_draws_are_the_same(
    filled: Workspace, changes: dict[str, Any], found: bool
) -> None:
    train(filled, make_settings(run_name="first", **STORED))
    train(filled, make_settings(run_name="second", **STORED, **changes))
    assert len(list((filled.root / "reference_errors").iterdir())) == (1 if found else 2)


def test_a_kill_costs_no_part_and_changes_no_bit(filled: Workspace, tmp_path: Path) -> None:
    settings = make_settings(**STORED)
    # the draws of the errors come first: this kill lands in them
    assert _spawn(filled, settings, KILL_AT_STEP="10")[0] == -9
    resumed = train(filled, settings)
    unbroken = train_elsewhere(tmp_path, settings)
    assert resumed.weights.read_bytes() == unbroken.weights.read_bytes()
    assert not list((filled.root / "reference_errors").rglob("*.tmp"))


def test_with_adapters_too(filled: Workspace) -> None:
    pytest.importorskip("peft")
    live = train(filled, make_settings(run_name="live", use_peft=True))
    stored = train(filled, make_settings(run_name="stored", use_peft=True, **STORED))
    assert stored.weights.read_bytes() == live.weights.read_bytes()


def test_an_objective_without_a_reference_is_refused(filled: Workspace) -> None:
    with pytest.raises(ValueError, match="sft has no errors to precompute"):
        train(filled, make_settings(objective=SFT(), **STORED))
