"""Runs on pairs made by rule: the held-out grid, resume, stored errors, joint models."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from foleypref.models.tools import frozen_copy
from foleypref.train import train
from foleypref.training.curricula.ramp import Ramp
from foleypref.training.log import read_metrics
from foleypref.training.objectives.flow_dpo import FlowDPO
from foleypref.training.rule_settings import RulePairSettings
from foleypref.training.settings import needs_of
from foleypref.workspace.records import Clip, Failure, Feature, Pair
from foleypref.workspace.store import Workspace
from tests.test_train import TWO_PROCESSES, _spawn, assert_same_numbers, metrics_without_time
from tests.tiny import TinyModel, fill_workspace
from tests.training.contexts import laid_out
from tests.training.rule_pairs import make_context, make_rules, rule_settings, tiny


def test_the_grid_has_every_clip_rule_and_severity_and_spreads_bins_and_modalities(
    workspace: Workspace,
) -> None:
    joint = tiny(joint=True)
    rules = make_rules(workspace, joint)
    some = rules.side(rules.clips[:8])
    grid = some.grid(4)
    assert len(grid) == 8 * 3 * 3
    for name in ("shift", "replace", "scale"):
        for severity in (0.25, 0.5, 1.0):
            own = [(r, b) for r, b in grid if r.rule.part_name() == name and r.severity == severity]
            assert Counter(b for _, b in own) == {0: 2, 1: 2, 2: 2, 3: 2}
            assert Counter((r.modality, b) for r, b in own) == Counter(
                {(m, b): 1 for m in ("audio", "video") for b in range(4)}
            )
    assert {row.other.clip_id for row, _ in grid if row.other} <= {c.clip_id for c in some.clips}
    assert rules.side(rules.clips[:1]).grid(4)[3][0].other is not None


def test_held_out_batches_share_the_work_and_name_rule_severity_and_modality(workspace: Workspace) -> None:
    policy = tiny()
    context = make_context(workspace, policy)
    whole = [p.pair_id for batch in FlowDPO().eval_batches(context, policy) for p in batch.pairs]
    halves = [
        {
            p.pair_id
            for b in FlowDPO().eval_batches(laid_out(context, rank=r, num_processes=2), policy)
            for p in b.pairs
        }
        for r in range(2)
    ]
    assert len(whole) == len(set(whole)) == 24 * 3 * 3
    assert halves[0] | halves[1] == set(whole)
    assert not halves[0] & halves[1]
    batch = next(iter(FlowDPO().eval_batches(context, policy)))
    names = batch.groups[1]
    assert {"source/shift", "modality/audio", "severity/0.5", "source/shift/severity/0.5"} <= set(names)


def test_a_run_needs_clips_and_no_pairs_and_learns_to_tell_the_rules(workspace: Workspace) -> None:
    fill_workspace(workspace)
    workspace.replace_table(Pair, [])
    settings = rule_settings(
        negatives=RulePairSettings(rules=("shift", "scale")),  # one fading sound replaced is like another
        objective=FlowDPO(beta=60.0),
        max_steps=80,
        learning_rate=3e-3,
        num_eval_pairs=8,
    )
    assert needs_of(settings) == {"clips"}
    result = train(workspace, settings)
    first = read_metrics(result.folder)[0]
    assert first["eval/loss"] == pytest.approx(math.log(2), abs=1e-6)
    logs = result.logs
    assert logs["eval/rewards/accuracies"] > 0.85
    for name in (
        "source/shift",
        "source/scale",
        "severity/0.25",
        "source/shift/severity/1",
        "modality/audio",
    ):
        assert f"eval/rewards/accuracies/{name}" in logs
    assert "rewards/accuracies/source/scale" in {key for line in read_metrics(result.folder) for key in line}
    identity = json.loads((result.folder / "result.json").read_text())["identity"]
    assert identity["rules"].startswith("tiny/1 ")


def test_conditions_and_latents_are_made_once_and_shared_by_runs(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_workspace(workspace)
    workspace.replace_table(Feature, [])
    train(workspace, rule_settings())
    assert Counter(f.key for f in workspace.read(Feature)) == {"tiny/1": 24, "truths/tiny/1": 24}
    monkeypatch.setattr(TinyModel, "read", lambda *_: pytest.fail("nothing is to be read again"))
    train(workspace, rule_settings(run_name="second", seed=1))


def test_a_clip_that_cannot_be_encoded_is_a_failure_and_costs_itself_alone(workspace: Workspace) -> None:
    fill_workspace(workspace)
    clips = workspace.read(Clip)
    clips[0], clips[5] = replace(clips[0], path="broken.mp4"), replace(clips[5], has_audio=True)
    workspace.replace_table(Clip, clips)
    result = train(workspace, rule_settings())
    assert result.steps == 12
    (failure,) = [f for f in workspace.read(Failure) if f.stage == "truths"]
    assert (failure.item, failure.reason) == (clips[0].clip_id, f"{workspace.root}/broken.mp4: is broken")
    assert train(workspace, rule_settings()).steps == 12  # finished, and known as the same run


def test_an_interrupted_run_goes_on_to_the_same_bits(workspace: Workspace, tmp_path: Path) -> None:
    settings = rule_settings(
        curriculum=Ramp(kind="cosine"),
        negatives=RulePairSettings(
            rules=("shift", "replace", "mute", "freeze"), share=0.5, on="media", eval_severities=(0.5,)
        ),
    )
    fill_workspace(workspace)
    draws, count = FlowDPO.batches, iter(range(1000))

    def stop(self: FlowDPO, context: Any, step: int, policy: Any) -> Any:
        if next(count) == 10:
            raise KeyboardInterrupt
        return draws(self, context, step, policy)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FlowDPO, "batches", stop)
        with pytest.raises(KeyboardInterrupt):
            train(workspace, settings)
    resumed = train(workspace, settings)
    other = Workspace(tmp_path / "other")
    fill_workspace(other)
    unbroken = train(other, settings)
    assert resumed.weights.read_bytes() == unbroken.weights.read_bytes()
    assert metrics_without_time(resumed.folder) == metrics_without_time(unbroken.folder)


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bits_and_two_processes_give_its_curve(
    workspace: Workspace, tmp_path: Path
) -> None:
    fill_workspace(workspace)
    settings = rule_settings(
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        negatives=RulePairSettings(on="media", eval_severities=(0.5,)),
    )
    assert _spawn(workspace, settings, KILL_AT_STEP="10")[0] == -9
    resumed = train(workspace, settings)
    other = Workspace(tmp_path / "other" / "w")
    fill_workspace(other)
    assert resumed.weights.read_bytes() == train(other, settings).weights.read_bytes()

    fresh = Workspace(tmp_path / "fresh" / "w")  # its processes encode the clips together
    fill_workspace(fresh)
    two = settings.model_copy(update={"gradient_accumulation_steps": 1})
    code, said = _spawn(fresh, two, *TWO_PROCESSES)
    assert code == 0, said
    assert_same_numbers(resumed.folder, fresh.run_folder("train"))


def test_precomputed_reference_errors_are_found_where_the_rules_are_the_same(workspace: Workspace) -> None:
    fill_workspace(workspace)
    stored = {"precompute_reference_errors": True, "max_steps": 4, "save_steps": 4}
    live = train(workspace, rule_settings(run_name="live", **stored | {"precompute_reference_errors": False}))
    first = train(workspace, rule_settings(run_name="first", **stored))
    assert first.weights.read_bytes() == live.weights.read_bytes()
    places = workspace.root / "reference_errors"
    train(workspace, rule_settings(run_name="same", objective=FlowDPO(beta=5.0), **stored))
    assert len(list(places.iterdir())) == 1
    train(
        workspace,
        rule_settings(
            run_name="rules", negatives=RulePairSettings(rules=("shift",), eval_severities=(0.5,)), **stored
        ),
    )
    train(workspace, rule_settings(run_name="ramp", curriculum=Ramp(last=0.5), **stored))
    assert len(list(places.iterdir())) == 3


@pytest.mark.parametrize("distorted_modality", ["audio", "video"])
def test_both_terms_train_also_where_one_stream_alone_is_distorted(
    workspace: Workspace, distorted_modality: str
) -> None:
    policy = tiny(joint=True)
    settings = RulePairSettings(modality=distorted_modality)
    context = make_context(workspace, policy, settings)
    untouched = {"audio": "video", "video": "audio"}[distorted_modality]
    (batch,) = FlowDPO().batches(context, 0, policy)
    assert torch.equal(batch.chosen[untouched], batch.rejected[untouched])
    grads = []
    for betas in ({"audio": 600.0, "video": 600.0}, {distorted_modality: 600.0, untouched: 0.0}):
        objective, again = FlowDPO(beta=betas), tiny(joint=True)
        loss = objective.loss(again, frozen_copy(policy), batch)
        assert loss.value.item() == pytest.approx(2 * math.log(2), abs=1e-5)
        loss.value.backward()
        grads.append(torch.cat([p.grad.flatten() for p in again.network.parameters() if p.grad is not None]))
    # the untouched stream has the same latents and noise on both sides: what is left is the other's influence
    assert (grads[0] - grads[1]).norm() > 1e-3 * grads[0].norm()


def test_logs_of_a_joint_model_say_what_one_distorted_does_to_the_other(workspace: Workspace) -> None:
    fill_workspace(workspace, TinyModel(joint=True))
    result = train(workspace, rule_settings(model=TinyModel(joint=True, media=True), num_eval_pairs=8))
    wanted = {
        f"eval/rewards/{what}/{term}/modality/{which}"
        for what in ("margins", "accuracies")
        for term in ("audio", "video")
        for which in ("audio", "video")
    }
    assert wanted | {"eval/rewards/accuracies/audio", "eval/rewards/accuracies/modality/video"} <= set(
        result.logs
    )
