"""Helpers for tests of online objectives: contexts, runs that stop, rewards that are known."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from foleypref.flow.convention import Latents, generator_of
from foleypref.models.backbones import Model
from foleypref.models.tools import frozen_copy
from foleypref.settings.parts import Part
from foleypref.train import TrainResult, TrainSettings, train
from foleypref.training import run as training_run
from foleypref.training.context import TrainContext
from foleypref.training.log import Meter, read_metrics
from foleypref.training.objectives import Loss
from foleypref.workspace.records import Clip
from foleypref.workspace.store import Workspace
from tests.test_train import TWO_PROCESSES, _spawn, assert_same_numbers, make_settings, metrics_without_time
from tests.tiny import TinyModel, TinyReward, fill_workspace
from tests.training.contexts import make_context
from tests.training.test_reward import LOUDNESS, fit_to

SMALL = {"group_size": 4, "num_steps": 6}


def online_context(workspace: Workspace, model: TinyModel, **layout: int) -> TrainContext:
    """8 samples per step of the tiny workspace's clips, and a reward that is known."""
    context = make_context(workspace, model, **layout)
    data = dataclasses.replace(context.data, clips=workspace.read(Clip))
    return dataclasses.replace(context, data=data, reward=TinyReward())


def moved(model: TinyModel, by: float = 0.05) -> TinyModel:
    """The model with other weights."""
    other, generator = frozen_copy(model), generator_of("moved")
    for parameter in other.network.parameters():
        parameter.add_(by * torch.randn(parameter.shape, generator=generator))
    return other


def logs_of(losses: list[Loss]) -> dict[str, float]:
    """Means of logs over micro-batches."""
    meter = Meter()
    for loss in losses:
        meter.add(loss.logs)
    return meter.take()


def rows_seen(objective: Any, context: TrainContext, policy: TinyModel, steps: int) -> dict[str, int]:
    """Rows that go forward through networks in some steps: while samples are made, and in the loss."""
    rows = {"rollout": 0, "policy": 0, "reference": 0}
    stage, reference = ["rollout"], frozen_copy(policy)

    def count(name: str) -> Callable[..., None]:
        def hook(network: Any, inputs: tuple[Latents, Tensor, Tensor], out: Any) -> None:
            rows["rollout" if stage[0] == "rollout" else name] += len(inputs[2])

        return hook

    handles = [policy.network.register_forward_hook(count("policy"))]
    handles.append(reference.network.register_forward_hook(count("reference")))
    for step in range(steps):
        stage[0] = "rollout"
        batches = objective.batches(context, step, policy)
        stage[0] = "loss"
        for batch in batches:
            objective.loss(policy, reference, batch)
    for handle in handles:
        handle.remove()
    return rows


def climb(workspace: Workspace, objective: Part, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Held-out rewards along 30 steps on a reward that is known."""
    fill_workspace(workspace, split="align")
    monkeypatch.setattr(training_run, "Reward", lambda *_, **__: TinyReward(target=1.5))
    settings = online_settings(objective, max_steps=30, eval_steps=15, logging_steps=30, save_steps=30)
    lines = read_metrics(train(workspace, settings).folder)
    assert all(line["eval/watch/tiny/spread"] > 0 for line in lines)
    return [line["eval/reward"] for line in lines]


class Stopped(Exception):
    """Raised where a process is to end."""


def online_settings(objective: Part, **changes: Any) -> TrainSettings:
    """A short online run of 32 samples per step."""
    base: dict[str, Any] = {
        "objective": objective,
        "curriculum": "uniform",
        "per_device_train_batch_size": 32,
        "learning_rate": 3e-2,
        "warmup_steps": 0,
    }
    return make_settings(**base | changes)


def stop_before(objective: type[Part], step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every run of this objective end before it takes `step`."""
    original = objective.batches  # type: ignore[attr-defined]

    def batches(self: Any, context: TrainContext, at: int, policy: Model) -> Any:
        if at == step:
            raise Stopped
        return original(self, context, at, policy)

    monkeypatch.setattr(objective, "batches", batches)


def loud_workspace(folder: Path) -> Workspace:
    """The tiny workspace, and an AudioScore that prefers the louder half of the tiny model's samples."""
    workspace = Workspace(folder)
    fill_workspace(workspace, split="align")
    fit_to(workspace, LOUDNESS, 0.6, 1.0)
    return workspace


def assert_learned(result: TrainResult) -> None:
    """There was something to learn: rewards differed, and the weights went somewhere."""
    assert all(line["reward_std"] > 0.05 for line in read_metrics(result.folder) if "reward_std" in line)
    assert any(line["kl_loss"] > 1e-6 for line in read_metrics(result.folder) if "kl_loss" in line)


def assert_resumes(
    objective: Part, stops: Sequence[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any
) -> None:
    """A run stopped before these steps goes on to the same bits each time."""
    shape = {"max_steps": 6, "save_steps": 1, "eval_steps": 3, "per_device_train_batch_size": 8}
    settings = online_settings(objective, bf16=True, **shape | changes)
    unbroken = train(loud_workspace(tmp_path / "unbroken"), settings)
    assert_learned(unbroken)
    workspace = loud_workspace(tmp_path / "broken")
    for step in stops:
        with monkeypatch.context() as patch:
            stop_before(type(objective), step, patch)
            with pytest.raises(Stopped):
                train(workspace, settings)
    resumed = train(workspace, settings)
    assert resumed.weights.read_bytes() == unbroken.weights.read_bytes()
    assert metrics_without_time(resumed.folder) == metrics_without_time(unbroken.folder)


def assert_two_processes_equal_one(objective: Part, tmp_path: Path) -> TrainResult:
    """The same curve from two processes, whose groups lie across them, as from one."""
    workspace = loud_workspace(tmp_path / "w")
    shape = {"max_steps": 5, "save_steps": 2, "eval_steps": 2, "logging_steps": 1}
    one = online_settings(objective, per_device_train_batch_size=4, gradient_accumulation_steps=6, **shape)
    two = online_settings(
        objective, per_device_train_batch_size=4, gradient_accumulation_steps=3, run_name="two", **shape
    )
    code, said = _spawn(workspace, two, *TWO_PROCESSES)
    assert code == 0, said
    result = train(workspace, one)
    assert_learned(result)
    assert_same_numbers(result.folder, workspace.run_folder("two"), abs=2e-5, rel=1e-3)
    return result
