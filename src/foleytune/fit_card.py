"""AudioScore's model card: what it was fitted on, how far it can be trusted, and what its judges allow."""

from __future__ import annotations

from foleytune.fit_report import FitReport
from foleytune.markdown import code, front_matter, table
from foleytune.published.registry import licences_of
from foleytune.published.terms import card_licence, scorer_weights
from foleytune.records import LABELS

NOT_COMMERCIAL = (
    "At least one judge's weights allow no commercial use, so neither does this score as it is run."
)


def audioscore_card(report: FitReport) -> str:
    """Markdown with a YAML head, as model hubs show it."""
    terms = {scorer: licences_of(scorer) for scorer in _scorers(report)}
    limited = any(term.non_commercial for term in terms.values())
    blocks = [
        _head(report),
        f"# {code(report.name)}",
        "Probabilities of bad, medium and good for a video's soundtrack, from the scores of "
        f"{len(terms)} judges (V2A-DPO, arXiv 2603.11089, 2.1). Made by `foleytune fit`.",
        "## Fitted on",
        _fitted_on(report),
        "## How far to trust it",
        "Cross-validated over clips: no candidate is predicted by a model that has seen its clip.",
        _trust(report),
        "## Dimensions",
        _dimensions(report),
        "## Judges and their weights\n",
        "\n".join(f"- {code(name)}: {term.text or 'no published weights'}" for name, term in terms.items()),
    ]
    return "\n\n".join([*blocks, *([NOT_COMMERCIAL] if limited else [])]) + "\n"


def _head(report: FitReport) -> str:
    licence = card_licence(scorer_weights(_scorers(report), "judge"))
    tags = ["video-to-audio", "reward-model", "preference-alignment"]
    return front_matter(
        {**licence.head(), "library_name": "foleytune", "tags": tags, "version": report.version}
    )


def _scorers(report: FitReport) -> list[str]:
    return list(dict.fromkeys(name.rpartition("/")[0] for name in report.dimensions))


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
    rows = [
        (
            "accuracy",
            f"{report.accuracy:.3f} (always the most frequent class: {report.majority_accuracy:.3f})",
        ),
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


def _dimensions(report: FitReport) -> str:
    rows = [
        (code(name), code(version), f"{report.coverage[name]:.0%}")
        for name, version in report.dimensions.items()
    ]
    return table(("dimension", "version", "has a value"), rows, 1)
