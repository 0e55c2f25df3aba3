"""Golden checks of the metrics over sets, and of the benchmark's names and pairs.

Closer than the common limit: the Fréchet distance within 1e-7, everything else within 1e-6 but for one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file
from torch import Tensor

from foleypref.benchmark import clean_name
from foleypref.evaluation.metrics import Rows
from foleypref.evaluation.metrics.frechet import frechet_distance
from foleypref.evaluation.metrics.inception import (
    chunk_scores,
    inception_score,
    permutation,
)
from foleypref.evaluation.metrics.kid import subset_discrepancies
from foleypref.evaluation.metrics.kl import kl_divergence, log_softmax
from foleypref.evaluation.metrics.mean import Mean
from tests.golden.compare import relative_error

Quantities = Iterator[tuple[str, Tensor, Tensor]]
Arrays = dict[str, np.ndarray]

ABOUT = {"scipy", "note", "versions", "pins", "tensors"}  # of the companion: no quantities
NEAR_ZERO = 1e-9  # stands for zero where the reference has only rounding
FRECHET_LIMIT, LIMIT = 1e-7, 1e-6
# The reference adds kernels in float32: 1.4e-6 of its deviation is rounding, and in float32 ours is the same.
LIMITS = {"kid.kernel_inception_distance_std": 2e-6}
KID = {"subsets": 10, "subset_size": 64}  # the file does not say; no other setting gives its numbers
LEFT_OUT = {  # no divergence (see `foleypref.evaluation.metrics.kl`), and in no table
    "kl.kl_sigmoid",
    "kl_self.kl_sigmoid",
    "kl_two_lists_last_wins.kl_sigmoid",
}
INCEPTION = {  # clips, splits, permuted
    "isc_splits10": (100, 10, True),
    "isc_splits10_noshuffle": (100, 10, False),
    "isc_splits1": (100, 1, True),
    "isc_n97_splits10": (97, 10, True),
    "isc_n5_splits10": (5, 10, True),
    "isc_n10_splits10": (10, 10, True),
}


def number(value: float | None) -> Tensor:
    """A float64 scalar; NaN for null."""
    return torch.tensor(math.nan if value is None else float(value), dtype=torch.float64)


def text(value: Any) -> Tensor:
    """Anything of names as bytes, so that it compares as integers do: exactly."""
    return torch.tensor(list(json.dumps(value, sort_keys=True).encode()))


def near(ours: float, expected: float) -> tuple[Tensor, Tensor]:
    """True twice where both are zero but for rounding."""
    return torch.tensor(abs(ours) < NEAR_ZERO), torch.tensor(abs(expected) < NEAR_ZERO)


def frechet(golden: Arrays, results: dict[str, Any]) -> Quantities:
    """Full rank, a set against itself, fewer rows than dimensions, a constant dimension, after a ReLU."""
    for case in ("full", "same", "rank_deficient", "const_dim", "relu"):
        ours = frechet_distance(golden[f"fd_{case}_pred"], golden[f"fd_{case}_gt"])
        expected = results[f"fd_{case}"]
        yield f"fd_{case}", *(near(ours, expected) if case == "same" else (number(ours), number(expected)))


def kl(golden: Arrays, results: dict[str, Any]) -> Quantities:
    """Two sets of logits, and a set against itself."""
    g, p = golden["kl_gt_logits"], golden["kl_pred_logits"]
    yield "kl.kl_softmax", number(kl_divergence(g, p).mean()), number(results["kl"]["kl_softmax"])
    for case in ("kl_self", "kl_two_lists_last_wins"):
        yield f"{case}.kl_softmax", number(kl_divergence(g, g).mean()), number(results[case]["kl_softmax"])


def inception(golden: Arrays, results: dict[str, Any]) -> Quantities:
    """Mean and deviation over chunks in six settings, the order of the clips, values of single clips."""
    logits = golden["is_logits"]
    for case, (n, splits, permute) in INCEPTION.items():
        scores = chunk_scores(logits[:n], splits, permute=permute)
        if permute:
            assert np.array_equal(inception_score(logits[:n], splits), scores.mean(), equal_nan=True)
        expected = results[case]
        yield f"{case}.inception_score_mean", number(scores.mean()), number(expected["inception_score_mean"])
        std, wanted = scores.std(), expected["inception_score_std"]
        rounding = wanted is not None and wanted < NEAR_ZERO
        pair = near(std, wanted) if rounding else (number(std), number(wanted))
        yield f"{case}.inception_score_std", *pair
    log_mean = np.broadcast_to(np.log(np.exp(log_softmax(logits)).mean(axis=0)), logits.shape)
    even = np.zeros(logits.shape)
    for name, ours in (
        ("is_perm_100", permutation(len(logits))),
        ("is_persample_kl_all", kl_divergence(logits, log_mean)),
        ("is_persample_negentropy", kl_divergence(logits, even) - np.log(logits.shape[1])),
    ):
        yield name, torch.from_numpy(ours), torch.from_numpy(golden[name])


def kid(golden: Arrays, results: dict[str, Any]) -> Quantities:
    """Mean and deviation over subsets of the first Fréchet case."""
    values = subset_discrepancies(golden["fd_full_pred"], golden["fd_full_gt"], **KID)
    for key, ours in (("mean", values.mean()), ("std", values.std())):
        name = f"kernel_inception_distance_{key}"
        yield f"kid.{name}", number(ours), number(results["kid"][name])


def cosine(golden: Arrays, results: dict[str, Any]) -> Quantities:
    """The cosine of each pair, which scorers give, and the mean of them that is called the IB-score."""
    video, audio = (golden[key].astype(np.float64) for key in ("cos_video", "cos_audio"))
    norms = np.linalg.norm(video, axis=1) * np.linalg.norm(audio, axis=1)
    values = (video * audio).sum(1) / norms
    yield "cos_per_sample", torch.from_numpy(values), torch.from_numpy(golden["cos_per_sample"])
    # The mean is 1/70 of the largest cosine, so 1e-6 of it would be the rounding of float32 cosines.
    scores = {"imagebind/similarity": golden["cos_per_sample"]}
    rows = Rows(tuple(map(str, range(len(values)))), scores, {}, {})
    for scale in (1.0, 100.0):  # raw, and as tables print it
        ours = Mean(dimension="imagebind/similarity", scale=scale).value(rows)
        yield "ib_score", number(ours), number(scale * results["ib_score"])


def names(results: dict[str, Any]) -> Quantities:
    """Cleaned names, and pairs by them; values are 1, 2, 3 for a, b, c and ten times as much."""
    for stem, expected in results["clean_sample_name"].items():
        yield f"clean_sample_name.{stem}", text(clean_name(stem)), text(expected)
    case = results["pairing"]
    cleaned = {stem: clean_name(stem) for stem in case["pred_keys"]}
    pairs = [(stem, name) for stem, name in cleaned.items() if name in case["gt_keys"]]
    unpaired = sorted(set(case["gt_keys"]) ^ set(cleaned.values()))
    predicted = [[10.0 * " abc".index(stem[0])] for stem, _ in pairs]
    truth = [[1.0 * " abc".index(name[0])] for _, name in pairs]
    yield "pairing.pred_out", torch.tensor(predicted), torch.tensor(case["pred_out"])
    yield "pairing.gt_out", torch.tensor(truth), torch.tensor(case["gt_out"])
    yield "pairing.unpaired", text(unpaired), text(sorted(case["unpaired"]))


def metrics(path: Path) -> Quantities:
    """Everything in the file and its companion except the names in LEFT_OUT."""
    golden, about = load_file(path), json.loads(path.with_suffix(".json").read_text())
    results = about["results"]
    outputs = {"is_perm_100", "is_persample_kl_all", "is_persample_negentropy", "cos_per_sample"}
    wanted = (_leaves(results) | outputs) - {"pairing.gt_keys", "pairing.pred_keys"} - LEFT_OUT
    read, done = _Recorder(golden), set()
    for check in (frechet, kl, inception, kid, cosine):
        for name, ours, expected in check(read, results):
            done.add(name)
            yield name, *_within(name, ours, expected)
    for name, ours, expected in names(results):
        done.add(name)
        yield name, ours, expected
    assert done == wanted, sorted(done ^ wanted)
    assert read.seen == set(golden), sorted(read.seen ^ set(golden))
    assert set(about) == {"results", *ABOUT}, sorted(about)


def _within(name: str, ours: Tensor, expected: Tensor) -> tuple[Tensor, Tensor]:
    """Refuse what the common limit would let pass."""
    limit = FRECHET_LIMIT if name.startswith("fd_") else LIMITS.get(name, LIMIT)
    error = relative_error(ours, expected)
    assert error <= limit, f"{name}: {error:.2e}, allowed {limit:g}"
    return ours, expected


class _Recorder(dict[str, np.ndarray]):
    """Tensors that remember which of them were looked at."""

    def __init__(self, tensors: Arrays) -> None:
        super().__init__(tensors)
        self.seen: set[str] = set()

    def __getitem__(self, key: str) -> np.ndarray:
        self.seen.add(key)
        return super().__getitem__(key)


def _leaves(results: dict[str, Any]) -> set[str]:
    return {
        f"{name}.{key}" if key else name
        for name, value in results.items()
        for key in (value if isinstance(value, dict) else ("",))
    }


CHECKS: dict[str, Callable[[Path], Quantities]] = {"scorers_metrics.safetensors": metrics}
