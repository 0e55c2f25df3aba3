"""What every test has: a fresh workspace, checked shapes, and torch on one thread so that sums repeat."""

from __future__ import annotations

import os
import sys

# Before numpy: on a loaded machine OpenBLAS's threads wait for each other far longer than they work.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from pathlib import Path

import jaxtyping
import pytest
import torch

from tests import shapes

# Before foleypref: the hook rewrites a module while it is imported.
assert not any(name in sys.modules for name in shapes.annotated_modules())
jaxtyping.install_import_hook(shapes.annotated_modules(), shapes.CHECKER)

from foleypref.workspace.store import Workspace  # noqa: E402


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """An empty workspace in a folder of its own."""
    return Workspace(tmp_path / "workspace")


@pytest.fixture
def filled(workspace: Workspace) -> Workspace:
    """A workspace with 48 pairs of 24 clips, for a tiny model."""
    from tests.tiny import fill_workspace

    fill_workspace(workspace)
    return workspace
