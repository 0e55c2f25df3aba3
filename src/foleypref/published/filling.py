"""Fill a network with the tensors of a published file, renamed by a table of patterns where names differ."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

N = TypeVar("N", bound=nn.Module)
Adapt = Callable[[nn.Module], nn.Module]
"""A change to a network between filling it and casting its dtype: merging adapters, for example."""


def fill(
    build: Callable[[], N],
    state: Mapping[str, Tensor],
    *,
    role: str,
    advice: str,
    unknown: Sequence[str] = (),
) -> N:
    """Build a network in float32 with the tensors of `state`, in eval mode without gradients.

    float32 tensors are not copied. `unknown`: names in the file that have no place in the network. Raises
    ValueError, which says that these are not the weights of `role` and gives `advice`, if a weight is
    missing, unknown or of another shape.
    """
    with torch.device("meta"):
        network = build()
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


class Rule(NamedTuple):
    """Templates (`re.Match.expand`) of the new names of tensors whose whole old name matches `pattern`."""

    pattern: str
    names: tuple[str, ...]


class Renamed(NamedTuple):
    """The tensors under their new names, and the old names that no rule matched."""

    state: dict[str, Tensor]
    unknown: list[str]


def rule(pattern: str, *names: str) -> Rule:
    """Return a rule: no name drops a tensor, several cut it along its first dimension into equal parts."""
    return Rule(pattern, names)


def rename(state: Mapping[str, Tensor], rules: Sequence[Rule]) -> Renamed:
    """Rename every tensor by the first rule that matches. One that cannot be cut equally is unknown."""
    patterns = [(re.compile(pattern), names) for pattern, names in rules]
    renamed = Renamed({}, [])
    for old, tensor in state.items():
        matches = ((pattern.fullmatch(old), names) for pattern, names in patterns)
        match, names = next(((match, names) for match, names in matches if match), (None, ()))
        if match is None or (len(names) > 1 and len(tensor) % len(names)):
            renamed.unknown.append(old)
        elif names:
            parts = [tensor] if len(names) == 1 else tensor.chunk(len(names))
            renamed.state.update({match.expand(name): part for name, part in zip(names, parts)})
    return renamed


def prefixed(rules: Sequence[Rule], old: str, new: str) -> list[Rule]:
    """Return the rules for the same names under the prefix `old`, renamed to lie under `new`."""
    return [
        rule(f"{re.escape(old)}(?:{pattern})", *(new + name for name in names)) for pattern, names in rules
    ]


def below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
