"""PESQ: golden numbers, the gates, rates and lengths; every refusal is a reason."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("pesq")

from foleypref.networks.resample import HANN, resample
from foleypref.scoring.scorers import Judgement, ScoreItem
from foleypref.scoring.scorers import pesq as module
from foleypref.scoring.scorers.pesq import Pesq
from tests.golden import recipes
from tests.golden.check_pesq import CHECKS, RATE, measure
from tests.golden.compare import LIMIT, relative_error
from tests.judged import scores_of

GOLDEN = Path(__file__).parents[1] / "golden"
VOICE = recipes.speechlike(4 * RATE)


def item(**changes: Any) -> ScoreItem:
    given = ScoreItem("a", VOICE, RATE, "a man speaking", reference=VOICE, reference_rate=RATE, clip_id="c")
    return replace(given, **changes)


def test_golden_numbers() -> None:
    name = "scorers_pesq.safetensors"
    errors = {n: relative_error(ours, expected) for n, ours, expected in CHECKS[name](GOLDEN / name)}
    assert max(errors.values()) <= LIMIT, errors


def test_the_caption_decides_for_all_candidates_of_a_clip() -> None:
    scorer = Pesq().load()
    (spoken,) = scores_of(scorer, [item()])
    (other,) = scores_of(scorer, [item(prompt="rain on a roof")])
    (any_clip,) = scores_of(Pesq(speech_words="").load(), [item(prompt="rain on a roof")])
    assert spoken.value == any_clip.value == pytest.approx(4.64, abs=0.01)
    assert (other.value, other.reason) == (None, "not speech")


class Listener:
    """A PANNs that hears speech in any sound louder than 0.05."""

    version = "w-1"
    heard = 0

    def __init__(self, **_: Any) -> None:
        pass

    def load(self, device: Any = "cpu") -> Listener:
        return self

    def judge(self, items: list[ScoreItem]) -> Judgement:
        Listener.heard += len(items)
        return Judgement({"speech": [float(np.abs(items[0].wave).max() > 0.05)]}, {})


def test_panns_decides_on_the_clips_own_sound_once_a_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Panns", Listener)
    Listener.heard = 0
    scorer = Pesq(gate="panns").load()
    assert scorer.version == "0.0.4-wb-panns-w-1"
    quiet = 0.01 * VOICE
    items = [item(prompt=""), item(prompt="", candidate_id="b", wave=0.3 * VOICE)]
    assert all(s.value is not None for s in scores_of(scorer, items))
    assert Listener.heard == 1
    (unheard,) = scores_of(scorer, [item(reference=quiet, clip_id="d")])  # whatever the candidate says
    assert unheard.reason == "not speech"


def test_other_rates_are_resampled() -> None:
    at_44 = resample(torch.from_numpy(VOICE), RATE, 44100, HANN).numpy()
    (score,) = scores_of(Pesq().load(), [item(wave=at_44, sample_rate=44100)])
    assert score.value is not None
    assert score.value > 4.5


def test_of_unequal_lengths_what_both_have_is_compared() -> None:
    assert measure(VOICE, VOICE[: 3 * RATE], "wb") == measure(VOICE[: 3 * RATE], VOICE[: 3 * RATE], "wb")
