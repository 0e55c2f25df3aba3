"""Network passes that are planned and reported, against those that the samplers take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from foleypref.flow.convention import guidance_passes, noise_like_rows
from foleypref.models.tools import guided_velocity, sample_latents
from foleypref.recipes.passes import integration_passes, sampled_passes
from foleypref.recipes.plan import plan
from foleypref.recipes.recipe import changed, resolve
from foleypref.training.objectives.ddpo import DDPO
from foleypref.training.objectives.nft import NFT
from foleypref.workspace.store import Workspace
from tests.tiny import TinyModel

SOLVERS = ("euler", "midpoint", "rk4", "released_rk4")
SCALES = (0.5, 1.0, 2.0)


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows of conditions each velocity call of the tiny model has had."""
    calls: list[int] = []
    velocity = TinyModel.velocity

    def counted(self: TinyModel, x: Any, t: Any, conditions: Any) -> Any:
        calls.append(len(next(iter(conditions.values()))))
        return velocity(self, x, t, conditions)

    monkeypatch.setattr(TinyModel, "velocity", counted)
    return calls


def conditions_of(model: TinyModel, num: int) -> Any:
    medium = model.read(Path("a.mp4"), prompt="a dog")
    return model.condition([medium] * num)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("scale", SCALES)
def test_a_sampler_takes_the_passes_that_are_counted(rows: list[int], solver: Any, scale: float) -> None:
    model = TinyModel().load()
    how = {"num_steps": 3, "guidance_scale": scale, "solver": solver}
    sample_latents(model, conditions_of(model, 2), [0, 1], **how)
    assert sum(rows) == 2 * integration_passes(3, solver, scale)


@pytest.mark.parametrize("scale", SCALES)
def test_a_guided_velocity_takes_the_passes_that_are_counted(rows: list[int], scale: float) -> None:
    model = TinyModel().load()
    velocity = guided_velocity(model, conditions_of(model, 2), scale)
    velocity(noise_like_rows(model.spec.latents, [0, 1]), torch.full((2,), 0.5))
    assert sum(rows) == 2 * guidance_passes(scale)


def test_a_scale_of_one_or_less_is_one_pass_in_every_objective() -> None:
    for objective in (NFT, DDPO):
        half, one, two = (objective(guidance_scale=scale).forwards for scale in SCALES)
        assert half == one < two


def test_dopri5_is_planned_at_the_least_that_it_takes(rows: list[int]) -> None:
    model = TinyModel().load()
    sample_latents(model, conditions_of(model, 1), [0], num_steps=2, guidance_scale=2.0, solver="dopri5")
    assert sum(rows) > integration_passes(2, "dopri5", 2.0) == 2 * 6 * 2


@pytest.mark.parametrize(
    ("solver", "times"), [("midpoint", 2), ("rk4", 4), ("released_rk4", 4), ("dopri5", 6)]
)
def test_the_plan_counts_the_passes_of_the_solver(tmp_path: Path, solver: str, times: int) -> None:
    workspace, euler = Workspace(tmp_path), resolve("world_demo-ci")
    other = changed(
        euler,
        sample=changed(euler.sample, solver=solver),
        evaluate=changed(euler.evaluate, solver=solver),
    )
    before, after = ({s.name: s for s in plan(workspace, recipe)} for recipe in (euler, other))
    assert before["sample"].passes > 0
    for name in ("sample", "test"):
        assert after[name].passes == times * before[name].passes
    assert after["train"].passes == before["train"].passes


def test_the_plan_counts_a_scale_below_one_once(tmp_path: Path) -> None:
    workspace, recipe = Workspace(tmp_path), resolve("world_demo-ci")
    half, one, two = (
        changed(
            recipe,
            sample=changed(recipe.sample, guidance_scale=scale),
            evaluate=changed(recipe.evaluate, guidance_scales=(scale,)),
        )
        for scale in SCALES
    )
    plans = [{s.name: s.passes for s in plan(workspace, r)} for r in (half, one, two)]
    for name in ("sample", "test"):
        assert plans[0][name] == plans[1][name] == plans[2][name] / 2
    assert sampled_passes(half, 10) == sampled_passes(one, 10) == sampled_passes(two, 10) / 2
