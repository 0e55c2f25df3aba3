"""Simulated raters for the embedded world: a hidden taste over the oracles' scores, and disagreement.

They stand in for the annotators of V2A-DPO (arXiv 2603.11089, 2.1) where no human rates. The `source` of
their ratings and their names say so. AudioScore never sees the oracle scores that they rate by; it has to
recover the taste from the judges. Thresholds are absolute, so a tuned model may be all good.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from foleypref.flow.convention import seed_of
from foleypref.scoring.agreement import krippendorff_alpha
from foleypref.scoring.human_labels import rating_table
from foleypref.settings.parts import Settings
from foleypref.workspace.records import GROUND_TRUTH, LABELS, Candidate, Clip, Rating
from foleypref.workspace.score_matrix import fullest_version, score_matrix, score_table, scored_versions
from foleypref.workspace.selection import clips_of_split
from foleypref.workspace.store import Workspace
from foleypref.workspace.walk import say

DIMENSIONS = (
    "oracle_class/class_correct",
    "oracle_class/class_probability",
    "oracle_onset/onset_f1",
    "oracle_onset/onset_error_s",
    "oracle_noise/noise_excess_db",
    "oracle_noise/noise_floor_db",
    "oracle_envelope/level_correlation",
    "oracle_joint_onset/onset_f1",  # for a joint model, whose events are in its own picture
    "oracle_joint_onset/onset_error_s",
)
WORST_ONSET_ERROR_S = 0.3  # from here on, timing counts as wrong
WORST_NOISE_DB = 24.0  # over the clip's own clean noise floor
BATCH = 4096  # ratings appended at once


class RaterSettings(Settings):
    """Who rates what, and the taste: a utility in [0, 1] of class, timing and noise, cut in two places."""

    split: str = "align"
    num_clips: int | None = Field(None, ge=1)  # a random choice; None is all
    weights: str | None = None  # fingerprint of the model whose candidates are rated; None is any
    num_raters: int = Field(5, ge=1)
    raters_per_item: int = Field(3, ge=1)
    class_weight: float = Field(0.5, gt=0)
    onset_weight: float = Field(0.32, ge=0)
    noise_weight: float = Field(0.18, ge=0)
    bad_below: float = 0.45  # utility
    good_from: float = 0.77
    spread: float = Field(1.0, ge=0)  # how far raters differ from each other and from themselves
    seed: int = 0

    @model_validator(mode="after")
    def _sensible(self) -> RaterSettings:
        if self.raters_per_item > self.num_raters:
            raise ValueError(
                f"raters_per_item {self.raters_per_item} is more than num_raters {self.num_raters}; lower it"
            )
        if self.bad_below >= self.good_from:
            raise ValueError(f"bad_below {self.bad_below} must be below good_from {self.good_from}")
        return self


class RaterReport(BaseModel):
    """Summary of all ratings of the chosen clips' candidates."""

    model_config = ConfigDict(frozen=True)

    num_candidates: int  # rated
    num_unscored: int  # candidates without any oracle score; they get no rating
    new: int
    skipped: int  # ratings that were there
    alpha: float | None  # Krippendorff's, ordinal
    label_shares: dict[str, float]

    def line(self) -> str:
        """Return the last line that the stage prints."""
        shares = ", ".join(f"{share:.0%} {label}" for label, share in self.label_shares.items())
        alpha = "n/a" if self.alpha is None else f"{self.alpha:.2f}"
        return (
            f"simulated raters: {self.new} done, {self.skipped} skipped, {self.num_unscored} candidates "
            f"without oracle scores; {shares}; alpha {alpha}"
        )


def simulate_ratings(workspace: Workspace, settings: RaterSettings) -> RaterReport:
    """Rate the candidates of the chosen clips; a rating is a function of (seed, rater, candidate).

    A rating that exists is kept, also one made with other settings. Raises ValueError without clips,
    candidates or oracle scores.
    """
    with workspace.lock("raters"):
        in_split = clips_of_split(workspace, settings.split)
        shuffled = sorted(in_split, key=lambda clip: seed_of(settings.seed, "rated clip", clip.clip_id))
        clips = {clip.clip_id: clip for clip in shuffled[: settings.num_clips]}
        candidates = [
            c
            for c in workspace.read(Candidate)
            if c.clip_id in clips and c.model != GROUND_TRUTH and settings.weights in (None, c.weights)
        ]
        quality = _qualities(workspace, candidates, clips)
        rated = np.isfinite(quality).any(1)
        if not rated.any():
            raise ValueError(
                f"none of {len(candidates)} candidates of split {settings.split!r} has an oracle score; "
                "run `foleypref sample` and `foleypref score` with oracle_class and oracle_onset first"
            )
        scored = [candidates[i] for i in np.flatnonzero(rated)]
        ratings = [r for c, q in zip(scored, quality[rated]) for r in _rate(c, q, settings)]
        existing = workspace.by_id(Rating)
        new = [r for r in ratings if r.rating_id not in existing]
        for begin in range(0, len(new), BATCH):
            workspace.append(new[begin : begin + BATCH])
        valid = [existing.get(r.rating_id, r) for r in ratings]
        report = _report(valid, len(scored), int((~rated).sum()), len(new))
        say(report.line())
        return report


