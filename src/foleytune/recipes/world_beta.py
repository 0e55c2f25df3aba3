"""β × threshold of V2A-DPO on the embedded world, as Table 2 of arXiv 2603.11089 has them for MMAudio.

`world_beta` is `recipe()`: Flow-DPO without a winner term, so that β acts alone.
"""

from __future__ import annotations

from foleytune.config import Recipe, changed
from foleytune.plugins import build
from foleytune.recipes.world_methods import recipe as methods
from foleytune.train import TrainSettings

BETAS = (30.0, 100.0, 200.0, 400.0, 600.0, 800.0, 1000.0)
THRESHOLDS = (0.3, 0.5, 0.7, 0.9)  # of the first stage; at 1.01 no pair is easy, and there is no curriculum
NONE = 1.01
BETA, THRESHOLD = 600.0, 0.7  # the paper's


def recipe() -> Recipe:
    """Every β at the paper's threshold, every threshold at the paper's β; 250 steps × 16 pairs."""
    base = methods()
    main = _cell(base.train, BETA, THRESHOLD)
    cells = [(beta, THRESHOLD) for beta in BETAS if beta != BETA]
    cells += [(BETA, threshold) for threshold in (*THRESHOLDS, NONE) if threshold != THRESHOLD]
    return changed(
        base,
        name="world_beta",
        train=main,
        controls={_name(*cell): _cell(base.train, *cell) for cell in cells},
        rounds=None,
        also_evaluate=(),
    )


def _name(beta: float, threshold: float) -> str:
    return f"beta{beta:g}" if threshold == THRESHOLD else f"beta{beta:g}-from{threshold:g}"


def _cell(train: TrainSettings, beta: float, threshold: float) -> TrainSettings:
    objective = train.objective.with_settings(beta=beta, winner_weight=0.0)
    curriculum = build("curricula", "two_stage", threshold=threshold)
    return changed(train, run_name=_name(beta, threshold), objective=objective, curriculum=curriculum)
