"""The settings of pairs made by rule: which negatives make the rejected side, how often, and on what.

`foleypref.training.rules` draws and makes the pairs. R is the number of rules.
"""

from __future__ import annotations

from typing import Literal, Self

import torch
from jaxtyping import Float64
from pydantic import Field, model_validator
from torch import Tensor

from foleypref.settings.parts import Settings
from foleypref.training.negatives import NegativePart


class RulePairSettings(Settings):
    """Which rules make the rejected side, how often, of which modality, and on what."""

    rules: tuple[NegativePart, ...] = Field(("shift", "replace", "scale"), validate_default=True)
    weights: tuple[float, ...] | None = None  # how often each rule is drawn; None: all equally
    late_weights: tuple[float, ...] | None = None  # at the last step, reached linearly; None: no change
    share: float = Field(1.0, gt=0, le=1)  # of a batch; the rest are stored pairs
    modality: Literal["audio", "video", "either"] = "either"  # of a joint model; others make only sound
    on: Literal["latents", "media"] = "latents"  # "media": decode, distort and encode again at every step
    severity_spread: float = Field(0.5, ge=0, lt=1)  # severities down to this share below the curriculum's
    replace_pool: Literal["any", "same_class", "other_class"] = "any"  # any for clips without a class
    class_key: str = "label"  # key of the class in `Clip.meta`
    eval_severities: tuple[float, ...] = (0.25, 0.5, 1.0)

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if not self.rules:
            raise ValueError("rules is empty; name at least one, or leave negatives out")
        for name in ("weights", "late_weights"):
            weights = getattr(self, name)
            if weights is None:
                continue
            if len(weights) != len(self.rules) or min(weights) < 0 or not sum(weights) > 0:
                raise ValueError(f"{name} is {weights}; give {len(self.rules)} numbers from 0 on, not all 0")
        if not all(0 < severity <= 1 for severity in self.eval_severities):
            raise ValueError(f"eval_severities are above 0 and up to 1, found {self.eval_severities}")
        return self

    def needs(self, of_objective: frozenset[str]) -> frozenset[str]:
        """Return the needs of a run whose objective has needs `of_objective`: clips in place of pairs.

        Stored pairs stay among them if `share` is below 1. Raises ValueError if the objective needs no pairs.
        """
        if "pairs" not in of_objective:
            raise ValueError(
                f"negatives: the objective learns from {', '.join(sorted(of_objective))}, not from pairs; "
                "choose one that does, such as flow_dpo, or leave negatives out"
            )
        return (of_objective - {"pairs"} if self.share == 1 else of_objective) | {"clips"}

    def rows_of(self, batch_size: int) -> int:
        """Return how many rows of a global batch are made by rule.

        Raises ValueError if `share` asks for both kinds of pairs but rounds to only one.
        """
        num = round(self.share * batch_size)
        if self.share < 1 and not 0 < num < batch_size:
            raise ValueError(
                f"negatives: a share of {self.share:g} of {batch_size} pairs per step is {num}; "
                "take a larger batch or another share"
            )
        return num

    def weights_at(self, progress: float) -> Float64[Tensor, " R"]:
        """Return the weights of the rules, from the first step (progress 0) to the last (1)."""
        early = torch.tensor(self.weights or (1.0,) * len(self.rules), dtype=torch.float64)
        late = early if self.late_weights is None else torch.tensor(self.late_weights, dtype=torch.float64)
        return (1 - progress) * early / early.sum() + progress * late / late.sum()
