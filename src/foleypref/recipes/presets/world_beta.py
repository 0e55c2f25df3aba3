"""β × threshold of V2A-DPO's own loss on the embedded world, after Table 2 of arXiv 2603.11089.

`world_beta` is `recipe()`: Flow-DPO without a winner term, so that only β acts. Learning rate (1e-4) and
steps (250) are not the paper's (5e-6, 12,000).
"""

from __future__ import annotations

from foleypref.recipes.presets.world_methods import SAFEGUARD
from foleypref.recipes.presets.world_methods import recipe as methods
from foleypref.recipes.recipe import Recipe, changed
from foleypref.settings.parts import build
from foleypref.train import TrainSettings

BETAS = (30.0, 100.0, 200.0, 400.0, 600.0, 800.0, 1000.0)
THRESHOLDS = (0.3, 0.5, 0.7, 0.9)  # of the first stage; at 1.01 no pair is easy, and there is no curriculum
NONE = 1.01
BETA, THRESHOLD = 600.0, 0.7  # the paper's
MAIN = f"beta{BETA:g}"
SAFEGUARDED = (30.0, BETA)


def recipe() -> Recipe:
    """Every β at the paper's threshold, every threshold at the paper's β; 250 steps × 16 pairs.

    Two of the β again with the losers' safeguard (arXiv 2511.03317), which needs no winner term beside it.
    """
    base = methods()
    cells = {f"beta{beta:g}": _cell(base.train, beta) for beta in BETAS if beta != BETA}
    for threshold in (*THRESHOLDS, NONE):
        if threshold != THRESHOLD:
            cells[f"{MAIN}-from{threshold:g}"] = _cell(base.train, threshold=threshold)
    for beta in SAFEGUARDED:
        cells[f"beta{beta:g}-safeguard"] = _cell(base.train, beta, safeguard=SAFEGUARD)
    return changed(
        base,
        name="world_beta",
        train=changed(_cell(base.train), run_name=MAIN),
        controls=cells,
        rounds=None,
        evaluate=changed(base.evaluate, name="beta"),
        also_evaluate=(),
    )


def _cell(
    train: TrainSettings, beta: float = BETA, threshold: float = THRESHOLD, **settings: float
) -> TrainSettings:
    objective = train.objective.with_settings(beta=beta, winner_weight=0.0, **settings)
    curriculum = build("curricula", "two_stage", threshold=threshold)
    return changed(train, objective=objective, curriculum=curriculum)
