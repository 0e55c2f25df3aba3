"""Contexts of the tiny workspace for objectives, without a run around them."""

from __future__ import annotations

import dataclasses

from foleypref.models.tools import frozen_copy
from foleypref.training.context import BatchLayout, TrainContext
from foleypref.training.curricula.uniform import Uniform
from foleypref.training.data import TrainData
from foleypref.training.objectives._pairs import PairBatch
from foleypref.training.objectives.flow_dpo import FlowDPO
from foleypref.workspace.records import Candidate, Feature
from foleypref.workspace.store import Workspace
from tests.tiny import TinyModel, fill_workspace, labels_of


def make_context(
    workspace: Workspace, model: TinyModel, *, seed: int = 0, max_steps: int = 10, **layout: int
) -> TrainContext:
    """A context over a workspace filled for `model`: 8 pairs per step on one process."""
    pairs = fill_workspace(workspace, model)
    return TrainContext(
        workspace=workspace,
        data=TrainData(pairs=pairs, labels=labels_of(pairs)),
        candidates=workspace.by_id(Candidate),
        features={f.item_id: f for f in workspace.read(Feature)},
        curriculum=Uniform(),
        seed=seed,
        max_steps=max_steps,
        layout=BatchLayout(**{"per_device_batch_size": 8} | layout),
    )


def laid_out(context: TrainContext, **layout: int) -> TrainContext:
    """The same context with some numbers of its batch layout changed."""
    return dataclasses.replace(context, layout=dataclasses.replace(context.layout, **layout))


def pair_setting(workspace: Workspace, *, joint: bool = False) -> tuple[TinyModel, TinyModel, PairBatch]:
    """Policy, a reference with other weights, and a batch of 8 pairs."""
    policy = TinyModel(joint=joint).load()
    reference = frozen_copy(TinyModel(joint=joint, seed=1).load())
    return policy, reference, FlowDPO().batches(make_context(workspace, policy), 0, policy)[0]
