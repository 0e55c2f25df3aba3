"""V2A-DPO on Frieren with the paper's settings: 50,000 clips × 5 candidates, 12,000 steps × 8 pairs.

`v2a_dpo_frieren` tunes the base network, whose velocity is a flow's; reflow and distilled are not for that.
"""

from __future__ import annotations

from foleypref.recipes.presets._v2a_dpo import v2a_dpo
from foleypref.recipes.recipe import Recipe
from foleypref.settings.parts import build

SECONDS = 8.0  # of picture; Frieren makes 8.192 s of sound of it, of which 8 are judged


def recipe() -> Recipe:
    """Return the recipe of frieren-base in bf16."""
    return v2a_dpo("v2a_dpo_frieren", build("models", "frieren-base"), seconds=SECONDS, bf16=True)
