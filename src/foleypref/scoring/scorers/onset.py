"""Onsets against the clip's own sound: do the sounds start where those of the recording start?

A reference-based judge that needs no weights and reads no truth: onsets of both sounds are peaks of spectral
flux at 16 kHz, matched one to one within 60 ms. It rewards all that the microphone heard, also sounds from
outside the picture, and says little about sounds that start softly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch

from foleypref.networks.resample import HANN, resample
from foleypref.scoring.scorers import Judgement, ScoreItem, Scorer, Unscored, is_silent
from foleypref.scoring.scorers.oracle_onset import OnsetAgreement, agreement, onset_judgement, onsets

SAMPLE_RATE = 16000  # Hz, of both sounds: the bands of the flux follow the rate
EDGE_S = 0.035  # reach of the detector's window and lag


class Onset(Scorer):
    """onset_f1 in [0, 1]; onset_error_s in [0, 0.5] s, the mean distance from a true onset to the nearest."""

    needs: ClassVar[frozenset[str]] = frozenset({"audio", "reference"})
    higher_is_better: ClassVar[dict[str, bool]] = {"onset_f1": True, "onset_error_s": False}
    version: ClassVar[str] = "1"  # raised when the definition changes

    def judge(self, items: Sequence[ScoreItem]) -> Judgement:
        """Compare onsets; unscored where either sound is silent or the clip's own has no onset."""
        return onset_judgement([_compare(item) for item in items])


def onset_times_s(wave: np.ndarray, sample_rate: int) -> np.ndarray:
    """Return the onsets of a sound (N,) in seconds, at least 100 ms apart, none within 35 ms of its ends."""
    wave = resample(torch.from_numpy(wave), sample_rate, SAMPLE_RATE, HANN).numpy()
    times = onsets(wave, SAMPLE_RATE)
    # A sound that is cut off, at either end, has an edge there that nothing in the scene made.
    return times[(times > EDGE_S) & (times < len(wave) / SAMPLE_RATE - EDGE_S)]


def _compare(item: ScoreItem) -> OnsetAgreement | Unscored:
    if is_silent(item.wave):
        return Unscored("silent")
    if item.reference is None or is_silent(item.reference):
        return Unscored("no reference sound")
    seconds = len(item.reference) / item.reference_rate  # after its end there is nothing to compare with
    if item.seconds is not None:
        seconds = min(seconds, item.seconds)
    sounds = ((item.wave, item.sample_rate), (item.reference, item.reference_rate))
    heard, true = (onset_times_s(wave[: round(seconds * rate)], rate) for wave, rate in sounds)
    if len(true) == 0:
        return Unscored("the clip's own sound has no onset")
    return agreement(heard, true)
