"""Stage 4, fit: ratings and judge scores -> AudioScore, with a report of how far it can be trusted.

There is one example per rated candidate. Its target is the share of raters who said bad, medium and good:
soft labels in the cross-entropy. Where one class is needed it is the majority's, and a tie goes to the tied
class nearest to the mean rating, the lower one first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from foleypref.annotate.sync import sync_labels
from foleypref.media.files import write_atomic
from foleypref.scoring.agreement import (
    accuracy,
    confusion_matrix,
    expected_calibration_error,
    krippendorff_alpha,
    macro_f1,
    pair_agreement,
    reliability_bins,
)
from foleypref.scoring.crossval import (
    Examples,
    Training,
    contributions,
    cross_validate,
    fit_audioscore,
    mean_log_likelihood,
)
from foleypref.scoring.fit_report import FitReport, audioscore_card
from foleypref.scoring.human_labels import HumanLabels, majority_labels, read_human_labels
from foleypref.scoring.scorers.audioscore import AudioScore, reads_truth, refuse_oracles
from foleypref.settings.parts import find
from foleypref.workspace.dimensions import Dimension
from foleypref.workspace.paths import AudioScoreFiles
from foleypref.workspace.records import LABELS, digest
from foleypref.workspace.score_matrix import fullest_version, score_matrix, score_table, scored_versions
from foleypref.workspace.store import Workspace
from foleypref.workspace.walk import say

METHOD = 1  # raise it when the same inputs give another fit or report
# Votes say the same as ratings and exist only for rated candidates; AudioScore must not read itself.
NOT_JUDGES = ("audioscore", "votes")


class FitSettings(Training):
    """Ratings and scores that AudioScore is fitted on. Empty `dimensions` takes every judge's with scores."""

    name: str = "audioscore"
    dimensions: tuple[str, ...] = ()  # "scorer/dimension"
    raters: tuple[str, ...] = ()  # name patterns such as "simulated-*"; empty is all raters
    min_ratings: int = 30  # rated candidates


def fit(workspace: Workspace, settings: FitSettings) -> FitReport:
    """Fit and cross-validate AudioScore; writes its weights, report and card to the workspace's audioscore/.

    The same inputs are not fitted again. Raises ValueError for too few ratings, clips or classes, and for
    dimensions that are missing, unknown or an oracle's.
    """
    files = workspace.audioscore(settings.name)
    with workspace.lock("fit"):
        sync_labels(workspace)
        inputs = _read_inputs(workspace, settings)
        earlier = _earlier_report(files, inputs.digest)
        if earlier is not None:
            say(f"fit: {settings.name} is up to date, skipped")
            return earlier
        report, score = _fit(inputs, settings, _marginals(workspace, inputs.versions))
        score.save(files.weights)
        write_atomic(files.report, report.model_dump_json(indent=1).encode())
        write_atomic(files.card, audioscore_card(report).encode())
        say(report.line())
        return report


class Inputs(NamedTuple):
    """The data that a fit and its report are made from."""

    rated: HumanLabels
    examples: Examples
    versions: dict[str, str]  # of the scorers, by dimension
    left_out: dict[str, str]  # why, by dimension
    digest: str  # of these and the settings


def _read_inputs(workspace: Workspace, settings: FitSettings) -> Inputs:
    rated = read_human_labels(workspace, settings.raters)
    _check_ratings(rated, settings.min_ratings)
    scores = score_table(workspace)
    versions, left_out = _choose_dimensions(scores, rated.candidate_ids, settings)
    values = score_matrix(scores, rated.candidate_ids, versions)
    shares = rated.counts / rated.counts.sum(1, keepdims=True)
    hashed = digest(
        METHOD, settings.model_dump(mode="json"), versions, rated.fingerprint, repr(values.tolist())
    )
    return Inputs(rated, Examples(rated.clip_ids, values, shares), versions, left_out, hashed)


def _marginals(workspace: Workspace, dimensions: Iterable[str]) -> dict[str, bytes]:
    """Return the files of frozen marginals, by scorer, which an inception score has no meaning without."""
    parsed = [Dimension.parse(text) for text in dimensions]
    files = {d.scorer: workspace.marginal(d.scorer) for d in parsed if d.name == "inception"}
    return {name: path.read_bytes() for name, path in files.items() if path.is_file()}


def _check_ratings(rated: HumanLabels, min_ratings: int) -> None:
    """Raise ValueError for too few rated candidates, or ratings of only one class."""
    num_rated = len(rated.candidate_ids)
    if num_rated < max(min_ratings, 1):
        raise ValueError(
            f"found {num_rated} rated candidates, {min_ratings} are needed; rate more "
            "(`foleypref annotate`) or lower `min_ratings`"
        )
    classes = sorted(set(majority_labels(rated.counts).tolist()))
    if len(classes) < 2:
        raise ValueError(
            f"every rated candidate is {LABELS[classes[0]]!r}, two classes are needed; rate more widely"
        )


