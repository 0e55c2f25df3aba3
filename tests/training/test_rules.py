"""Pairs made by rule: how they are drawn, what they hold, what a run does with them and how it goes on."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from foleypref.models.backbones import Media
from foleypref.settings import parts as plugins
<<<<<<< HEAD
from foleypref.training.distortion import RuleRow, distorted_media
=======
from foleypref.settings.flags import parse
from foleypref.settings.parts import Settings
from foleypref.train import TrainSettings, train
from foleypref.training.context import make_rule_pairs
from foleypref.training.curricula.ramp import Ramp
from foleypref.training.curricula.uniform import Uniform
from foleypref.training.distortion import RuleRow, distorted
from foleypref.training.log import read_metrics
>>>>>>> ea2cdf8 (Every verb is one class whose fields are its arguments, which tyro parses and shows; unknown settings are refused by their own class with the nearest name)
from foleypref.training.negatives.shift import Shift
from foleypref.training.objectives._pairs import PairBatch
from foleypref.training.objectives.flow_dpo import FlowDPO
from foleypref.training.objectives.sft import SFT
from foleypref.training.rule_settings import RulePairSettings
from foleypref.workspace.records import Clip
from foleypref.workspace.store import Workspace
from tests.tiny import TinyModel
from tests.training.contexts import laid_out
from tests.training.rule_pairs import make_context, make_rules, tiny

# -- what is drawn -------------------------------------------------------------------------------------------


def test_rows_are_a_function_of_seed_and_step(workspace: Workspace) -> None:
    rules = make_rules(workspace, tiny())
    rows = rules.draw(0, 3, 10, num=16, severity=1.0)
    assert rules.draw(0, 3, 10, num=16, severity=1.0) == rows
    assert rules.draw(0, 4, 10, num=16, severity=1.0) != rows
    assert rules.draw(1, 3, 10, num=16, severity=1.0) != rows
    assert len({row.pair.pair_id for row in rows}) == 16


def test_every_clip_comes_before_any_comes_again(workspace: Workspace) -> None:
    rules = make_rules(workspace, tiny())
    visits = Counter(
        row.clip.clip_id for step in range(6) for row in rules.draw(0, step, 10, num=8, severity=1.0)
    )
    assert set(visits.values()) == {2}
    assert len(visits) == 24


def test_severities_lie_in_the_band_below_the_curriculum_s(workspace: Workspace) -> None:
    rules = make_rules(workspace, tiny(), RulePairSettings(severity_spread=0.5))
    found = [row.severity for step in range(20) for row in rules.draw(0, step, 20, num=16, severity=0.6)]
    assert 0.3 <= min(found) < 0.32
    assert 0.58 < max(found) <= 0.6
    exact = replace(rules, settings=RulePairSettings(severity_spread=0.0))
    assert {row.severity for row in exact.draw(0, 0, 20, num=16, severity=0.6)} == {0.6}


def test_modalities_come_alike_for_a_joint_model_and_only_where_a_rule_acts(workspace: Workspace) -> None:
    joint = tiny(joint=True)
    rules = make_rules(workspace, joint, RulePairSettings(rules=("shift", "mute")))
    found = Counter(
        (row.rule.part_name(), row.modality)
        for step in range(20)
        for row in rules.draw(0, step, 20, num=20, severity=1.0)
    )
    assert set(found) == {("shift", "audio"), ("shift", "video"), ("mute", "audio")}
    assert found["shift", "audio"] == pytest.approx(found["shift", "video"], abs=45)
    audio = replace(rules, settings=RulePairSettings(modality="audio"))
    assert {row.modality for row in audio.draw(0, 0, 20, num=20, severity=1.0)} == {"audio"}
    alone = make_rules(workspace, tiny(), RulePairSettings())
    assert {row.modality for row in alone.draw(0, 0, 20, num=20, severity=1.0)} == {"audio"}


def test_other_clips_are_others_and_of_the_class_asked_for(workspace: Workspace) -> None:
    rules = make_rules(workspace, tiny(), RulePairSettings(rules=("replace",)))
    labels = [None, "a", "a", "b", "b", "lone"]
    clips = [
        replace(clip, meta={} if labels[i % 6] is None else {"label": labels[i % 6]})
        for i, clip in enumerate(rules.clips)
    ]
    clips = [c for i, c in enumerate(clips) if c.meta.get("label") != "lone" or i == 5]

    def others(pool: str) -> list[tuple[str | None, str | None]]:
        settings = RulePairSettings(rules=("replace",), replace_pool=pool)
        source = replace(rules, settings=settings, clips=clips, pool=clips)
        rows = [row for step in range(30) for row in source.draw(0, step, 30, num=12, severity=1.0)]
        assert all(row.other is not None and row.other.clip_id != row.clip.clip_id for row in rows)
        return [(row.clip.meta.get("label"), row.other.meta.get("label")) for row in rows if row.other]

    assert len(set(others("any"))) > 12
    same = others("same_class")
    assert all(a == b for a, b in same if a in ("a", "b"))
    assert {a for a, b in same if a != b} == {None, "lone"}  # no class, or none but itself: from all
    assert all(a != b and b is not None for a, b in others("other_class") if a is not None)


# -- what a pair holds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("on", ["latents", "media"])
@pytest.mark.parametrize("joint", [False, True])
def test_the_chosen_side_is_the_clip_s_own_and_one_modality_of_the_other_is_distorted(
    workspace: Workspace, on: str, joint: bool
) -> None:
    model = tiny(joint=joint)
    # two steps of video are too few for scale and speed to change anything
    names = ("shift", "replace", "mute", "shuffle") if joint else plugins.names("negatives")
    settings = RulePairSettings(on=on, rules=names)
    rules = make_rules(workspace, model, settings)
    rows = rules.draw(0, 0, 10, num=24, severity=1.0)
    chosen, rejected = rules.latents(rows, model)
    true = model.encode_media([model.read(Path(row.clip.path)) for row in rows])
    for index, row in enumerate(rows):
        for key in chosen:
            torch.testing.assert_close(chosen[key][index], true[key][index], atol=1e-3, rtol=0)
            same = torch.equal(chosen[key][index], rejected[key][index])
            assert same == (key != row.modality), (row.rule.part_name(), key)
    for side in (chosen, rejected):
        assert all(torch.equal(value, value.half().float()) for value in side.values())


def test_a_picture_is_encoded_where_it_is_distorted_alone(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny(joint=True)
    rules = make_rules(workspace, model, RulePairSettings(on="media", rules=("shift",)))
    rows = rules.draw(0, 0, 10, num=12, severity=1.0)
    pictures, whole = [], TinyModel.encode_media

    def counted(self: TinyModel, media: Any) -> Any:
        pictures.append(len(media))
        return whole(self, media)

    monkeypatch.setattr(TinyModel, "encode_media", counted)
    rules.latents(rows, model)
    assert pictures == [sum(row.modality == "video" for row in rows)]
    assert 0 < pictures[0] < len(rows)


def test_a_pair_is_a_record_that_names_its_rule(workspace: Workspace) -> None:
    (row,) = make_rules(workspace, tiny(), RulePairSettings(rules=("shift",))).draw(
        0, 0, 10, num=1, severity=0.8
    )
    pair = row.pair
    assert (pair.source, pair.clip_id, pair.complexity) == ("shift", row.clip.clip_id, row.severity)
    assert pair.score_chosen > pair.score_rejected
    assert replace(row, severity=0.3).pair.pair_id != pair.pair_id
    assert replace(row, rule=Shift(max_s=1.0)).pair.pair_id != pair.pair_id


def test_mute_reaches_the_latents_of_silence(workspace: Workspace) -> None:
    model = tiny()
    rules = make_rules(workspace, model, RulePairSettings(rules=("mute",), severity_spread=0.0))
    _, rejected = rules.latents(rules.draw(0, 0, 10, num=4, severity=1.0), model)
    assert torch.equal(rejected["audio"], torch.zeros_like(rejected["audio"]))


def test_media_bring_what_follows_the_window(workspace: Workspace) -> None:
    class Long(TinyModel):
        def read(self, path: Path, start_s: float = 0.0, prompt: str = "", *, audio: bool = True) -> Media:
            samples = torch.arange(240, dtype=torch.float32) / 240
            begin = round(start_s * 24)
            return Media({}, samples[begin : begin + 24].numpy(), prompt)

    clip = replace(Clip("c", "c.mp4", "train", "", 1.0, 2.0, 24, 8, 8, True))
    row = RuleRow(clip, Shift(direction="earlier", max_s=0.5), "audio", 1.0, seed=3)
    wave = distorted_media(Path(), row, Long()).wave
    assert wave is not None
    assert (wave * 240).round().tolist() == list(range(36, 60))
    short = distorted_media(Path(), replace(row, clip=replace(clip, duration_s=1.0)), Long()).wave
    assert short is not None
    assert (short * 240).round().tolist()[:12] == list(range(36, 48))
    assert max(short * 240) < 48


def test_flow_dpo_and_sft_meet_the_same_winners_times_and_noise(workspace: Workspace) -> None:
    policy = tiny()
    context = make_context(workspace, policy, RulePairSettings(share=0.5))
    for dpo, sft in zip(FlowDPO().batches(context, 2, policy), SFT().batches(context, 2, policy)):
        assert torch.equal(dpo.chosen["audio"], sft.chosen["audio"])
        assert torch.equal(dpo.x0["audio"], sft.x0["audio"])
        assert torch.equal(dpo.t, sft.t)


def test_a_share_mixes_rules_and_stored_pairs_in_their_rows(workspace: Workspace) -> None:
    policy = tiny()
    context = make_context(workspace, policy, RulePairSettings(share=0.5))
    (batch,) = FlowDPO().batches(context, 1, policy)
    stored = [pair.source in ("auto", "human") for pair in batch.pairs]
    assert sum(stored) == 4
    assert stored != sorted(stored)
    assert stored != sorted(stored, reverse=True)
    assert context.rules is not None
    made = {r.pair.pair_id: r for r in context.rules.draw(0, 1, 10, num=4, severity=1.0)}
    for index, (pair, names) in enumerate(zip(batch.pairs, batch.groups)):
        if pair.pair_id in made:
            chosen, rejected = context.rules.latents([made[pair.pair_id]], policy)
            assert "modality/audio" in names
        else:
            chosen, rejected = context.latents([pair.chosen]), context.latents([pair.rejected])
        assert torch.equal(batch.chosen["audio"][index], chosen["audio"][0])
        assert torch.equal(batch.rejected["audio"][index], rejected["audio"][0])
        assert torch.equal(batch.conditions["clip"][index], context.conditions([pair.clip_id])["clip"][0])


@pytest.mark.parametrize("shape", [(2, 4, 1), (4, 1, 2), (2, 2, 2)])
def test_how_the_global_batch_is_shared_changes_no_row(
    workspace: Workspace, shape: tuple[int, int, int]
) -> None:
    policy, (size, accumulation, processes) = tiny(), shape
    whole = make_context(workspace, policy, RulePairSettings(share=0.75))
    (expected,) = FlowDPO().batches(whole, 2, policy)
    found: list[PairBatch] = []
    for rank in range(processes):
        split = laid_out(
            whole,
            per_device_batch_size=size,
            gradient_accumulation_steps=accumulation,
            rank=rank,
            num_processes=processes,
        )
        found += FlowDPO().batches(split, 2, policy)
    assert [pair for batch in found for pair in batch.pairs] == expected.pairs
    assert torch.equal(torch.cat([batch.rejected["audio"] for batch in found]), expected.rejected["audio"])
<<<<<<< HEAD
=======


# -- held out ------------------------------------------------------------------------------------------------


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
    context = make_context(workspace, policy, rank=0)
    whole = [p.pair_id for batch in FlowDPO().eval_batches(context, policy) for p in batch.pairs]
    halves = [
        {
            p.pair_id
            for b in FlowDPO().eval_batches(replace(context, rank=r, num_processes=2), policy)
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


# -- what a run does -----------------------------------------------------------------------------------------


def test_a_run_needs_clips_and_no_pairs_and_learns_to_tell_the_rules(workspace: Workspace) -> None:
    fill_workspace(workspace)
    workspace.replace_table(Pair, [])
    settings = rule_settings(
        negatives=NegativeSettings(rules=("shift", "scale")),  # one fading sound replaced is like another
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
        negatives=NegativeSettings(
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
        negatives=NegativeSettings(on="media", eval_severities=(0.5,)),
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
            run_name="rules", negatives=NegativeSettings(rules=("shift",), eval_severities=(0.5,)), **stored
        ),
    )
    train(workspace, rule_settings(run_name="ramp", curriculum=Ramp(last=0.5), **stored))
    assert len(list(places.iterdir())) == 3


# -- joint models --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("distorted_modality", ["audio", "video"])
def test_both_terms_train_also_where_one_stream_alone_is_distorted(
    workspace: Workspace, distorted_modality: str
) -> None:
    policy = tiny(joint=True)
    settings = NegativeSettings(modality=distorted_modality)
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


# -- refusals and settings -----------------------------------------------------------------------------------


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="rules is empty"):
        NegativeSettings(rules=())
    with pytest.raises(ValueError, match=r"weights is .*; give 3 numbers"):
        NegativeSettings(weights=(1, 2))
    with pytest.raises(ValueError, match=r"late_weights is .* not all 0"):
        NegativeSettings(late_weights=(0, 0, 0))
    with pytest.raises(ValueError, match="above 0 and up to 1"):
        NegativeSettings(eval_severities=(0.0,))
    with pytest.raises(ValueError, match=r"a share of 0\.05 of 4 pairs a step is 0"):
        NegativeSettings(share=0.05).rows_of(4)
    with pytest.raises(ValueError, match="no part is called 'shfit'; did you mean 'shift'"):
        NegativeSettings(rules=("shfit",))


def test_rules_that_do_not_fit_the_model_are_refused(workspace: Workspace) -> None:
    fill_workspace(workspace)
    with pytest.raises(ValueError, match="modality is 'video', the model makes sound alone"):
        train(workspace, rule_settings(negatives=NegativeSettings(modality="video")))
    joint = tiny(joint=True)
    with pytest.raises(ValueError, match="mute acts on audio, the pairs are to differ in video"):
        make_rules(workspace, joint, NegativeSettings(rules=("mute",), modality="video"))
    with pytest.raises(ValueError, match="learns from labels, not from pairs"):
        NegativeSettings().needs(frozenset({"labels"}))
    with pytest.raises(ValueError, match="none of the clips could be encoded"):
        make_rule_pairs(workspace, tiny(), NegativeSettings(rules=("shift",)), [], Accelerator(cpu=True))


def test_flags_and_json_make_the_same_settings() -> None:
    settings = TrainSettings(negatives=NegativeSettings())
    again = TrainSettings.model_validate_json(settings.model_dump_json())
    assert again == settings
    flags = ["--negatives.rules", "shift", "mute", "--negatives.share", "0.5", "--curriculum", "ramp"]
    changed = parse(Settings, flags, "train", settings=settings).settings
    assert [rule.part_name() for rule in changed.negatives.rules] == ["shift", "mute"]  # type: ignore[union-attr]
    assert changed.negatives.share == 0.5  # type: ignore[union-attr]
    assert changed.curriculum == Ramp()
>>>>>>> ea2cdf8 (Every verb is one class whose fields are its arguments, which tyro parses and shows; unknown settings are refused by their own class with the nearest name)
