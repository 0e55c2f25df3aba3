"""Tensors into a network that was built on the meta device, or an error that says what does not fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from torch import Tensor, nn

N = TypeVar("N", bound=nn.Module)
Adapt = Callable[[nn.Module], nn.Module]
"""What is done with a network between its weights and its dtype: merging adapters, for example."""


def fill(network: N, state: Mapping[str, Tensor], unknown: Sequence[str], what: str, advice: str) -> N:
    """`network` in float32 around the tensors of `state`, float32 ones in place; eval mode, no gradients.

    `unknown` are names of the file that have no place here. Raises ValueError, saying that these are not the
    weights of `what` and what to give, when a weight is missing, unknown or of another shape.
    """
    wanted = {name: value.shape for name, value in network.state_dict().items()}
    problems = [f"unknown {name}" for name in unknown]
    problems += [f"missing {name}" for name in wanted if name not in state]
    for name, value in state.items():
        if name not in wanted:
            problems.append(f"unexpected {name}")
        elif value.shape != wanted[name]:
            problems.append(f"{name} is {tuple(value.shape)}, expected {tuple(wanted[name])}")
    if problems:
        shown = "; ".join(problems[:3])
        raise ValueError(f"not the weights of {what}: {len(problems)} problems, first {shown}; {advice}")
    floats = {name: x.float() if x.is_floating_point() else x for name, x in state.items()}
    network.load_state_dict(floats, assign=True)
    return network.eval().requires_grad_(False)
