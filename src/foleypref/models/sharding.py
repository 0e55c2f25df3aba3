"""A network's weights cut over processes (FSDP2), for backbones that training does not fit beside on one GPU.

Each process keeps its share of every parameter, gradient and moment; a block's weights are put together while
it runs and let go again. It is torch's `fully_shard`; what is here says which blocks, and turns shares into
whole tensors for checkpoints and back, so a checkpoint does not tell how many processes made it.
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
    """Cut a network over all processes, in place: block by block, what is outside of blocks together.

    Blocks are the members of its outermost lists of modules.
    """
    from torch.distributed.fsdp import fully_shard

    for block in _blocks(network):
        fully_shard(block)
    fully_shard(network)


def _blocks(module: nn.Module) -> list[nn.Module]:
    found: list[nn.Module] = []
    for child in module.children():
        found += list(child) if isinstance(child, nn.ModuleList) else _blocks(child)
    return [block for block in found if any(True for _ in block.parameters())]


def is_sharded(network: nn.Module) -> bool:
    """Whether `shard` has been here."""
    # not by its parameters: after a forward pass the outermost ones are whole for a while
    fsdp = sys.modules.get("torch.distributed.fsdp")
    return fsdp is not None and isinstance(network, fsdp.FSDPModule)


def _is_share(value: Any) -> TypeGuard[DTensor]:
    return hasattr(value, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """A tensor put together from all processes' shares, each of which must call this; others as they are."""
    return tensor.full_tensor() if _is_share(tensor) else tensor


def gathered(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state dict with whole tensors: process 0's, on its CPU where they were shares; the others' are empty.

    Every process must call it. Nested mappings are followed.
    """
    found: dict[str, Any] = {}
    for key, value in state.items():
        if isinstance(value, Mapping):
            found[key] = gathered(value)
        elif _is_share(value):
            tensor = value.full_tensor()
            found[key] = tensor.cpu() if dist.get_rank() == 0 else torch.empty(0)
        else:
            found[key] = value
    return found


def shared_out(state: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Whole tensors cut as those of the same name in `like` are; where these are whole, so are they."""
    return {key: share_of(value, like[key]) if key in like else value for key, value in state.items()}


def share_of(value: Tensor, like: Tensor) -> Tensor:
    """This process's share of a whole tensor that every process has, cut as `like` is."""
    if not _is_share(like) or value.shape != like.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    mesh = like.device_mesh
    return distribute_tensor(value.to(like.device), mesh, like.placements, src_data_rank=None)


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """`optimizer.state_dict()` with whole moments, as of one process. Every process must call it."""
    stored = optimizer.state_dict()
    return {**stored, "state": gathered(stored["state"])}


def load_optimizer_state(optimizer: torch.optim.Optimizer, stored: Mapping[str, Any]) -> None:
    """The inverse of `optimizer_state`, on any number of processes."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state = {
        index: {
            key: share_of(value, parameters[index]) if isinstance(value, Tensor) else value
            for key, value in moments.items()
        }
        for index, moments in stored["state"].items()
    }
    optimizer.load_state_dict({**stored, "state": state})
