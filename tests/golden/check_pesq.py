"""PESQ as the scorer gives it against the package's own numbers; what is refused there is unscored here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from foleypref.scoring.scorers import ScoreItem
from foleypref.scoring.scorers.pesq import Pesq
from tests.golden import recipes
from tests.judged import scores_of

RATE = 16000
LEFT_OUT = {
    "60s_150_bursts",  # how the bursts were drawn is not stated
    "rate_44100",  # the package refuses; the scorer resamples
    "degraded_gain_1e-6",  # quieter than the scorer's limit for silence
    "nan_degraded",  # never gets this far: sound is read without NaN
}


def cases() -> dict[str, tuple[np.ndarray, np.ndarray, str]]:
    """Name -> reference, degraded, mode."""
    voice = recipes.speechlike(8 * RATE)
    noises = [np.random.RandomState(seed).randn(len(voice)) for seed in (1, 2)]
    rms = [float(np.sqrt(np.mean(x**2))) for x in (voice, noises[0])]
    found = {f"identical_{mode}": (voice, voice, mode) for mode in ("wb", "nb")}
    for level in (40, 30, 20, 10, 0):
        noisy = (voice + noises[0] * rms[0] / rms[1] * 10 ** (-level / 20)).astype(np.float32)
        found |= {f"noise_{level}dB_{mode}": (voice, noisy, mode) for mode in ("wb", "nb")}
    silence = np.zeros_like(voice)
    others = {
        "degraded_silent": (voice, silence),
        "reference_silent": (silence, voice),
        "both_silent": (silence, silence),
        "reference_0.2s": (voice[: RATE // 5], voice[: RATE // 5]),
        "reference_0.25s": (voice[: RATE // 4], voice[: RATE // 4]),
        "degraded_gain_0.1": (voice, 0.1 * voice),
        "degraded_shift_0.5s": (voice, np.roll(voice, RATE // 2)),
        "degraded_shift_2s": (voice, np.roll(voice, 2 * RATE)),
        "unrelated_noise": (voice, (0.1 * noises[1]).astype(np.float32)),
        "other_speechlike": (voice, recipes.speechlike(len(voice), 180.0, 5)),
        "white_noise_reference": ((0.1 * noises[0]).astype(np.float32), voice),
    }
    return found | {name: (*pair, "wb") for name, pair in others.items()}


def measure(reference: np.ndarray, degraded: np.ndarray, mode: str) -> float | None:
    """Return the scorer's value of a clip whose caption mentions speech."""
    item = ScoreItem("a", degraded, RATE, "a man speaking", reference=reference, reference_rate=RATE)
    (score,) = scores_of(Pesq(mode=mode).load(), [item])  # type: ignore[arg-type]
    assert (score.value is None) == bool(score.reason)
    return score.value


def pesq(path: Path) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Every case but those that are left out by name."""
    golden = load_file(path)
    listed = json.loads(path.with_suffix(".json").read_text())["results"]
    voice = torch.from_numpy(recipes.speechlike(8 * RATE)[:64])
    yield "reference_first64", voice, golden["reference_first64"]
    made = cases()
    # of unequal lengths the scorer takes what both have, which the package does not
    shorter = "length_mismatch_8s_vs_6s"
    assert set(made) | LEFT_OUT | {shorter} == set(listed)
    for name, case in made.items():
        expected, value = listed[name]["raise_mode"], measure(*case)
        refused = isinstance(expected, str)
        yield f"{name} is scored", torch.tensor(value is not None), torch.tensor(not refused)
        if not refused and value is not None:
            yield name, torch.tensor(value), torch.tensor(expected)


CHECKS = {"scorers_pesq.safetensors": pesq}
