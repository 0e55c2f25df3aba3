"""PESQ of generated speech against the clip's own soundtrack (ITU-T P.862; extra `pesq`, never vendored).

The gate is decided on the clip, not on the candidate, so all candidates of a clip share it: the caption must
mention speech, or PANNs must hear it in the clip's own sound. Every failure of the C code becomes an unscored
value with its reason.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pesq as pesq_package
import torch
from pydantic import PrivateAttr

from foleypref.networks.resample import HANN, resample
from foleypref.scoring.scorers import Judgement, ScoreItem, Scorer, Unscored, Value, loaded, unscored_reason
from foleypref.scoring.scorers.panns import Panns

MIN_SECONDS = 0.25
SPEECH_FROM = 0.5  # PANNs' probability of Speech
RATE = 16000  # Hz; other sound is resampled


class Pesq(Scorer):
    """Wide- or narrow-band PESQ of the clips that `gate` lets through.

    "caption": the caption holds one of `speech_words` ("" lets every clip through). "panns": PANNs gives
    AudioSet's class Speech a probability over 0.5 in the clip's own soundtrack.
    """

    mode: Literal["wb", "nb"] = "wb"
    gate: Literal["caption", "panns"] = "caption"
    weights_folder: str = ""  # PANNs' weights
    speech_words: str = (
        r"speak|speaks|speaking|speech|talk|talks|talking|says|voice|voices|syllables|babbles|mouth"
    )

    needs: ClassVar[frozenset[str]] = frozenset({"audio", "reference", "text"})
    higher_is_better: ClassVar[dict[str, bool]] = {"pesq": True}

    _tagger: Panns | None = PrivateAttr(default=None)
    _heard: dict[str, bool] = PrivateAttr(default_factory=dict)  # clip -> whether it is speech

    @property
    def version(self) -> str:
        """Package version, mode and gate."""
        gate = "" if self.gate == "caption" else f"-panns-{self._listener.version}"
        return f"0.0.4-{self.mode}{gate}"

    def load(self, device: str | torch.device = "cpu") -> Self:
        """Read PANNs' weights if it decides."""
        self._heard = {}
        self._tagger = self._listener.load(device) if self.gate == "panns" else None
        return self

    def judge(self, items: Sequence[ScoreItem]) -> Judgement:
        """Compare speech with the clip's own: about 1.0 to 4.64; other sounds are unscored."""
        return Judgement({"pesq": [self._value(item) for item in items]}, {})

    def _value(self, item: ScoreItem) -> Value:
        if not self._is_speech(item):
            return Unscored("not speech")
        if reason := unscored_reason(item, frozenset({"audio", "reference"})):
            return Unscored(reason)
        assert item.reference is not None
        degraded = _at_rate(item.wave, item.sample_rate)
        reference = _at_rate(item.reference, item.reference_rate or item.sample_rate)
        n = min(len(degraded), len(reference))
        if n < MIN_SECONDS * RATE:
            return Unscored(f"shorter than {MIN_SECONDS} s")
        return _measure(RATE, reference[:n], degraded[:n], self.mode)

    @property
    def _listener(self) -> Panns:
        return Panns(weights_folder=self.weights_folder)

    def _is_speech(self, item: ScoreItem) -> bool:
        if self.gate == "caption":
            return not self.speech_words or bool(
                re.search(rf"\b({self.speech_words})\b", item.prompt.lower())
            )
        tagger = loaded(self._tagger)
        if item.reference is None:
            return False
        clip = item.clip_id or item.candidate_id
        if clip not in self._heard:
            rate = item.reference_rate or item.sample_rate
            truth = ScoreItem(clip, item.reference, rate, seconds=item.seconds)
            speech = tagger.judge([truth]).column("speech")[0]  # NaN, which is not above, if unscored
            self._heard[clip] = bool(speech > SPEECH_FROM)
        return self._heard[clip]


def _at_rate(wave: np.ndarray, sample_rate: int) -> np.ndarray:
    return resample(torch.from_numpy(wave), sample_rate, RATE, HANN).numpy()


def _measure(rate: int, reference: np.ndarray, degraded: np.ndarray, mode: str) -> Value:
    try:
        value: Any = pesq_package.pesq(rate, reference, degraded, mode)
    except (pesq_package.PesqError, ValueError) as error:
        message = error.args[0] if error.args else type(error).__name__
        return Unscored(f"PESQ: {message.decode() if isinstance(message, bytes) else message}")
    return float(value)
