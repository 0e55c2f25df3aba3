"""Versions and hardware, for bug reports and for the record of a run."""

from __future__ import annotations

import platform
import sys
from importlib import metadata

import torch

from foleypref.workspace.pool import usable_cores

PACKAGES = ("torch", "numpy", "av", "pyarrow", "safetensors", "pydantic", "tyro", "accelerate", "pesq")


def environment() -> str:
    """Return versions and hardware as `name: value` lines."""
    rows = [("foleypref", _version("foleypref")), ("python", sys.version.split()[0])]
    rows += [(name, _version(name)) for name in PACKAGES]
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
    rows += [("os", platform.platform()), ("cpus", str(usable_cores())), ("gpu", gpu)]
    return "\n".join(f"{name}: {value}" for name, value in rows)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
