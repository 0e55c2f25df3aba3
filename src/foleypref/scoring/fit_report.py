"""The report of a fit of AudioScore: JSON beside its weights, and a card for the model hub."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from foleypref.published.registry import licences_of
from foleypref.published.terms import card_licence, scorer_weights
from foleypref.scoring.crossval import Contribution
from foleypref.workspace.dimensions import scorers_of
from foleypref.workspace.markdown import code, front_matter, table
from foleypref.workspace.records import LABELS


class FitReport(BaseModel):
    """How good the fit is. All numbers are cross-validated over clips; None means not defined."""

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
    majority_accuracy: float  # of always predicting the most frequent class
    macro_f1: float
    confusion: list[list[int]]  # row the label, column the prediction: bad, medium, good
    log_likelihood: float  # nats per candidate
    ece: float
    reliability: list[dict[str, float | int | None]]
    pair_agreement: float | None  # within a clip, expected score against mean rating
    num_pairs: int
    contributions: dict[str, Contribution]
    settings: dict[str, Any]

    def line(self) -> str:
        """Return the last line that the stage prints."""
        alpha = "n/a" if self.alpha is None else f"{self.alpha:.2f}"
        return (
            f"fit: {self.name} on {self.num_candidates} candidates of {self.num_clips} clips; accuracy "
            f"{self.accuracy:.3f} (majority class {self.majority_accuracy:.3f}), ECE {self.ece:.3f}, "
            f"raters' alpha {alpha}"
        )


NOT_COMMERCIAL = (
    "At least one judge's weights allow no commercial use, so neither does this score as it is run."
)


def audioscore_card(report: FitReport) -> str:
    """Return Markdown with a YAML head, as model hubs show it."""
    terms = {scorer: licences_of(scorer) for scorer in scorers_of(report.dimensions)}
    limited = any(term.non_commercial for term in terms.values())
    licence = card_licence(scorer_weights(terms, "judge")).head()
    tags = ["video-to-audio", "reward-model", "preference-alignment"]
    dimensions = [
        (code(name), code(version), f"{report.coverage[name]:.0%}")
        for name, version in report.dimensions.items()
    ]
    blocks = [
        front_matter({**licence, "library_name": "foleypref", "tags": tags, "version": report.version}),
        f"# {code(report.name)}",
        "Probabilities of bad, medium and good for a video's soundtrack, from the scores of "
        f"{len(terms)} judges (V2A-DPO, arXiv 2603.11089, 2.1). Made by `foleypref fit`.",
        "## Fitted on",
        _fitted_on(report),
        "## How far to trust it",
        "Cross-validated over clips: no candidate is predicted by a model that has seen its clip.",
        _trust(report),
        "## Dimensions",
        table(("dimension", "version", "has a value"), dimensions, 1),
        "## Judges and their weights\n",
        "\n".join(f"- {code(name)}: {term.text or 'no published weights'}" for name, term in terms.items()),
    ]
    return "\n\n".join([*blocks, *([NOT_COMMERCIAL] if limited else [])]) + "\n"


def _fitted_on(report: FitReport) -> str:
    sources = ", ".join(f"{n} {code(source)}" for source, n in report.sources.items())
    shares = ", ".join(f"{name} {share:.0%}" for name, share in report.label_shares.items())
    alpha = "not defined" if report.alpha is None else f"{report.alpha:.2f}"
    return (
        f"{report.num_candidates} candidates of {report.num_clips} clips, {report.num_ratings} ratings "
        f"({sources}) by {report.num_raters} raters: {shares}. Krippendorff's alpha between raters "
        f"(ordinal): {alpha}."
    )


def _trust(report: FitReport) -> str:
    agreement = "not defined" if report.pair_agreement is None else f"{report.pair_agreement:.3f}"
    majority = f"(always the most frequent class: {report.majority_accuracy:.3f})"
    rows = [
        ("accuracy", f"{report.accuracy:.3f} {majority}"),
        ("macro F1", f"{report.macro_f1:.3f}"),
        ("log-likelihood", f"{report.log_likelihood:.3f} nats a candidate"),
        ("calibration error", f"{report.ece:.3f}"),
        (f"agreement on {report.num_pairs} pairs within a clip", agreement),
    ]
    lines = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows), ""]
    lines += ["| rated, predicted | " + " | ".join(LABELS) + " |", "|---|" + "---:|" * len(LABELS)]
    lines += [
        f"| {label} | " + " | ".join(map(str, row)) + " |" for label, row in zip(LABELS, report.confusion)
    ]
    return "\n".join(lines)
