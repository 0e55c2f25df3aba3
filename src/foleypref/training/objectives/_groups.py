"""Logs by group: every item of a batch belongs to a time bin, a source and perhaps more groups.

Letters: B items of a batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

NUM_TIME_BINS = 4


def time_bins(t: Float[Tensor, " B"]) -> list[str]:
    """Return the group of each time: "t0" for the first quarter from noise, up to "t3"."""
    return [f"t{min(int(time * NUM_TIME_BINS), NUM_TIME_BINS - 1)}" for time in t.tolist()]


def bin_middles(indices: list[int]) -> Float[Tensor, " B"]:
    """Return the times in the middle of the time bins `indices`."""
    return torch.tensor([(index + 0.5) / NUM_TIME_BINS for index in indices])


def by_group(
    logs: Mapping[str, Float[Tensor, " B"]], groups: Sequence[Sequence[str]], prefix: str = ""
) -> dict[str, Float[Tensor, " _"]]:
    """Split logs (B,) by the items' groups that begin with `prefix`: `rewards/margins/t0`, `.../stage/1`."""
    rows: dict[str, list[int]] = {}
    for row, names in enumerate(groups):
        for name in names:
            if name.startswith(prefix):
                rows.setdefault(name, []).append(row)
    return {
        f"{key}/{name}": value[torch.tensor(members, device=value.device)]
        for key, value in logs.items()
        for name, members in rows.items()
    }
