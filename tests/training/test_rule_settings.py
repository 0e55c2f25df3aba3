"""Settings of pairs made by rule: what is refused, flags and JSON, weights over time."""

from __future__ import annotations

from collections import Counter

import pytest
from accelerate import Accelerator

from foleypref.settings.flags import parse
from foleypref.settings.parts import Settings
from foleypref.train import TrainSettings, train
from foleypref.training.curricula.ramp import Ramp
from foleypref.training.inputs import make_rule_pairs
from foleypref.training.rule_settings import RulePairSettings
from foleypref.workspace.store import Workspace
from tests.tiny import fill_workspace
from tests.training.rule_pairs import make_rules, rule_settings, tiny


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="rules is empty"):
        RulePairSettings(rules=())
    with pytest.raises(ValueError, match=r"weights is .*; give 3 numbers"):
        RulePairSettings(weights=(1, 2))
    with pytest.raises(ValueError, match=r"late_weights is .* not all 0"):
        RulePairSettings(late_weights=(0, 0, 0))
    with pytest.raises(ValueError, match="above 0 and up to 1"):
        RulePairSettings(eval_severities=(0.0,))
    with pytest.raises(ValueError, match=r"a share of 0\.05 of 4 pairs per step is 0"):
        RulePairSettings(share=0.05).rows_of(4)
    with pytest.raises(ValueError, match="no part is called 'shfit'; did you mean 'shift'"):
        RulePairSettings(rules=("shfit",))


def test_rules_that_do_not_fit_the_model_are_refused(workspace: Workspace) -> None:
    fill_workspace(workspace)
    with pytest.raises(ValueError, match="modality is 'video', the model makes only sound"):
        train(workspace, rule_settings(negatives=RulePairSettings(modality="video")))
    joint = tiny(joint=True)
    with pytest.raises(ValueError, match="mute acts on audio, the pairs are to differ in video"):
        make_rules(workspace, joint, RulePairSettings(rules=("mute",), modality="video"))
    with pytest.raises(ValueError, match="learns from labels, not from pairs"):
        RulePairSettings().needs(frozenset({"labels"}))
    with pytest.raises(ValueError, match="none of the clips could be encoded"):
        make_rule_pairs(workspace, tiny(), RulePairSettings(rules=("shift",)), [], Accelerator(cpu=True))


def test_flags_and_json_make_the_same_settings() -> None:
    settings = TrainSettings(negatives=RulePairSettings())
    again = TrainSettings.model_validate_json(settings.model_dump_json())
    assert again == settings
    flags = ["--negatives.rules", "shift", "mute", "--negatives.share", "0.5", "--curriculum", "ramp"]
    changed = parse(Settings, flags, "train", settings=settings).settings
    assert [rule.part_name() for rule in changed.negatives.rules] == ["shift", "mute"]  # type: ignore[union-attr]
    assert changed.negatives.share == 0.5  # type: ignore[union-attr]
    assert changed.curriculum == Ramp()


def test_weights_go_from_early_to_late(workspace: Workspace) -> None:
    settings = RulePairSettings(weights=(0, 3, 0), late_weights=(1, 0, 1))
    assert settings.weights_at(0.5).tolist() == pytest.approx([0.25, 0.5, 0.25])
    rules = make_rules(workspace, tiny(), settings)

    def names(step: int) -> Counter[str]:
        return Counter(row.rule.part_name() for row in rules.draw(0, step, 100, num=400, severity=1.0))

    assert names(0) == {"replace": 400}
    assert set(names(99)) == {"shift", "scale"}
    middle = names(49)
    assert middle["replace"] == pytest.approx(200, abs=40)
    assert middle["shift"] == pytest.approx(100, abs=35)