def utility(quality: np.ndarray, weights: np.ndarray) -> float:
    """Return the weighted mean of (class, timing, noise) in [0, 1], both (3,), over the entries not NaN."""
    known = np.isfinite(quality)
    return float((weights[known] * quality[known]).sum() / weights[known].sum())


def _qualities(workspace: Workspace, candidates: list[Candidate], clips: Mapping[str, Clip]) -> np.ndarray:
    """Return class, timing and noise quality in [0, 1], (N, 3), NaN without an oracle score."""
    ids = [c.candidate_id for c in candidates]
    scores = score_table(workspace, DIMENSIONS)
    counts = scored_versions(scores, ids)
    versions = {name: fullest_version(counts.get(name, {"": 0})) for name in DIMENSIONS}
    columns = score_matrix(scores, ids, versions).T
    correct, probability, f1, error_s, excess_db, floor_db, level, joint_f1, joint_error_s = columns
    f1, error_s = np.where(np.isnan(f1), joint_f1, f1), np.where(np.isnan(error_s), joint_error_s, error_s)
    clean_db = np.array([clips[c.clip_id].meta.get("noise_floor_db", np.nan) for c in candidates], np.float64)
    excess_db = np.where(np.isfinite(excess_db), excess_db, np.maximum(floor_db - clean_db, 0))
    timely = 1 - np.minimum(error_s / WORST_ONSET_ERROR_S, 1)
    quiet = 1 - np.minimum(excess_db / WORST_NOISE_DB, 1)
    timing = _mean(f1, timely, 0.6)
    # sounds without edges (scrapes, textures) are in time if their level follows the picture
    timing = np.where(np.isnan(timing), np.maximum(level, 0), timing)
    return np.stack([_mean(correct, probability, 0.7), timing, quiet], 1)


def _mean(first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    """Return share · first + (1 − share) · second, or the one that is not NaN."""
    both = share * first + (1 - share) * second
    return np.where(np.isnan(both), np.where(np.isnan(first), second, first), both)


def _rate(candidate: Candidate, quality: np.ndarray, settings: RaterSettings) -> list[Rating]:
    """Return the ratings of one candidate by the raters that drew it."""
    candidate_id = candidate.candidate_id
    names = [f"simulated-{number}" for number in range(1, settings.num_raters + 1)]
    order = sorted(names, key=lambda name: seed_of(settings.seed, "draws", name, candidate_id))
    drawn = order[: settings.raters_per_item]
    ratings = []
    for name in (name for name in names if name in drawn):
        taste = np.random.default_rng(seed_of(settings.seed, "taste", name))
        weights = np.array([settings.class_weight, settings.onset_weight, settings.noise_weight])
        weights = weights * np.exp(0.2 * settings.spread * taste.standard_normal(3))
        bias, shift_bad, shift_good = settings.spread * taste.normal(0, (0.04, 0.02, 0.02))
        mood = np.random.default_rng(seed_of(settings.seed, "mood", name, candidate_id))
        felt = utility(quality, weights) + bias + settings.spread * mood.normal(0, 0.085)
        label = int(felt >= settings.bad_below + shift_bad) + int(felt >= settings.good_from + shift_good)
        seconds = round(4 + 4 * float(mood.random()), 1)  # of a clip of 4 s, heard once or twice
        ratings.append(Rating.make(candidate_id, name, label, "simulated", seconds))
    return ratings


def _report(ratings: list[Rating], num_candidates: int, num_unscored: int, new: int) -> RaterReport:
    _, table = rating_table(ratings)
    alpha = krippendorff_alpha(table)
    return RaterReport(
        num_candidates=num_candidates,
        num_unscored=num_unscored,
        new=new,
        skipped=len(ratings) - new,
        alpha=alpha if np.isfinite(alpha) else None,
        label_shares={
            name: float((table == label).sum() / len(ratings)) for label, name in enumerate(LABELS)
        },
    )
