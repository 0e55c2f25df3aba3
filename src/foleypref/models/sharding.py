"""Shard a network's weights over processes (FSDP2), for backbones too large to train on one GPU.

Each process keeps its share of every parameter, gradient and moment; a block's weights are gathered while it
runs and freed afterwards. torch's `fully_shard` does the work. This module chooses the blocks and converts
between shares and whole tensors, so that a checkpoint does not depend on the number of processes.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
import torch.distributed as dist
from torch import Tensor, nn

if TYPE_CHECKING:  # importing it takes a second and a half, which every command would wait for
    from torch.distributed.tensor import DTensor


def shard(network: nn.Module) -> None:
    """Shard a network in place: each member of its outermost module lists by itself, then the rest."""
    from torch.distributed.fsdp import fully_shard

    for block in _blocks(network):
        fully_shard(block)
    fully_shard(network)


def _blocks(module: nn.Module) -> list[nn.Module]:
    blocks: list[nn.Module] = []
    for child in module.children():
        blocks += list(child) if isinstance(child, nn.ModuleList) else _blocks(child)
    return [block for block in blocks if any(True for _ in block.parameters())]


def is_sharded(network: nn.Module) -> bool:
    """Return whether `shard` has been applied to the network."""
    # not by its parameters: after a forward pass the outermost ones are whole for a while
    fsdp = sys.modules.get("torch.distributed.fsdp")
    return fsdp is not None and isinstance(network, fsdp.FSDPModule)


def _is_share(value: Any) -> TypeGuard[DTensor]:
    return hasattr(value, "full_tensor")


def unshard(tensor: Tensor) -> Tensor:
    """Return the whole tensor of a sharded one, others unchanged. Every process must call it."""
    return tensor.full_tensor() if _is_share(tensor) else tensor


def gather_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state dict (nested or not) with whole tensors. Every process must call it.

    Tensors that were sharded come back on process 0's CPU; other processes get empty ones in their place.
    """
    whole: dict[str, Any] = {}
    for key, value in state.items():
        if isinstance(value, Mapping):
            whole[key] = gather_state(value)
        elif _is_share(value):
            tensor = value.full_tensor()
            whole[key] = tensor.cpu() if dist.get_rank() == 0 else torch.empty(0)
        else:
            whole[key] = value
    return whole


def shard_like(state: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Shard each tensor like its namesake in `like`; where that one is unsharded, leave it whole."""
    return {key: share_of(value, like[key]) if key in like else value for key, value in state.items()}


def share_of(value: Tensor, like: Tensor) -> Tensor:
    """Return this process's share of a tensor that every process holds whole, sharded like `like`."""
    if not _is_share(like) or value.shape != like.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return `optimizer.state_dict()` with whole moments, as in one process. Every process must call it."""
    return gather_state(optimizer.state_dict())


def load_optimizer_state(optimizer: torch.optim.Optimizer, stored: Mapping[str, Any]) -> None:
    """Load what `optimizer_state` returned, on any number of processes."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state = {
        index: {
            key: share_of(value, parameters[index]) if isinstance(value, Tensor) else value
            for key, value in moments.items()
        }
        for index, moments in stored["state"].items()
    }
    optimizer.load_state_dict({**stored, "state": state})
