"""The settings of a training run: what can be set, what it needs by them, and what may change on resume."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import Field

from foleypref.models.backbones import ModelPart
from foleypref.models.lora import LoraSettings
from foleypref.settings.parts import Settings
from foleypref.training import checkpoints
from foleypref.training.curricula import CurriculumPart
from foleypref.training.objectives import ObjectivePart
from foleypref.training.rule_settings import RulePairSettings
from foleypref.training.single_labels import LabelSettings
from foleypref.training.stopping import StopSettings
from foleypref.workspace.paths import RunFiles

RESUME_SAFE = (
    "save_total_limit",
    "tensorboard",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "shard_weights",
    "merge_adapters",
)
"""Settings that may differ when a run is resumed, because its numbers do not depend on them. The global batch
must keep its size, but may be cut otherwise into processes and micro-batches."""


class DataSettings(Settings):
    """What is trained, how, and the items that it learns from."""

    model: ModelPart = Field("world", validate_default=True)
    objective: ObjectivePart = Field("flow_dpo", validate_default=True)
    curriculum: CurriculumPart = Field("two_stage", validate_default=True)
    run_name: str = "train"
    pair_sources: tuple[str, ...] | None = None  # None: all sources except later rounds
    split: str = "align"  # split of the clips that rollouts and rules use
    audioscore: str = "audioscore"  # the fit whose p(Good) is the reward, and labels unrated candidates
    watch: tuple[str, ...] = ()  # "scorer/dimension"s that the reward does not read, judged when held out
    labels: LabelSettings = LabelSettings()  # for objectives that learn from labels
    negatives: RulePairSettings | None = None  # pairs made by rule from clips, in place of stored ones


class OptimizerSettings(Settings):
    """How many steps a run takes, and how a step changes the weights: AdamW on a batch of items."""

    seed: int = 0
    max_steps: int = Field(12_000, ge=1)
    per_device_train_batch_size: int = Field(8, ge=1)  # pairs, labels or samples, as the objective learns
    gradient_accumulation_steps: int = Field(1, ge=1)
    learning_rate: float = 5e-6
    warmup_steps: int = Field(1_000, ge=0)  # linear, then constant
    weight_decay: float = 0.0  # decay pulls towards zero, not towards the reference
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    max_grad_norm: float | None = 1.0
    bf16: bool = False  # autocast; weights, errors and optimizer stay float32
    gradient_checkpointing: bool = False  # compute blocks again in the backward pass: slower, less memory


class NetworkSettings(Settings):
    """LoRA adapters in place of all weights, and the copies of the network beside the policy."""

    use_peft: bool = False  # train LoRA adapters; the reference is the network without them
    lora: LoraSettings = LoraSettings()
    merge_adapters: bool = True  # export whole weights with adapters merged in; if not, only the adapters
    shard_weights: bool = False  # over processes (FSDP2), if one GPU cannot hold them
    precompute_reference_errors: bool = False  # to disk, before the first step: no reference in memory
    ema_decay: float | None = Field(None, gt=0, lt=1)  # if set, the moving average is exported


class LogSettings(Settings):
    """How often a run logs, saves and evaluates on held-out items, and when that ends it."""

    logging_steps: int = Field(50, ge=1)
    save_steps: int = Field(500, ge=1)
    save_total_limit: int | None = Field(2, ge=1)
    eval_steps: int = Field(500, ge=1)
    num_eval_pairs: int = Field(64, ge=0)  # held out; 0 trains on all and evaluates none
    stop: StopSettings = StopSettings()  # limits of held-out numbers that end training early


# Pydantic puts the fields of the last base first. Keys in YAML and JSON keep that order.
class TrainSettings(LogSettings, NetworkSettings, OptimizerSettings, DataSettings):
    """How a policy is tuned; steps, batch and learning rate default to the paper's (arXiv 2603.11089)."""

    tensorboard: bool = True


def needs_of(settings: TrainSettings) -> frozenset[str]:
    """Return what a run learns from, of the kinds that `Objective.needs` names."""
    needs = settings.objective.needs
    return needs if settings.negatives is None else settings.negatives.needs(needs)


def exports_only_adapters(settings: TrainSettings) -> bool:
    """Return whether a run exports only adapters. Raises ValueError if the model could not load them."""
    if settings.merge_adapters or not settings.use_peft:
        return False
    if "adapter" not in type(settings.model).model_fields:
        why = f"{settings.model.part_name()} takes none"
    elif settings.model.settings()["adapter"]:
        why = "the model has adapters of its own, and only one set is merged at load"
    else:
        return True
    raise ValueError(f"merge_adapters is off, so only adapters would be exported, and {why}; leave it on")


def check_settings(folder: Path, settings: TrainSettings) -> None:
    """Raise a ValueError if the folder holds a run with other settings."""
    exports_only_adapters(settings)
    path = RunFiles(folder).settings
    if not path.exists():
        return
    stored = checkpoints.flatten(json.loads(path.read_text()))
    now = checkpoints.flatten(settings.model_dump(mode="json"))
    for key in RESUME_SAFE:
        stored.pop(key, None)
        now.pop(key, None)
    checkpoints.refuse_another(folder, stored, now)
