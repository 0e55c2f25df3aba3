"""An empty weights folder, and one with a small published file in it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.weight_files import (
    PLAIN,
    plain_state,
    register,
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty weights folder; home and the hub's cache are elsewhere and empty."""
    for name in ("FOLEYPREF_WEIGHTS", "FOLEYTUNE_WEIGHTS", "HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


@pytest.fixture
def plain(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A torch file in the weights folder that the registry knows by size and hash."""
    path = folder / PLAIN.name
    torch.save({"weights": plain_state(), "it": 3}, path)
    register(monkeypatch, PLAIN, path)
    return path
