"""Finished runs, one of them saved, and a home that goes with the test."""

from __future__ import annotations

from pathlib import Path

import pytest

from foleypref.fit import FitSettings, fit
from foleypref.hub.saving import save_pretrained
from foleypref.workspace.store import Workspace
from tests import scored_workspace as made
from tests.hub.runs import trained_workspace


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return trained_workspace(tmp_path_factory.getbasetemp() / "hub-runs")


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches go with the test."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_HOME", raising=False)


@pytest.fixture
def saved(trained: Workspace, tmp_path: Path) -> Path:
    return save_pretrained(trained.run_folder("full"), tmp_path / "saved")


@pytest.fixture(scope="session")
def rated(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    values = made.rule_values(150)
    workspace, candidates = made.fill(tmp_path_factory.mktemp("hub") / "rated", 30, values)
    made.rate(workspace, candidates, made.rule_labels(values), ("ann", "bob"))
    fit(workspace, FitSettings(num_steps=20, num_shuffles=1))
    return workspace
