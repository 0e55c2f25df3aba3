"""The contract of every objective in the drawer; a new file is tested the moment it exists.

An objective whose defaults cannot run on the tiny workspace says in `SETTINGS` what it needs.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest
import torch

from foleypref.models.tools import fingerprint_of, frozen_copy
from foleypref.settings.parts import Part, build, find, names
from foleypref.training.context import BatchLayout, TrainContext
from foleypref.training.data import TrainData
from foleypref.training.objectives import Objective
from foleypref.workspace.records import Clip
from foleypref.workspace.store import Workspace
from tests.tiny import TinyModel, TinyReward
from tests.training import contexts

SETTINGS: dict[str, dict[str, Any]] = {
    "kto": {"beta": 5.0},  # at 600 the sigmoid of two random networks is 0 or 1
}

T = TypeVar("T")

pytestmark = pytest.mark.parametrize("name", names("objectives"))


def _build(name: str) -> Objective:
    objective = build("objectives", name, **SETTINGS.get(name, {}))
    assert isinstance(objective, Objective)
    return objective


def make_context(workspace: Workspace, policy: TinyModel) -> TrainContext:
    """Return a context with all kinds of items and a reward."""
    context = contexts.make_context(workspace, policy)
    data = dataclasses.replace(context.data, clips=workspace.read(Clip))
    return dataclasses.replace(context, data=data, reward=TinyReward())


def on_every_rank(context: TrainContext, processes: int, do: Callable[[TrainContext], T]) -> list[T]:
    """Return the results of `do` on each process; processes are threads here, which meet when they gather."""
    meeting = threading.Barrier(processes, timeout=60)
    brought: dict[int, torch.Tensor] = {}

    class Together(BatchLayout):
        def gather(self, values: torch.Tensor) -> torch.Tensor:
            brought[self.rank] = values
            meeting.wait()
            whole = torch.cat([brought[rank] for rank in range(processes)])
            meeting.wait()  # all have taken this before any brings the next
            return whole

    fields = {f.name: getattr(context.layout, f.name) for f in dataclasses.fields(context.layout)}
    layouts = [Together(**fields | {"rank": rank, "num_processes": processes}) for rank in range(processes)]
    ranks = [dataclasses.replace(context, layout=layout) for layout in layouts]
    with ThreadPoolExecutor(processes) as pool:
        return list(pool.map(do, ranks))


def _reference(objective: Objective, policy: TinyModel) -> TinyModel | None:
    return frozen_copy(policy) if objective.needs_reference else None


def _values(objective: Objective, policy: TinyModel, context: Any, step: int = 2) -> list[float]:
    reference = _reference(objective, policy)
    return [
        objective.loss(policy, reference, batch).value.item()
        for batch in objective.batches(context, step, policy)
    ]


def test_is_a_part_with_a_line_for_the_start_of_a_run(name: str) -> None:
    assert issubclass(find("objectives", name), Part)
    summary = _build(name).summary(TinyModel().spec)
    assert summary
    assert "\n" not in summary


def test_policy_at_the_reference_gives_the_known_loss(name: str, workspace: Workspace) -> None:
    objective, policy = _build(name), TinyModel().load()
    known = objective.initial_loss(policy.spec)
    values = _values(objective, policy, make_context(workspace, policy), step=0)
    assert values
    assert all(torch.tensor(values).isfinite())
    if known is not None:
        assert values == pytest.approx([known] * len(values), abs=1e-5)


def test_gradient_reaches_the_policy_and_never_the_reference(name: str, workspace: Workspace) -> None:
    objective, policy = _build(name), TinyModel().load()
    reference = _reference(objective, policy)
    before = fingerprint_of(policy.network)
    for batch in objective.batches(make_context(workspace, policy), 0, policy):
        loss = objective.loss(policy, reference, batch)
        assert loss.value.shape == ()
        loss.value.backward()
    grads = [parameter.grad for parameter in policy.network.parameters()]
    assert all(grad is not None and grad.isfinite().all() for grad in grads)
    assert any(grad is not None and grad.abs().sum() > 0 for grad in grads)
    if reference is not None:
        assert all(p.grad is None and not p.requires_grad for p in reference.network.parameters())
        assert fingerprint_of(reference.network) == before


def test_forwards_are_the_passes_that_the_networks_make(name: str, workspace: Workspace) -> None:
    """A row whose output takes a gradient in the loss costs 3: one pass forward, and two for the way back."""
    objective, policy = _build(name), TinyModel().load()
    reference = _reference(objective, policy)
    context = make_context(workspace, policy)
    passes, learning = 0, False

    def count(network: Any, inputs: Any, velocities: dict[str, torch.Tensor]) -> None:
        nonlocal passes
        backward = learning and any(value.requires_grad for value in velocities.values())
        passes += len(inputs[-1]) * (3 if backward else 1)

    for model in (policy, reference):
        if model is not None:
            model.network.register_forward_hook(count)
    batches = objective.batches(context, 0, policy)
    learning = True
    for batch in batches:
        objective.loss(policy, reference, batch)
    assert passes == objective.forwards * context.layout.global_batch_size


def test_batches_are_a_function_of_seed_and_step(name: str, workspace: Workspace) -> None:
    objective, policy = _build(name), TinyModel().load()
    context = make_context(workspace, policy)
    reference = frozen_copy(TinyModel(seed=1).load()) if objective.needs_reference else None

    def value(context: Any, step: int) -> float:
        torch.manual_seed(torch.seed())  # randomness must not come from torch's global generator
        batches = objective.batches(context, step, policy)
        return sum(objective.loss(policy, reference, batch).value.item() for batch in batches)

    assert value(context, 2) == value(context, 2)
    assert value(context, 2) != value(context, 3)
    assert value(context, 2) != value(dataclasses.replace(context, seed=1), 2)


@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 4, 1), (4, 1, 2), (2, 2, 2)])
def test_how_the_global_batch_is_shared_changes_nothing(
    name: str, shape: tuple[int, int, int], workspace: Workspace
) -> None:
    policy = TinyModel().load()
    reference = frozen_copy(TinyModel(seed=1).load()) if _build(name).needs_reference else None
    whole = make_context(workspace, policy)
    size, accumulation, processes = shape

    def mean(context: TrainContext) -> list[float]:
        objective = _build(name)  # every process has its own
        batches = objective.batches(context, 2, policy)
        return [objective.loss(policy, reference, batch).value.item() for batch in batches]

    split = contexts.laid_out(whole, per_device_batch_size=size, gradient_accumulation_steps=accumulation)
    shared = [value for values in on_every_rank(split, processes, mean) for value in values]
    expected = mean(whole)
    assert sum(shared) / len(shared) == pytest.approx(sum(expected) / len(expected), rel=1e-5, abs=1e-6)


def test_logs_are_floats_or_detached_rows(name: str, workspace: Workspace) -> None:
    objective, policy = _build(name), TinyModel().load()
    batch = objective.batches(make_context(workspace, policy), 0, policy)[0]
    logs = objective.loss(policy, _reference(objective, policy), batch).logs
    assert "loss" in logs
    for key, value in logs.items():
        row = torch.as_tensor(value)
        assert row.ndim <= 1, key
        assert not row.requires_grad, key
        assert row.isfinite().all(), key


def test_evaluation_meets_the_same_grid_at_every_seed(name: str, workspace: Workspace) -> None:
    objective, policy = _build(name), TinyModel().load()
    reference = _reference(objective, policy)
    context = make_context(workspace, policy)

    def rows(context: TrainContext) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {}
        for batch in objective.eval_batches(context, policy):
            for key, value in objective.loss(policy, reference, batch).logs.items():
                found.setdefault(key, []).extend(torch.as_tensor(value).reshape(-1).tolist())
        return {key: sorted(value) for key, value in found.items()}

    here, elsewhere = rows(context), rows(dataclasses.replace(context, seed=5))
    assert here == elsewhere
    ranks = [rows(contexts.laid_out(context, rank=rank, num_processes=2)) for rank in range(2)]
    for key in here:
        both = sorted(ranks[0].get(key, []) + ranks[1].get(key, []))
        assert both == pytest.approx(here[key], rel=1e-4, abs=1e-5), key
    nothing = dataclasses.replace(context, data=TrainData())
    assert list(objective.eval_batches(nothing, policy)) == []
