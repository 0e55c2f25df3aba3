"""What every test has: a fresh workspace, and torch held to one thread so that timings and sums repeat."""

from __future__ import annotations

import os

# Before numpy: on a loaded machine OpenBLAS's threads wait for each other far longer than they work.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from pathlib import Path

import pytest
import torch

from foleytune.store import Workspace


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """An empty workspace in a folder of its own."""
    return Workspace(tmp_path / "workspace")
