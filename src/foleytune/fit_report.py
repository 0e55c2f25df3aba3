"""What a fit of AudioScore found, as data: the JSON that stands beside its weights."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from foleytune.crossval import Contribution


class FitReport(BaseModel):
    """How good the fit is: cross-validated over clips throughout. `None` is "not defined here"."""

    model_config = ConfigDict(frozen=True)

    name: str
    inputs: str  # hash of everything the fit is a function of
    version: str  # of the AudioScore it made
    dimensions: dict[str, str]  # to the scorer's version
    coverage: dict[str, float]  # share of examples with a value
    left_out: dict[str, str]  # dimension -> why it was not used
    num_candidates: int
    num_clips: int
    num_ratings: int
    num_raters: int
    sources: dict[str, int]  # ratings by source
    label_shares: dict[str, float]  # of all ratings
    alpha: float | None  # Krippendorff's, ordinal, between raters
    accuracy: float
    majority_accuracy: float  # of always saying the most frequent class
    macro_f1: float
    confusion: list[list[int]]  # row the label, column the prediction: bad, medium, good
    log_likelihood: float  # nats a candidate
    ece: float
    reliability: list[dict[str, float | int | None]]
    pair_agreement: float | None  # within a clip, expected score against mean rating
    num_pairs: int
    contributions: dict[str, Contribution]
    settings: dict[str, Any]

    def line(self) -> str:
        """The stage's last line."""
        alpha = "n/a" if self.alpha is None else f"{self.alpha:.2f}"
        return (
            f"fit: {self.name} on {self.num_candidates} candidates of {self.num_clips} clips; accuracy "
            f"{self.accuracy:.3f} (majority class {self.majority_accuracy:.3f}), ECE {self.ece:.3f}, "
            f"raters' alpha {alpha}"
        )
