"""`world_demo` with more clips and steps and three training seeds: Flow-DPO with a winner term.

`world_full` is `recipe()`. Rows have equal steps, not equal compute: `sft` takes 14,400 network passes of
training, the others 38,400. `world_methods` compares at equal passes.
"""

from __future__ import annotations

from foleypref.recipes.presets.world_demo import recipe as demo
from foleypref.recipes.recipe import Recipe, changed, every_run_changed
from foleypref.world.settings import WorldSettings

NUM_STEPS = 25
GUIDANCE_SCALES = (1.0, 1.5, 2.0)  # none, half-way, and what the candidates were sampled at


def recipe() -> Recipe:
    """600 clips × 5 candidates, 300 steps × 16 pairs a method and seed, 200 test clips at three scales."""
    small = demo()
    long = {"max_steps": 300, "warmup_steps": 30, "save_steps": 100, "eval_steps": 50, "num_eval_pairs": 48}
    return changed(
        every_run_changed(small, **long),
        name="world_full",
        world=WorldSettings(align=600, test=200),
        sample=changed(small.sample, num_steps=NUM_STEPS),
        rate=None if small.rate is None else changed(small.rate, num_clips=200),
        train_seeds=(0, 1, 2),
        evaluate=changed(small.evaluate, num_steps=NUM_STEPS, guidance_scales=GUIDANCE_SCALES),
    )
