"""Rename the tensors of a state dict from one library's names to another's, by a table of patterns."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor


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
    """Rename every tensor by the first rule that matches its name.

    A tensor that cannot be cut into equal parts counts as unknown.
    """
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
