"""The settings of pairs made by rule: which negatives make the rejected side, how often, on what.

`foleypref.training.rules` draws and makes the pairs. R is the number of rules.
"""

from __future__ import annotations

from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from foleypref.settings.parts import Settings, part_field


class NegativeSettings(Settings):
    """Which rules make the rejected side, how often, of which modality, and on what."""

    rules: tuple[part_field("negatives"), ...] = Field(  # type: ignore[valid-type]
        ("shift", "replace", "scale"), validate_default=True
    )
    weights: tuple[float, ...] | None = None  # how often each rule is drawn; None: all alike
    late_weights: tuple[float, ...] | None = None  # by the last step, going there in a line; None: as before
    share: float = Field(1.0, gt=0, le=1)  # of a batch; the rest are stored pairs
    modality: Literal["audio", "video", "either"] = "either"  # of a joint model; others have sound alone
    on: Literal["latents", "media"] = "latents"  # "media": decode, distort and encode anew at every step
    severity_spread: float = Field(0.5, ge=0, lt=1)  # severities down to this share below the curriculum's
    replace_pool: Literal["any", "same_class", "other_class"] = "any"  # any for clips without a class
    class_key: str = "label"  # where `Clip.meta` has the class
    eval_severities: tuple[float, ...] = (0.25, 0.5, 1.0)

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if not self.rules:
            raise ValueError("rules is empty; name at least one, or leave negatives out")
        for name in ("weights", "late_weights"):
            found = getattr(self, name)
            if found is not None and (len(found) != len(self.rules) or min(found) < 0 or not sum(found) > 0):
                raise ValueError(f"{name} is {found}; give {len(self.rules)} numbers from 0 on, not all 0")
        if not all(0 < severity <= 1 for severity in self.eval_severities):
            raise ValueError(f"eval_severities are above 0 and up to 1, found {self.eval_severities}")
        return self

    def needs(self, of_objective: frozenset[str]) -> frozenset[str]:
        """What a run needs whose objective needs so much. ValueError for one that learns from no pairs."""
        if "pairs" not in of_objective:
            raise ValueError(
                f"negatives: the objective learns from {', '.join(sorted(of_objective))}, not from pairs; "
                "choose one that does, such as flow_dpo, or leave negatives out"
            )
        return (of_objective - {"pairs"} if self.share == 1 else of_objective) | {"clips"}

    def rows_of(self, batch_size: int) -> int:
        """How many rows of a global batch are made by rule. ValueError if one kind would never come."""
        num = round(self.share * batch_size)
        if self.share < 1 and not 0 < num < batch_size:
            raise ValueError(
                f"negatives: a share of {self.share:g} of {batch_size} pairs a step is {num}; "
                "take a larger batch or another share"
            )
        return num

    def weights_at(self, progress: float) -> Tensor:
        """Weights of the rules (R,), from the first step (progress 0) to the last (1)."""
        early = torch.tensor(self.weights or (1.0,) * len(self.rules), dtype=torch.float64)
        late = early if self.late_weights is None else torch.tensor(self.late_weights, dtype=torch.float64)
        return (1 - progress) * early / early.sum() + progress * late / late.sum()
