"""PESQ of generated speech against the clip's own soundtrack (ITU-T P.862; extra `pesq`, never vendored).

The gate is decided on the clip, not on the candidate, so all candidates of a clip share it: the caption must
speak of speech. Every failure mode of the C code becomes an unscored value with its reason.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import pesq as pesq_package
import torch

from foleytune.networks.resample import HANN, resample
from foleytune.records import Score
from foleytune.scorers import PlainScorer, ScoreItem
from foleytune.scorers._world import unscored_reason

MIN_SECONDS = 0.25
RATE = 16000  # Hz; other sound is resampled


class Pesq(PlainScorer):
    """Settings: `mode` wb or nb; `speech_words`, one of which must stand in the caption ("" any clip)."""

    mode: Literal["wb", "nb"] = "wb"
    speech_words: str = (
        r"speak|speaks|speaking|speech|talk|talks|talking|says|voice|voices|syllables|babbles|mouth"
    )

    needs: ClassVar[frozenset[str]] = frozenset({"audio", "reference", "text"})
    dimensions: ClassVar[tuple[str, ...]] = ("pesq",)
    higher_is_better: ClassVar[dict[str, bool]] = {"pesq": True}

    @property
    def version(self) -> str:
        """Package version and mode."""
        return f"0.0.4-{self.mode}"

    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        """One value from about 1.0 to 4.64 an item, unscored outside speech."""
        return [self._score(item) for item in items]

    def _score(self, item: ScoreItem) -> Score:
        value, reason = self._value(item)
        return Score.make(item.candidate_id, "pesq", self.version, "pesq", value, reason)

    def _value(self, item: ScoreItem) -> tuple[float | None, str]:
        if self.speech_words and not re.search(rf"\b({self.speech_words})\b", item.prompt.lower()):
            return None, "not speech"
        reason = unscored_reason(item, frozenset({"audio", "reference"}))
        if reason:
            return None, reason
        assert item.reference is not None
        degraded = _at_rate(item.wave, item.sample_rate)
        reference = _at_rate(item.reference, item.reference_rate or item.sample_rate)
        n = min(len(degraded), len(reference))
        if n < MIN_SECONDS * RATE:
            return None, f"shorter than {MIN_SECONDS} s"
        return _measure(RATE, reference[:n], degraded[:n], self.mode)


def _at_rate(wave: np.ndarray, sample_rate: int) -> np.ndarray:
    return resample(torch.from_numpy(wave), sample_rate, RATE, HANN).numpy()


def _measure(rate: int, reference: np.ndarray, degraded: np.ndarray, mode: str) -> tuple[float | None, str]:
    try:
        value: Any = pesq_package.pesq(rate, reference, degraded, mode)
    except (pesq_package.PesqError, ValueError) as error:
        message = error.args[0] if error.args else type(error).__name__
        return None, f"PESQ: {message.decode() if isinstance(message, bytes) else message}"
    return float(value), ""
