"""Fit AudioScore's network, and test the fit on clips that it has not seen.

Candidates of one clip share its picture, its caption and often its rater's mood, so a fold holds whole clips.
Statistics for standardising are taken only on the training folds.

Letters: N candidates, K dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from foleypref.flow.convention import generator_of, seed_of
from foleypref.networks.audioscore import AudioScoreNetwork
from foleypref.scoring.scorers.audioscore import Fitted
from foleypref.settings.parts import Settings


class Training(Settings):
    """How AudioScore's network is fitted and cross-validated. The paper gives none of these numbers."""

    hidden: int = Field(16, ge=1)
    learning_rate: float = Field(0.01, gt=0)
    num_steps: int = Field(400, ge=1)  # full-batch Adam steps
    weight_decay: float = Field(1e-3, ge=0)  # L2, in the gradient
    folds: int = Field(5, ge=2)
    num_shuffles: int = Field(5, ge=1)  # of each dimension, for its contribution
    seed: int = 0


class Examples(NamedTuple):
    """N rated candidates: the scores that AudioScore reads, and the raters' labels."""

    clip_ids: np.ndarray  # (N,) str
    values: np.ndarray  # (N, K), NaN for missing
    targets: np.ndarray  # (N, 3) share of raters who said bad, medium, good


def statistics(values: np.ndarray) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation (K,) over the valid values (N, K).

    The deviation is 1 where nothing varies, the mean 0 where no value is valid.
    """
    valid = np.isfinite(values)
    count = np.maximum(valid.sum(0), 1)
    mean = np.where(valid, values, 0).sum(0) / count
    std = np.sqrt(np.where(valid, (values - mean) ** 2, 0).sum(0) / count)
    constant = std <= 1e-9 * np.maximum(np.abs(mean), 1)
    return torch.from_numpy(mean), torch.from_numpy(np.where(constant, 1.0, std))


def fit_audioscore(
    values: np.ndarray,
    targets: np.ndarray,
    versions: Mapping[str, str],
    training: Training,
    purpose: tuple[int | str, ...] = (),
) -> Fitted:
    """Minimise the cross-entropy to the raters' label shares; the same arguments give the same fit.

    values (N, K) with NaN for missing, targets (N, 3), `versions` of the K dimensions, in their order.
    `purpose` gives each fit its own initial weights.
    """
    network = AudioScoreNetwork(
        len(versions), training.hidden, generator_of(training.seed, "audioscore", *purpose)
    )
    fitted = Fitted(tuple(versions), tuple(versions.values()), *statistics(values), network)
    inputs, shares = fitted.inputs(values), torch.as_tensor(targets, dtype=torch.float64)
    optimizer = torch.optim.Adam(
        network.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay
    )
    for _ in range(training.num_steps):
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(network(inputs), shares).backward()
        optimizer.step()
    network.eval().requires_grad_(False)
    return fitted


def clip_folds(clip_ids: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Return the fold (N,) of each candidate: whole clips are dealt out evenly at random.

    Raises ValueError if there are fewer clips than folds.
    """
    clips, place = np.unique(clip_ids, return_inverse=True)
    if len(clips) < folds:
        raise ValueError(
            f"rated candidates come from {len(clips)} clips and {folds} folds need at least as many; "
            "rate more clips or lower `folds`"
        )
    order = torch.randperm(len(clips), generator=generator_of(seed, "folds")).numpy()
    fold_of_clip = np.empty(len(clips), np.int64)
    fold_of_clip[order] = np.arange(len(clips)) % folds
    return fold_of_clip[place]


class CrossValidated(NamedTuple):
    """Predictions for each candidate by the model that was fitted without its clip."""

    probabilities: np.ndarray  # (N, 3)
    fold: np.ndarray  # (N,)
    models: list[Fitted]  # one per fold


def cross_validate(examples: Examples, dimensions: Sequence[str], training: Training) -> CrossValidated:
    """For each fold, fit on the other folds and predict it."""
    fold = clip_folds(examples.clip_ids, training.folds, training.seed)
    versions = dict.fromkeys(dimensions, "")
    probabilities = np.empty((len(fold), 3))
    models = []
    for index in range(training.folds):
        seen, held = fold != index, fold == index
        model = fit_audioscore(
            examples.values[seen], examples.targets[seen], versions, training, purpose=("fold", index)
        )
        probabilities[held] = model.probabilities(examples.values[held])
        models.append(model)
    return CrossValidated(probabilities, fold, models)


class Contribution(NamedTuple):
    """Loss in cross-validation when a dimension is shuffled among the held-out candidates."""

    accuracy_drop: float
    log_likelihood_drop: float  # nats per candidate


def mean_log_likelihood(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Return the mean over candidates of Σ_c target_c log p_c, in nats: (N, 3), (N, 3)."""
    return float((targets * np.log(np.maximum(probabilities, 1e-12))).sum(1).mean())


def contributions(
    examples: Examples,
    labels: np.ndarray,
    held: CrossValidated,
    dimensions: Sequence[str],
    training: Training,
) -> dict[str, Contribution]:
    """Return the permutation importance of each dimension (value and validity bit), mean over shuffles."""

    def quality(probabilities: np.ndarray) -> np.ndarray:
        right = float((probabilities.argmax(1) == labels).mean())
        return np.array([right, mean_log_likelihood(probabilities, examples.targets)])

    base = quality(held.probabilities)
    result = {}
    for column, name in enumerate(dimensions):
        shuffled = []
        for shuffle in range(training.num_shuffles):
            generator = np.random.default_rng(seed_of(training.seed, "shuffle", name, shuffle))
            probabilities = np.empty_like(held.probabilities)
            for index, model in enumerate(held.models):
                rows = np.flatnonzero(held.fold == index)
                values = examples.values[rows].copy()
                values[:, column] = generator.permutation(values[:, column])
                probabilities[rows] = model.probabilities(values)
            shuffled.append(quality(probabilities))
        result[name] = Contribution(*(float(d) for d in base - np.mean(shuffled, 0)))
    return result