def _choose_dimensions(
    scores: pa.Table, candidate_ids: list[str], settings: FitSettings
) -> tuple[dict[str, str], dict[str, str]]:
    """Return ({dimension: version}, {dimension: why it is left out}).

    If a dimension has scores from several versions, the one with the most values is taken.
    """
    available = scored_versions(scores, candidate_ids)
    left_out: dict[str, str] = {}
    if settings.dimensions:
        refuse_oracles(settings.dimensions)
        missing = [name for name in settings.dimensions if name not in available]
        if missing:
            raise ValueError(
                f"no rated candidate has a score of {', '.join(missing)}; run `foleypref score` with it, "
                f"or choose from {', '.join(available) or 'none'}"
            )
        chosen: Sequence[str] = settings.dimensions
    else:
        left_out = {name: reason for name in available if (reason := _why_left_out(name))}
        chosen = [name for name in available if name not in left_out]
    if not chosen:
        raise ValueError("no rated candidate has a judge's score; run `foleypref score` first")
    return {name: fullest_version(available[name]) for name in chosen}, left_out


def _why_left_out(dimension: str) -> str:
    """Return why AudioScore must not read a dimension; "" if it may."""
    scorer = Dimension.parse(dimension).scorer
    if scorer.partition("-")[0] in NOT_JUDGES:
        return "not a judge"
    try:
        if reads_truth(scorer):
            return "reads the truth"
        asides = getattr(find("scorers", scorer), "asides", ())
        return "no quality" if Dimension.parse(dimension).name in asides else ""
    except ValueError as error:  # a scorer that cannot be found may be an oracle
        say(f"fit: {dimension} is left out: {error}")
        return str(error)


def _earlier_report(files: AudioScoreFiles, inputs: str) -> FitReport | None:
    """Return the report of an earlier fit on the same inputs, if its weights are still the ones on disk."""
    try:
        report = FitReport.model_validate_json(files.report.read_bytes())
        fitted = AudioScore(weights=str(files.weights)).load()
        same = report.inputs == inputs and fitted.version == report.version
    except (OSError, ValueError):
        return None
    return report if same else None


def _fit(inputs: Inputs, settings: FitSettings, marginals: dict[str, bytes]) -> tuple[FitReport, AudioScore]:
    rated, examples, versions, left_out, inputs_digest = inputs
    names, labels = list(versions), majority_labels(rated.counts)
    alpha = _finite(krippendorff_alpha(rated.table))
    fitted = fit_audioscore(examples.values, examples.targets, versions, settings, purpose=("final",))
    dumped = settings.model_dump(mode="json")
    notes = {"alpha": alpha, "inputs": inputs_digest, "settings": dumped}
    score = AudioScore.of(dataclasses.replace(fitted, notes=notes, marginals=marginals))
    shares = rated.counts.sum(0) / rated.counts.sum()
    report = FitReport(
        name=settings.name,
        inputs=inputs_digest,
        version=score.version,
        dimensions=versions,
        coverage=dict(zip(names, np.isfinite(examples.values).mean(0).tolist())),
        left_out=left_out,
        num_candidates=len(labels),
        num_clips=len(set(rated.clip_ids.tolist())),
        num_ratings=int(rated.counts.sum()),
        num_raters=len(rated.table),
        sources=rated.sources,
        label_shares=dict(zip(LABELS, shares.tolist())),
        alpha=alpha,
        majority_accuracy=float(np.bincount(labels).max() / len(labels)),
        **_held_out(examples, labels, names, settings),
        settings=dumped,
    )
    return report, score


def _held_out(
    examples: Examples, labels: np.ndarray, names: Sequence[str], settings: FitSettings
) -> dict[str, Any]:
    """Return the fields of the report that cross-validation measures."""
    held = cross_validate(examples, names, settings)
    confusion = confusion_matrix(labels, held.probabilities.argmax(1))
    bins = reliability_bins(held.probabilities, labels)
    classes = np.arange(len(LABELS))
    agreement = pair_agreement(held.probabilities @ classes, examples.targets @ classes, examples.clip_ids)
    return {
        "accuracy": accuracy(confusion),
        "macro_f1": macro_f1(confusion),
        "confusion": confusion.tolist(),
        "log_likelihood": mean_log_likelihood(held.probabilities, examples.targets),
        "ece": expected_calibration_error(bins),
        "reliability": [{key: _finite(value) for key, value in b._asdict().items()} for b in bins],
        "pair_agreement": _finite(agreement.value),
        "num_pairs": agreement.n,
        "contributions": contributions(examples, labels, held, names, settings),
    }


def _finite(value: Any) -> Any:
    """Return the number, or None if JSON cannot hold it."""
    return value if np.isfinite(value) else None
