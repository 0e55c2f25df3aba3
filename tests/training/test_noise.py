"""Which noise each side of a pair is mixed with: shared, independent, or the one that made it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from foleypref.flow.convention import Latents, expand, integrate, seed_of
from foleypref.models.backbones import Conditions
from foleypref.models.tools import frozen_copy, sample_latents
from foleypref.sample import SampleSettings, sample
from foleypref.training.context import TrainContext
from foleypref.training.data import TrainData
from foleypref.training.objectives._pairs import PairBatch
from foleypref.training.objectives.flow_dpo import FlowDPO
from foleypref.workspace.records import GROUND_TRUTH, Candidate, Feature, Pair
from foleypref.workspace.store import Workspace
from tests.tiny import TinyModel, fill_workspace
from tests.training.contexts import make_context


class Straight(TinyModel):
    """A flow whose every path is straight: x1 = a + s x0, a and s of the clip's condition."""

    def velocity(self, x_t: Latents, t: Tensor, conditions: Conditions) -> Latents:
        """a + (s − 1) x0, where x_t = (1 − t + t s) x0 + t a."""
        found = {}
        for key, x in x_t.items():
            a, s = expand(conditions["clip"][:, 0], x), 0.5 + expand(conditions["clip"][:, 1].abs(), x)
            x0 = (x - expand(t, x) * a) / (1 - expand(t, x) * (1 - s))
            found[key] = a + (s - 1) * x0
        return found


def _sampled(workspace: Workspace, model: TinyModel) -> list[Pair]:
    """Pairs of candidates that the sampling stage made with `model`."""
    fill_workspace(workspace)
    settings = SampleSettings(
        model=model, split="train", num_candidates=2, first_seed=7, num_steps=4, guidance_scale=1.0
    )
    sample(workspace, settings)
    by_clip: dict[str, list[Candidate]] = {}
    for candidate in workspace.read(Candidate):
        if candidate.seed >= 7:
            by_clip.setdefault(candidate.clip_id, []).append(candidate)
    pairs = []
    for clip_id, (first, second) in sorted(by_clip.items()):
        ids = (clip_id, first.candidate_id, second.candidate_id)
        pairs.append(Pair(Pair.make_id(*ids, "auto"), ids[0], "", *ids[1:], 0.9, 0.1, 0.5, "auto"))
    return pairs


def _context_of(workspace: Workspace, pairs: list[Pair]) -> TrainContext:
    context = make_context(Workspace(workspace.root / "other"), TinyModel())
    return dataclasses.replace(
        context,
        workspace=workspace,
        data=TrainData(pairs=pairs),
        candidates=workspace.by_id(Candidate),
        features={f.item_id: f for f in workspace.read(Feature)},
    )


def test_tracked_noise_is_the_noise_that_made_each_candidate(workspace: Workspace) -> None:
    model = TinyModel().load()
    context = _context_of(workspace, _sampled(workspace, model))
    (batch,) = FlowDPO(noise="tracked").batches(context, 3, model)
    (shared,) = FlowDPO().batches(context, 3, model)
    assert batch.x0_rejected is not None

    def made(x0: Latents) -> Tensor:
        with torch.no_grad():
            return integrate(lambda x, t: model.velocity(x, t, batch.conditions), x0, 4)["audio"]

    # latents are stored in half precision
    torch.testing.assert_close(made(batch.x0), batch.chosen["audio"], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(made(batch.x0_rejected), batch.rejected["audio"], rtol=1e-3, atol=1e-3)
    assert (made(shared.x0) - batch.chosen["audio"]).abs().mean() > 0.1
    assert batch.item_ids == shared.item_ids
    assert torch.equal(batch.t, shared.t)
    seed = context.candidates[batch.pairs[0].chosen].seed
    alone = sample_latents(
        model,
        {"clip": batch.conditions["clip"][:1]},
        [seed_of(seed, batch.pairs[0].clip_id)],
        num_steps=4,
        guidance_scale=1.0,
    )
    torch.testing.assert_close(alone["audio"].detach(), batch.chosen["audio"][:1], rtol=1e-3, atol=1e-3)


def test_a_straight_flow_makes_no_error_on_tracked_noise(workspace: Workspace) -> None:
    model = Straight().load()
    context = _context_of(workspace, _sampled(workspace, model))
    errors = {}
    for noise in ("shared", "independent", "tracked"):
        objective = FlowDPO.model_validate({"noise": noise})
        (batch,) = objective.batches(context, 0, model)
        errors[noise] = objective.reference_errors(model, batch)["audio"]
    assert errors["tracked"].max() < 1e-5
    assert errors["shared"].min() > 1e-2
    assert errors["independent"].min() > 1e-2


def test_a_side_without_a_seed_keeps_the_shared_noise_and_is_counted(workspace: Workspace) -> None:
    policy = TinyModel().load()
    context = make_context(workspace, policy)
    true = {pair.chosen for pair in context.data.pairs[::2]}
    candidates = {
        key: dataclasses.replace(c, model=GROUND_TRUTH) if key in true else c
        for key, c in context.candidates.items()
    }
    context = dataclasses.replace(context, candidates=candidates)
    objective = FlowDPO(noise="tracked")
    (batch,), (shared,) = (o.batches(context, 1, policy) for o in (objective, FlowDPO()))
    assert batch.x0_rejected is not None
    rows = torch.tensor([pair.chosen in true for pair in batch.pairs])
    assert rows.sum() > 0
    assert torch.equal(batch.x0["audio"][rows], shared.x0["audio"][rows])
    differs = (batch.x0["audio"] != shared.x0["audio"]).flatten(1).all(1)
    assert torch.equal(differs, ~rows)
    assert (batch.x0_rejected["audio"] != shared.x0["audio"]).all()
    logs = objective.loss(policy, frozen_copy(policy), batch).logs
    expected = torch.cat([(~rows).float(), torch.ones(len(rows))])
    assert torch.equal(torch.as_tensor(logs["flow/tracked_frac"]), expected)
    assert "flow/tracked_frac" not in FlowDPO().loss(policy, frozen_copy(policy), shared).logs


def test_independent_noise_leaves_the_chosen_theirs(workspace: Workspace) -> None:
    policy = TinyModel().load()
    context = make_context(workspace, policy)
    (batch,), (shared,) = (FlowDPO(noise=n).batches(context, 1, policy) for n in ("independent", "shared"))
    assert shared.x0_rejected is None
    assert batch.x0_rejected is not None
    assert torch.equal(batch.x0["audio"], shared.x0["audio"])
    assert (batch.x0_rejected["audio"] != batch.x0["audio"]).all()
    assert torch.equal(batch.t, shared.t)


@pytest.mark.parametrize("noise", ["independent", "tracked"])
def test_the_held_out_grid_shares_its_noise_whatever_training_does(workspace: Workspace, noise: Any) -> None:
    policy = TinyModel().load()
    context = make_context(workspace, policy)

    def grids(objective: FlowDPO) -> list[PairBatch]:
        return list(objective.eval_batches(context, policy))

    for here, there in zip(grids(FlowDPO(noise=noise)), grids(FlowDPO()), strict=True):
        assert here.x0_rejected is None
        assert torch.equal(here.x0["audio"], there.x0["audio"])
