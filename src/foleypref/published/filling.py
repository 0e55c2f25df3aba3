"""Fill a network that was built on the meta device with tensors, or say what does not fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from torch import Tensor, nn

N = TypeVar("N", bound=nn.Module)
Adapt = Callable[[nn.Module], nn.Module]
"""A change to a network between filling it and casting its dtype: merging adapters, for example."""


def fill(
    network: N, state: Mapping[str, Tensor], *, role: str, advice: str, unknown: Sequence[str] = ()
) -> N:
    """Return `network` in float32 with the tensors of `state`, in eval mode without gradients.

    float32 tensors are not copied. `unknown`: names in the file that have no place in the network. Raises
    ValueError, which says that these are not the weights of `role` and gives `advice`, if a weight is
    missing, unknown or of another shape.
    """
    shapes = {name: value.shape for name, value in network.state_dict().items()}
    problems = [f"unknown {name}" for name in unknown]
    problems += [f"missing {name}" for name in shapes if name not in state]
    for name, value in state.items():
        if name not in shapes:
            problems.append(f"unexpected {name}")
        elif value.shape != shapes[name]:
            problems.append(f"{name} is {tuple(value.shape)}, expected {tuple(shapes[name])}")
    if problems:
        shown = "; ".join(problems[:3])
        raise ValueError(f"not the weights of {role}: {len(problems)} problems, first {shown}; {advice}")
    floats = {name: x.float() if x.is_floating_point() else x for name, x in state.items()}
    network.load_state_dict(floats, assign=True)
    return network.eval().requires_grad_(False)
