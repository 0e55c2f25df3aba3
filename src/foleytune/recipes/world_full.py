"""V2A-DPO on the embedded world at a size that measures: three training seeds, paper-like proportions.

`world_full` is `recipe()`.
"""

from __future__ import annotations

from foleytune.config import Recipe, WorldSettings, changed
from foleytune.recipes.world_demo import recipe as demo

NUM_STEPS = 25


def recipe() -> Recipe:
    """600 clips × 8 candidates, 1,000 steps × 16 pairs a method and seed, 200 test clips × 2 noise seeds."""
    small = demo()
    long = {
        "max_steps": 1000,
        "warmup_steps": 100,
        "save_steps": 250,
        "eval_steps": 100,
        "num_eval_pairs": 48,
    }
    return changed(
        small,
        name="world_full",
        world=WorldSettings(align=600, test=200),
        sample=changed(small.sample, num_candidates=8, num_steps=NUM_STEPS),
        train=changed(small.train, **long),
        controls={row: changed(control, **long) for row, control in small.controls.items()},
        train_seeds=(0, 1, 2),
        evaluate=changed(small.evaluate, num_steps=NUM_STEPS, seeds=(0, 1)),
    )
