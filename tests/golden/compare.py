"""How far a tensor of ours is from a golden one: the one comparison that every golden check uses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

LIMIT = 1e-5


def relative_error(ours: Tensor, expected: Tensor) -> float:
    """max|ours - expected| / max|expected|, computed in float64; 0.0 means equal.

    Shapes must be equal, and so must the kind of number (bool, integer, real, complex): else ValueError.
    Bools and integers are compared exactly: any difference is infinitely wrong. Floats of another width are
    compared by value. NaN and infinities must stand in the same places. An expected tensor of zeros allows
    nothing but zeros.
    """
    if ours.shape != expected.shape:
        raise ValueError(f"shape {tuple(ours.shape)}, expected {tuple(expected.shape)}")
    if _kind(ours.dtype) != _kind(expected.dtype):
        raise ValueError(f"dtype {ours.dtype}, expected {expected.dtype}")
    ours, expected = ours.detach().cpu(), expected.detach().cpu()
    if _kind(expected.dtype) in ("bool", "integer"):
        return 0.0 if torch.equal(ours.to(torch.int64), expected.to(torch.int64)) else float("inf")
    wide = torch.complex128 if expected.is_complex() else torch.float64
    return _real_error(ours.to(wide), expected.to(wide))


def _real_error(ours: Tensor, expected: Tensor) -> float:
    finite = torch.isfinite(expected)
    if not torch.equal(torch.isfinite(ours), finite):
        return float("inf")
    if not torch.equal(ours[~finite].nan_to_num(), expected[~finite].nan_to_num()):
        return float("inf")
    if not finite.any():
        return 0.0
    worst = float((ours[finite] - expected[finite]).abs().max())
    if worst == 0.0:
        return 0.0
    scale = float(expected[finite].abs().max())
    return worst / scale if scale > 0 else float("inf")


def _kind(dtype: torch.dtype) -> str:
    if dtype == torch.bool:
        return "bool"
    if dtype.is_complex:
        return "complex"
    return "real" if dtype.is_floating_point else "integer"


def integers(values: Any) -> Tensor:
    """An integer or a list of them as a tensor."""
    return torch.tensor(values, dtype=torch.int64)


def reals(values: Any) -> Tensor:
    """A number or a list of them as a tensor."""
    return torch.tensor(values, dtype=torch.float64)


def texts(ours: Mapping[str, Any], listed: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Two listings of keys and shapes as bytes, so that they compare as integers do: exactly."""
    left, right = (
        "\n".join(sorted(f"{key} {list(shape)}" for key, shape in shapes.items())).encode()
        for shapes in (ours, listed)
    )
    return integers(list(left)), integers(list(right))
