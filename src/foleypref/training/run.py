"""A training run in progress: its networks, its data, and what must stay the same while it lasts."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from foleypref.flow.convention import seed_of
from foleypref.models.backbones import Model
from foleypref.models.lora import WithoutAdapters, add_adapters, load_trained_state
from foleypref.models.sharding import shard
from foleypref.models.tools import fingerprint_of, frozen_copy, with_network
from foleypref.training.context import TrainContext
from foleypref.training.data import TrainData
from foleypref.training.inputs import make_context, make_rule_pairs
from foleypref.training.log import Meter, RunLog
from foleypref.training.objectives import Objective
from foleypref.training.reference_errors import ReferenceErrors
from foleypref.training.reward import Reward
from foleypref.training.rules import RulePairs
from foleypref.training.settings import TrainSettings
from foleypref.training.stopping import Verdict
from foleypref.workspace.records import digest
from foleypref.workspace.store import Workspace


@dataclass
class Run:
    """A run in progress. `bare` and `policy` are views of one network; `policy` is behind the DDP wrapper."""

    settings: TrainSettings
    objective: Objective  # a copy: it may remember things, and runs share no state
    folder: Path
    accelerator: Accelerator
    context: TrainContext
    held_out: TrainContext
    bare: Model
    policy: Model
    reference: Model | None
    optimizer: torch.optim.Optimizer
    ema: AveragedModel | None
    identity: dict[str, Any]  # must not change while the run lasts
    held_out_id: str
    errors: ReferenceErrors | None = None  # of the reference, if they are precomputed
    meter: Meter = field(default_factory=Meter)
    step: int = 0  # steps done
    verdict: Verdict = field(default_factory=Verdict)  # whether a held-out number ends the run
    log: RunLog | None = None  # only on process 0

    def autocast(self) -> torch.autocast:
        """Return the autocast of policy and reference: bf16 if the settings ask for it."""
        return torch.autocast(self.context.layout.device.type, torch.bfloat16, enabled=self.settings.bf16)

    def due(self, every: int) -> bool:
        """Return whether something that is done every so many steps, and after the last one, is done now."""
        return self.step % every == 0 or self.step == self.settings.max_steps


def make_run(
    workspace: Workspace,
    settings: TrainSettings,
    accelerator: Accelerator,
    data: TrainData,
    held_out: TrainData,
) -> Run:
    """Return the run before its first step, with its model loaded and its reference frozen."""
    objective = copy.copy(settings.objective)
    bare = copy.copy(settings.model).load(accelerator.device)
    # eval() keeps dropout off, which a loss of ln 2 at policy = reference needs; gradients still flow
    fingerprint = fingerprint_of(bare.network.eval())
    all_data, rules = data, None  # the identity covers all clips of the run, also those that fail to encode
    if settings.negatives is not None:
        clips = [*data.clips, *held_out.clips]
        rules = make_rule_pairs(workspace, bare, settings.negatives, clips, accelerator=accelerator)
        data, held_out = (replace(side, clips=rules.usable(side.clips)) for side in (data, held_out))
    context = make_context(workspace, bare, settings, data + held_out, accelerator=accelerator)
    if "reward" in objective.needs:
        reward = Reward(workspace, bare, settings.audioscore, accelerator.device, watch=settings.watch)
        context = replace(context, reward=reward)
    reference = make_reference(bare, settings, objective, accelerator.num_processes)
    ema = None
    if settings.ema_decay is not None:
        ema = AveragedModel(bare.network, multi_avg_fn=get_ema_multi_avg_fn(settings.ema_decay))
    return Run(
        settings=settings,
        objective=objective,
        folder=workspace.run_folder(settings.run_name),
        accelerator=accelerator,
        context=_side(context, data, rules),
        held_out=_side(context, held_out, rules),
        bare=bare,
        policy=bare,
        reference=reference,
        optimizer=make_optimizer(bare.network, settings),
        ema=ema,
        identity=_identity(all_data, rules, context) | {"reference": fingerprint},
        held_out_id=digest(held_out.identity()),
    )


def _identity(data: TrainData, rules: RulePairs | None, context: TrainContext) -> dict[str, Any]:
    """Return what the run learns from; a resumed run must learn from the same."""
    return {
        **data.identity(),
        **({} if rules is None else {"rules": rules.identity}),
        "global_batch_size": context.layout.global_batch_size,
        **({} if context.reward is None else {"reward": context.reward.version}),
    }


def _side(context: TrainContext, data: TrainData, rules: RulePairs | None) -> TrainContext:
    """Return the context of one side of the split."""
    return replace(context, data=data, rules=None if rules is None else rules.side(data.clips))


def make_reference(
    bare: Model, settings: TrainSettings, objective: Objective, num_processes: int
) -> Model | None:
    """Prepare the policy `bare` for training and return its frozen reference, if the run needs one.

    Both are sharded over the processes if the settings ask for it. Raises ValueError if that does not go
    with other settings, or if the network cannot do what they ask.
    """
    if not settings.shard_weights or num_processes == 1:
        return _prepare_networks(bare, settings, objective)
    # a GPU has no room for a reference beside it; sharding brings both back, a block at a time
    bare.network.to("cpu")
    reference = _prepare_networks(bare, settings, objective)
    needs_whole = {
        "ema_decay": settings.ema_decay is not None,
        "precompute_reference_errors": settings.precompute_reference_errors,
        f"the objective {objective.part_name()}, which samples": "reward" in objective.needs,
    }
    if names := [name for name, needed in needs_whole.items() if needed]:
        raise ValueError(f"shard_weights does not go with {' or '.join(names)}; leave one of them off")
    shard(bare.network)
    if reference is not None and not settings.use_peft:
        shard(reference.network)
    return reference


def _prepare_networks(bare: Model, settings: TrainSettings, objective: Objective) -> Model | None:
    """Add adapters and gradient checkpointing if asked for; return the reference to keep, if any."""
    if settings.gradient_checkpointing:
        if not hasattr(bare.network, "gradient_checkpointing"):
            raise ValueError(f"gradient_checkpointing: {type(bare.network).__name__} has none; leave it off")
        bare.network.gradient_checkpointing = True  # type: ignore[assignment]
    needs_reference = objective.needs_reference and not settings.precompute_reference_errors
    if settings.use_peft:
        seed = seed_of(settings.seed, "adapters")
        adapted = add_adapters(bare.network, settings.lora, bare.lora_targets, seed).eval()
        bare.set_network(adapted)
        return with_network(bare, WithoutAdapters(adapted)) if needs_reference else None
    return frozen_copy(bare) if needs_reference else None


def whole_policy(settings: TrainSettings, objective: Objective, state: dict[str, Tensor]) -> Model:
    """Return the whole policy on the CPU: the model loaded again, with the trained `state` put in."""
    model = copy.copy(settings.model).load("cpu")
    model.network.eval()
    _prepare_networks(model, settings, objective)
    load_trained_state(model.network, state)
    return model


def make_optimizer(network: torch.nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """Return AdamW over the parameters that are trained."""
    return torch.optim.AdamW(
        [p for p in network.parameters() if p.requires_grad],
        lr=settings.learning_rate,
        betas=(settings.adam_beta1, settings.adam_beta2),
        weight_decay=settings.weight_decay,
        fused=next(network.parameters()).is_cuda,
    )
