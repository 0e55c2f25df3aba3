"""Labels of single candidates, desirable or not, for objectives that learn without pairs.

    rated       the majority's class: good is desirable, bad undesirable, medium neither
    not rated   AudioScore's probabilities: p(Good) ≥ good_from, p(Bad) ≥ bad_from, else neither

For one candidate, human ratings override simulated ones, and any ratings override AudioScore, even if their
majority is medium. Ground truth is left out, as in pairing: no model sampled it, and wild sound may be wrong.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from pydantic import Field

from foleypref.scoring.human_labels import HUMAN, SIMULATED, majority_labels
from foleypref.scoring.scorers.audioscore import AudioScore
from foleypref.settings.parts import Settings
from foleypref.training.data import Label
from foleypref.workspace.records import AUTO, Rating
from foleypref.workspace.selection import candidates_of_model, clips_of_split
from foleypref.workspace.store import Workspace

BAD, GOOD = 0, 2  # as `Rating.label` has them


class LabelSettings(Settings):
    """Which sources of labels count, and how sure AudioScore must be."""

    sources: tuple[str, ...] | None = None  # of "human", "simulated", "auto"; None: all
    good_from: float = Field(0.7, ge=0.5, le=1)  # p(Good)
    bad_from: float = Field(0.7, ge=0.5, le=1)  # p(Bad)
    model: str | None = None  # only candidates of this part; None: of the only model there is
    weights: str | None = None  # and of these weights, by fingerprint


def read_labels(
    workspace: Workspace, settings: LabelSettings, split: str, audioscore: str = "audioscore"
) -> list[Label]:
    """Return the labelled candidates of a split's clips, by id; `audioscore` is the name of a fit.

    Raises ValueError if one of the two classes is empty, for candidates of several models, and for scores
    of other versions than AudioScore was fitted on.
    """
    table = candidates_of_model(
        workspace,
        (clip.clip_id for clip in clips_of_split(workspace, split)),
        model=settings.model,
        weights=settings.weights,
        model_setting="labels.model",
        with_latents=True,
    )
    clip_of = dict(sorted(zip(table["candidate_id"].to_pylist(), table["clip_id"].to_pylist())))
    labels, rated = _labels_by_raters(workspace, settings, clip_of)
    unrated = [candidate_id for candidate_id in clip_of if candidate_id not in rated]
    labels += [
        Label(candidate_id, clip_of[candidate_id], desirable, AUTO)
        for candidate_id, desirable in _judged(workspace, settings, unrated, audioscore).items()
    ]
    desirable = sum(label.desirable for label in labels)
    if not 0 < desirable < len(labels):
        raise ValueError(
            f"split {split!r} has {len(clip_of)} candidates, of them {desirable} desirable and "
            f"{len(labels) - desirable} undesirable; both are needed: rate some, lower labels.good_from or "
            "labels.bad_from, or look at labels.sources"
        )
    return sorted(labels, key=lambda label: label.candidate_id)


def _labels_by_raters(
    workspace: Workspace, settings: LabelSettings, clip_of: dict[str, str]
) -> tuple[list[Label], set[str]]:
    """Return the labels by raters, and all candidates with ratings, including those rated medium."""
    by_candidate: dict[str, list[Rating]] = defaultdict(list)
    for rating in workspace.read(Rating):
        if rating.candidate_id in clip_of and _counts(settings, rating.source):
            by_candidate[rating.candidate_id].append(rating)
    labels = []
    for candidate_id, ratings in by_candidate.items():
        source = HUMAN if any(r.source == HUMAN for r in ratings) else SIMULATED
        counts = np.bincount([r.label for r in ratings if r.source == source], minlength=3)
        label = majority_labels(counts[None])[0]
        if label in (BAD, GOOD):
            labels.append(Label(candidate_id, clip_of[candidate_id], bool(label == GOOD), source))
    return labels, set(by_candidate)


def _judged(
    workspace: Workspace, settings: LabelSettings, candidate_ids: list[str], audioscore: str
) -> dict[str, bool]:
    """Return whether a candidate is desirable, if AudioScore is sure about it; {} if none was fitted."""
    path = workspace.audioscore(audioscore).weights
    if not candidate_ids or not _counts(settings, AUTO) or (settings.sources is None and not path.exists()):
        return {}
    score = AudioScore(weights=str(path)).load()
    probabilities, scored = score.stored_probabilities(workspace, candidate_ids)
    bad, _, good = probabilities.T
    desirable = scored & (good >= settings.good_from) & (good > bad)
    undesirable = scored & (bad >= settings.bad_from) & (bad > good)
    rows = np.flatnonzero(desirable | undesirable)
    return {candidate_ids[row]: bool(desirable[row]) for row in rows}


def _counts(settings: LabelSettings, source: str) -> bool:
    return settings.sources is None or source in settings.sources
