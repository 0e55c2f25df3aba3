"""The networks of a training run: adapters, the reference, shares, their average, the optimizer."""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from foleypref.flow.convention import seed_of
from foleypref.models.backbones import Model
from foleypref.models.lora import WithoutAdapters, add_adapters, load_trained_state
from foleypref.models.sharding import shard
from foleypref.models.tools import frozen_copy, with_network
from foleypref.training.objectives import Objective
from foleypref.training.settings import TrainSettings


def prepare_networks(bare: Model, settings: TrainSettings, objective: Objective) -> Model | None:
    """Adapters and checkpointing where asked for; returns the reference that is to be kept, if any."""
    if settings.gradient_checkpointing:
        if not hasattr(bare.network, "gradient_checkpointing"):
            raise ValueError(f"gradient_checkpointing: {type(bare.network).__name__} has none; leave it off")
        bare.network.gradient_checkpointing = True  # type: ignore[assignment]
    kept = objective.needs_reference and not settings.precompute_reference_errors
    if settings.use_peft:
        seed = seed_of(settings.seed, "adapters")
        adapted = add_adapters(bare.network, settings.lora, bare.lora_targets, seed).eval()
        bare.set_network(adapted)
        return with_network(bare, WithoutAdapters(adapted)) if kept else None
    return frozen_copy(bare) if kept else None


def shard_networks(
    settings: TrainSettings, objective: Objective, bare: Model, reference: Model | None
) -> None:
    """Cut policy and reference over processes. Raises ValueError with what needs a whole network."""
    with_it = {
        "ema_decay": settings.ema_decay is not None,
        "precompute_reference_errors": settings.precompute_reference_errors,
        f"the objective {settings.objective.part_name()}, which samples": "reward" in objective.needs,
    }
    if found := [name for name, wanted in with_it.items() if wanted]:
        raise ValueError(f"shard_weights does not go with {' or '.join(found)}; leave one of them off")
    shard(bare.network)
    if reference is not None and not settings.use_peft:
        shard(reference.network)


def whole_policy(settings: TrainSettings, objective: Objective, state: dict[str, Tensor]) -> Model:
    """The policy out of its shares: the model read again, on the CPU, with what training changed of it."""
    model = copy.copy(settings.model).load("cpu")
    model.network.eval()
    prepare_networks(model, settings, objective)
    load_trained_state(model.network, state)
    return model


def average(network: torch.nn.Module, settings: TrainSettings) -> AveragedModel | None:
    """The moving average of a network's weights, where the settings want one."""
    if settings.ema_decay is None:
        return None
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(settings.ema_decay))


def make_optimizer(network: torch.nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """AdamW on what is trained."""
    return torch.optim.AdamW(
        [p for p in network.parameters() if p.requires_grad],
        lr=settings.learning_rate,
        betas=(settings.adam_beta1, settings.adam_beta2),
        weight_decay=settings.weight_decay,
        fused=next(network.parameters()).is_cuda,
    )
