"""Pairs made by rule over the tiny workspace, and short runs on them."""

from __future__ import annotations

from typing import Any

from accelerate import Accelerator

from foleypref.train import TrainSettings
from foleypref.training.context import BatchLayout, TrainContext
from foleypref.training.curricula.uniform import Uniform
from foleypref.training.data import TrainData
from foleypref.training.inputs import make_rule_pairs
from foleypref.training.rule_settings import RulePairSettings
from foleypref.training.rules import RulePairs
from foleypref.workspace.records import Candidate, Clip, Feature, Pair
from foleypref.workspace.store import Workspace
from tests.test_train import make_settings
from tests.tiny import TinyModel, fill_workspace

RULES = RulePairSettings()


BRIEF = RulePairSettings(eval_severities=(0.5,))


def make_rules(workspace: Workspace, model: TinyModel, settings: RulePairSettings = RULES) -> RulePairs:
    """The rules over all clips of a workspace, which is filled if it is empty."""
    if not workspace.read(Clip):
        fill_workspace(workspace, model)
    return make_rule_pairs(workspace, model, settings, workspace.read(Clip), Accelerator(cpu=True))


def make_context(workspace: Workspace, model: TinyModel, settings: RulePairSettings = RULES) -> TrainContext:
    """A context of 8 pairs per step on one process, by the rules of `settings`."""
    rules = make_rules(workspace, model, settings)
    pairs = workspace.read(Pair) if settings.share < 1 else []
    return TrainContext(
        workspace=workspace,
        data=TrainData(pairs=pairs, clips=list(rules.clips)),
        candidates=workspace.by_id(Candidate),
        features={f.item_id: f for f in workspace.read(Feature) if f.key == model.feature_key},
        curriculum=Uniform(),
        seed=0,
        max_steps=10,
        layout=BatchLayout(per_device_batch_size=8),
        rules=rules,
    )


def tiny(**changes: Any) -> TinyModel:
    return TinyModel(media=True, **changes).load()


def rule_settings(**changes: Any) -> TrainSettings:
    """A run of a dozen steps on pairs made by rule."""
    base = {"model": TinyModel(media=True), "negatives": BRIEF, "split": "train", "eval_steps": 100}
    return make_settings(**base | {"curriculum": "ramp"} | changes)
