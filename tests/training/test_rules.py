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
from foleypref.training.distortion import RuleRow, distorted_media
from foleypref.training.negatives.shift import Shift
from foleypref.training.objectives._pairs import PairBatch
from foleypref.training.objectives.flow_dpo import FlowDPO
from foleypref.training.objectives.sft import SFT
from foleypref.training.rule_settings import RulePairSettings
from foleypref.workspace.paths import WorkspacePaths
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
    wave = distorted_media(WorkspacePaths("."), row, Long()).wave
    assert wave is not None
    assert (wave * 240).round().tolist() == list(range(36, 60))
    short = distorted_media(
        WorkspacePaths("."), replace(row, clip=replace(clip, duration_s=1.0)), Long()
    ).wave
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
