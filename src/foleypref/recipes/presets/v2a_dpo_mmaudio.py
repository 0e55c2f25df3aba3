"""V2A-DPO on MMAudio with the paper's settings: 50,000 clips × 5 candidates, 12,000 steps × 8 pairs.

`v2a_dpo_mmaudio` tunes large-44k-v2, `-small` small-16k. Weights are CC-BY-NC 4.0.
"""

from __future__ import annotations

from foleypref.recipes.presets._v2a_dpo import v2a_dpo
from foleypref.recipes.recipe import Recipe
from foleypref.settings.parts import build

SECONDS = 8.0


def recipe() -> Recipe:
    """large-44k-v2, bf16, blocks recomputed in the backward pass."""
    return _of("v2a_dpo_mmaudio", "large-44k-v2", gradient_checkpointing=True)


def small() -> Recipe:
    """small-16k, for one modest GPU."""
    return _of("v2a_dpo_mmaudio-small", "small-16k")


def _of(name: str, variant: str, *, gradient_checkpointing: bool = False) -> Recipe:
    model = build("models", f"mmaudio-{variant}", feature_dtype="bfloat16")
    return v2a_dpo(name, model, seconds=SECONDS, bf16=True, gradient_checkpointing=gradient_checkpointing)
