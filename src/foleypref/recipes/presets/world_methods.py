"""Every method on the embedded world, side by side: what each makes of the same clips, judges and compute.

`world_methods` is `recipe()`, all rows at the compute of Flow-DPO; `world_methods-best` has those again that
twice as much may help, `world_methods-wide` the online ones in wider steps; `world_methods-seeds` has six
training seeds of `curriculum`, `flow_dpo` and `ddpo`, and `world_methods-ci` shows that all of them run.

Every Flow-DPO row has β 30 and a winner term of 10. The loss of V2A-DPO's paper is in `world_beta` only.

`ddpo` makes its rollouts without guidance, while the rows on candidates learn samples that were drawn at
guidance 2; differences to it are not of the objective only (docs/findings.md).
"""

from __future__ import annotations

from typing import Any

from foleypref.evaluate import EvaluateSettings
from foleypref.recipes.presets.world_demo import CONDITION_DROPOUT
from foleypref.recipes.presets.world_demo import recipe as demo
from foleypref.recipes.recipe import Recipe, RoundSettings, changed
from foleypref.settings.parts import Part, build
from foleypref.train import TrainSettings
from foleypref.training.rule_settings import RulePairSettings
from foleypref.training.settings import needs_of
from foleypref.world.settings import WorldSettings

NUM_CLIPS, NUM_TEST, NUM_CANDIDATES, NUM_STEPS = 300, 160, 4, 10
SAMPLED = NUM_CLIPS * NUM_CANDIDATES * NUM_STEPS * 2  # network passes of the candidates, guidance and all
BUDGET = 56_000  # network passes a row may take for candidates, rollouts and training
BATCH, WIDER = 16, 4  # pairs or samples a step, and how many times as many of a wide one
AGAIN = NUM_CLIPS // 2  # clips sampled again in the second round
BETA, WINNER_WEIGHT, SAFEGUARD = 30.0, 10.0, 0.5
NFT_REFERENCE = 1.0  # 1e-4, as published for steps of 1,152 samples, lets steps of 16 drift off for good


