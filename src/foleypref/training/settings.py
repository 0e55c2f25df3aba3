"""The settings of a training run: what can be set, what a run needs by them, and what may change under it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

from pydantic import Field

from foleypref.models.backbones import ModelPart
from foleypref.models.lora import LoraSettings
from foleypref.settings.parts import Settings, part_field
from foleypref.training import checkpoints
from foleypref.training.labels import LabelSettings
from foleypref.training.objectives import Objective
from foleypref.training.rule_settings import NegativeSettings
from foleypref.training.stopping import StopSettings
from foleypref.workspace.paths import RunFiles

FREE = (
    "save_total_limit",
    "tensorboard",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "shard_weights",
    "merge_adapters",
)
"""Settings that may differ when a run goes on: they change nothing in it. Its batch keeps the size that it
has over all processes and micro-batches, however it is cut."""


class TrainSettings(Settings):
    """How a policy is tuned; steps, batch and learning rate default to the paper's (arXiv 2603.11089)."""

    model: ModelPart = Field("world", validate_default=True)
    objective: part_field("objectives") = Field("flow_dpo", validate_default=True)  # type: ignore[valid-type]
    curriculum: part_field("curricula") = Field("two_stage", validate_default=True)  # type: ignore[valid-type]
    run_name: str = "train"
    pair_sources: tuple[str, ...] | None = None  # None: of every source but later rounds
    split: str = "align"  # whose clips are used by what needs clips: rollouts, rules
    audioscore: str = "audioscore"  # the fit whose p(Good) is the reward, and labels what is not rated
    watch: tuple[str, ...] = ()  # "scorer/dimension"s the reward does not read, judged beside it held out
    labels: LabelSettings = LabelSettings()  # of what needs labels
    negatives: NegativeSettings | None = None  # pairs made by rule from clips, in place of stored ones
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
    gradient_checkpointing: bool = False  # blocks are run again in the backward pass: time for memory
    use_peft: bool = False  # train LoRA adapters; the reference is the network without them
    lora: LoraSettings = LoraSettings()
    merge_adapters: bool = True  # into whole weights, for export; else adapters alone
    shard_weights: bool = False  # over processes (FSDP2), where one GPU cannot hold them
    precompute_reference_errors: bool = False  # before the first step, to disk: no reference in memory
    ema_decay: float | None = Field(None, gt=0, lt=1)  # if set, the average is what is exported
    logging_steps: int = Field(50, ge=1)
    save_steps: int = Field(500, ge=1)
    save_total_limit: int | None = Field(2, ge=1)
    eval_steps: int = Field(500, ge=1)
    num_eval_pairs: int = Field(64, ge=0)  # held out; 0 trains on all and evaluates none
    stop: StopSettings = StopSettings()  # limits of held-out numbers that end training early
    tensorboard: bool = True


def needs_of(settings: TrainSettings) -> frozenset[str]:
    """Return what a run learns from, of the kinds that `Objective.needs` names."""
    needs = cast(Objective, settings.objective).needs
    return needs if settings.negatives is None else settings.negatives.needs(needs)


def adapters_alone(settings: TrainSettings) -> bool:
    """Whether a run exports adapters and no whole network. Raises ValueError if the model cannot use them."""
    if settings.merge_adapters or not settings.use_peft:
        return False
    if "adapter" not in type(settings.model).model_fields:
        why = f"{settings.model.part_name()} takes none"
    elif settings.model.settings()["adapter"]:
        why = "the model has adapters of its own, and only one set is merged at load"
    else:
        return True
    raise ValueError(f"merge_adapters is off, so adapters alone would be left, and {why}; leave it on")


def check_settings(folder: Path, settings: TrainSettings) -> None:
    """Raise a ValueError if the folder holds a run with other settings."""
    adapters_alone(settings)
    path = RunFiles(folder).settings
    if not path.exists():
        return
    stored = checkpoints.flatten(json.loads(path.read_text()))
    now = checkpoints.flatten(settings.model_dump(mode="json"))
    for key in FREE:
        stored.pop(key, None)
        now.pop(key, None)
    checkpoints.refuse_another(folder, stored, now)
