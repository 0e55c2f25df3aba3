"""The networks of a training run: adapted policy, reference, shards, moving average, optimizer."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from foleypref.flow.convention import seed_of
from foleypref.models.backbones import Model
from foleypref.models.lora import WithoutAdapters, add_adapters, load_trained_state
from foleypref.models.sharding import shard
from foleypref.models.tools import frozen_copy, with_network
from foleypref.training.objectives import Objective
from foleypref.training.settings import TrainSettings


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