def recipe() -> Recipe:
    """300 clips × 4 candidates; 56,000 network passes a row for candidates, rollouts and training."""
    base = demo()
    train = at_budget(base.train, _dpo(), "two_stage")
    evaluate = changed(base.evaluate, num_steps=NUM_STEPS, guidance_scales=(1.0, 2.0))
    later = (BUDGET - SAMPLED - AGAIN * SAMPLED // NUM_CLIPS) // 2  # passes of training, a round
    return changed(
        base,
        name="world_methods",
        world=WorldSettings(align=NUM_CLIPS, test=NUM_TEST),
        sample=changed(base.sample, num_candidates=NUM_CANDIDATES, num_steps=NUM_STEPS),
        rate=None if base.rate is None else changed(base.rate, num_clips=150),
        train=changed(train, run_name="curriculum"),
        controls=_controls(train),
        rounds=RoundSettings(train=_steps(train, later // (BATCH * 8)), num_clips=AGAIN),
        train_seeds=(0, 1, 2),
        evaluate=evaluate,
        also_evaluate=(_beside_ddpo(evaluate),),
    )


def best() -> Recipe:
    """The rows that more training may help, with twice the passes in all, `<row>_long`.

    DDPO has them in wide steps, NFT does not: by the reward of held-out clips (`world_methods-wide`).
    `kto` and `tracked` are left out, which lose the Fréchet distance and the winners with half of them.
    """
    equal = recipe()
    assert equal.rounds is not None
    rows = ("sft", "ddpo", "nft", "flow_dpo", "safeguard")
    more = {f"{row}_long": _affords(equal.controls[row], 2 * BUDGET) for row in rows}
    more["ddpo_long"] = _widened(more["ddpo_long"])
    return changed(
        equal,
        name="world_methods-best",
        train=changed(_affords(equal.train, 2 * BUDGET), run_name="curriculum_long"),
        controls=more,
        # each of the two rounds samples all clips and trains as long as `curriculum`: twice its passes
        rounds=changed(equal.rounds, row="iterated_long", num_clips=None, train=equal.train),
        evaluate=changed(equal.evaluate, name="best"),
        also_evaluate=(changed(equal.evaluate, name="best_beside_ddpo_long", base="ddpo_long"),),
    )


def wide() -> Recipe:
    """The online rows in a quarter of the steps, each four times as wide: do they want larger batches?"""
    equal = recipe()
    return changed(
        equal,
        name="world_methods-wide",
        train=changed(_widened(equal.controls["ddpo"]), run_name="ddpo_wide"),
        controls={"nft_wide": _widened(equal.controls["nft"])},
        rounds=None,
        train_seeds=(0,),
        evaluate=changed(equal.evaluate, name="wide"),
        also_evaluate=(),
    )


def seeds() -> Recipe:
    """Six training seeds of Flow-DPO with a winner term, with and without curriculum, and of DDPO."""
    equal = recipe()
    evaluate = changed(equal.evaluate, name="six_seeds", guidance_scales=(1.0,))
    return changed(
        equal,
        name="world_methods-seeds",
        controls={row: equal.controls[row] for row in ("ddpo", "flow_dpo")},
        rounds=None,
        train_seeds=tuple(range(6)),
        evaluate=evaluate,
        also_evaluate=tuple(
            changed(evaluate, name=f"six_seeds_beside_{row}", base=row) for row in ("ddpo", "flow_dpo")
        ),
    )


def ci() -> Recipe:
    """A few steps of everything on a few clips."""
    equal = recipe()
    assert equal.rounds is not None
    evaluate = changed(equal.evaluate, num_steps=5, guidance_scales=(1.0,))
    return changed(
        equal,
        name="world_methods-ci",
        world=WorldSettings(align=24, test=8),
        rate=None if equal.rate is None else changed(equal.rate, num_clips=None),
        train=_steps(equal.train, 4),
        controls={row: _steps(run, 4) for row, run in equal.controls.items()},
        rounds=changed(
            equal.rounds, num_clips=8, train=changed(_steps(equal.rounds.train, 4), num_eval_pairs=2)
        ),
        train_seeds=(0,),
        evaluate=evaluate,
        also_evaluate=(_beside_ddpo(evaluate),),
    )


def _beside_ddpo(evaluate: EvaluateSettings) -> EvaluateSettings:
    """Return the same table with differences to DDPO, the baseline of arXiv 2603.11089."""
    return changed(evaluate, name="beside_ddpo", base="ddpo")


def _controls(train: TrainSettings) -> dict[str, TrainSettings]:
    """Return the other rows: an objective, its curriculum, and as many steps as the budget leaves it."""
    rows: dict[str, tuple[Part, str]] = {
        "sft": (build("objectives", "sft", condition_dropout=CONDITION_DROPOUT), "uniform"),
        "ddpo": (build("objectives", "ddpo"), "uniform"),
        "nft": (build("objectives", "nft", reference_weight=NFT_REFERENCE), "uniform"),
        "kto": (build("objectives", "kto", beta=BETA, condition_dropout=CONDITION_DROPOUT), "uniform"),
        "flow_dpo": (_dpo(), "uniform"),
        "safeguard": (_dpo(safeguard=SAFEGUARD), "two_stage"),
        "tracked": (_dpo(noise="tracked"), "two_stage"),
    }
    return {name: at_budget(train, objective, curriculum) for name, (objective, curriculum) in rows.items()}


def at_budget(
    train: TrainSettings, objective: Part, curriculum: str, negatives: RulePairSettings | None = None
) -> TrainSettings:
    """Return a run that spends what its candidates leave of the budget."""
    run = changed(train, objective=objective, curriculum=build("curricula", curriculum), negatives=negatives)
    return _affords(run, BUDGET)


def _affords(run: TrainSettings, passes: int) -> TrainSettings:
    """Return the run with as many steps as `passes` network passes allow, after those of its candidates."""
    left = passes - (SAMPLED if needs_of(run) & {"pairs", "labels"} else 0)
    return _steps(run, round(left / (BATCH * run.objective.forwards)))


def _widened(run: TrainSettings) -> TrainSettings:
    """Return the run with the same passes in a quarter of the steps."""
    return changed(_steps(run, round(run.max_steps / WIDER)), gradient_accumulation_steps=WIDER)


def _steps(run: TrainSettings, num: int) -> TrainSettings:
    """Return the run with `num` steps."""
    return changed(
        run,
        max_steps=num,
        warmup_steps=max(1, num // 10),
        save_steps=max(1, num // 3),
        eval_steps=max(1, num // 5),
        per_device_train_batch_size=BATCH,
        num_eval_pairs=min(32, 2 * num),
    )


def _dpo(**settings: Any) -> Part:
    shared = {"beta": BETA, "winner_weight": WINNER_WEIGHT, "condition_dropout": CONDITION_DROPOUT}
    return build("objectives", "flow_dpo", **shared, **settings)
