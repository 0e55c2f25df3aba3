"""Where losers come from, on the world's V2A model: from rules, from ranked candidates, or half and half.

`world_losers` is `recipe()`. A rule distorts the clip's own sound, which is then the winner (SyncDPO, arXiv
2605.12179, there for joint models); candidates are ranked by AudioScore (V2A-DPO, arXiv 2603.11089). Either
kind stands beside plain fine-tuning on its own winners. The pairs' loss is Flow-DPO with β 30 and a winner
term of 10.
"""

from __future__ import annotations

from foleypref.recipes.presets.world_methods import at_budget
from foleypref.recipes.presets.world_methods import recipe as methods
from foleypref.recipes.recipe import Recipe, changed
from foleypref.settings.parts import build
from foleypref.train import TrainSettings
from foleypref.training.rule_settings import RulePairSettings

RULES = ("shift", "scale", "shuffle", "freeze", "speed")  # each taught the joint model timing by itself


def recipe() -> Recipe:
    """The clips, candidates and network passes of `world_methods`, whose runs it shares."""
    base = methods()
    pairs, winners = base.controls["flow_dpo"], base.controls["sft"]
    return changed(
        base,
        name="world_losers",
        train=changed(_by_rule(pairs), run_name="rules"),
        controls={
            "rules_and_pairs": _by_rule(pairs, share=0.5),
            "sft_clips": _by_rule(winners),
            "flow_dpo": pairs,
            "sft": winners,
        },
        rounds=None,
        evaluate=changed(base.evaluate, name="losers"),
        also_evaluate=(changed(base.evaluate, name="losers_beside_sft_clips", base="sft_clips"),),
    )


def _by_rule(run: TrainSettings, share: float = 1.0) -> TrainSettings:
    """Return the run with that share of its pairs made by rule, from coarse to subtle."""
    negatives = RulePairSettings(rules=tuple(build("negatives", rule) for rule in RULES), share=share)
    return at_budget(run, run.objective, "ramp", negatives)
