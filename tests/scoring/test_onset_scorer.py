"""Onsets against the clip's own sound: clicks at known times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from foleypref.scoring.scorers import ScoreItem
from foleypref.scoring.scorers.onset import Onset, onset_times_s
from tests.judged import scores_of

TIMES = (0.5, 1.25, 2.0, 2.6, 3.4)


def clicks(
    times_s: Sequence[float], rate: int = 16000, seconds: float = 4.0, noise: float = 1e-3
) -> np.ndarray:
    """Decaying noise bursts at known times over a quiet background."""
    generator = np.random.default_rng(0)
    wave = noise * generator.standard_normal(round(seconds * rate))
    burst = np.exp(-np.arange(round(0.05 * rate)) / (0.01 * rate)) * generator.standard_normal(
        round(0.05 * rate)
    )
    for time in times_s:
        at = round(time * rate)
        wave[at : at + len(burst)] += 0.5 * burst[: len(wave) - at]
    return wave.astype(np.float32)


def judged(wave: np.ndarray, rate: int = 16000, **changes: Any) -> dict[str, Any]:
    """Scores by dimension against clicks at TIMES."""
    item = ScoreItem("a", wave, rate, reference=clicks(TIMES), reference_rate=16000)
    return {s.dimension: s for s in scores_of(Onset(), [replace(item, **changes)])}


def values(wave: np.ndarray, rate: int = 16000, **changes: Any) -> tuple[float, float]:
    """(F1, mean error in seconds)."""
    scores = judged(wave, rate, **changes)
    return scores["onset_f1"].value, scores["onset_error_s"].value


@pytest.mark.parametrize("rate", [16000, 22050, 44100, 48000])
def test_onsets_are_where_the_clicks_are(rate: int) -> None:
    assert onset_times_s(clicks(TIMES, rate), rate) == pytest.approx(TIMES, abs=0.015)


def test_the_same_clicks_at_another_rate_are_in_time() -> None:
    for rate in (16000, 44100):
        f1, error = values(clicks(TIMES, rate), rate)
        assert f1 == 1.0
        assert error <= 0.011


def test_a_small_shift_is_measured_and_a_large_one_is_a_miss() -> None:
    f1, error = values(clicks([t + 0.03 for t in TIMES]))
    assert f1 == 1.0
    assert error == pytest.approx(0.03, abs=0.006)
    f1, error = values(clicks([t + 0.2 for t in TIMES]))
    assert f1 == 0.0
    assert error == pytest.approx(0.2, abs=0.011)
    assert values(clicks([t - 0.2 for t in TIMES]))[1] == pytest.approx(0.2, abs=0.011)


def test_misses_and_extras_both_cost() -> None:
    assert values(clicks(TIMES[:3]))[0] == pytest.approx(2 * 3 / (3 + 5))
    assert values(clicks([*TIMES, 0.9, 3.0]))[0] == pytest.approx(2 * 5 / (7 + 5))
    error = values(clicks(TIMES[:1]))[1]
    assert error == pytest.approx(
        (0 + 4 * 0.5) / 5, abs=0.01
    )  # an event without an onset counts half a second


def test_a_sound_that_ends_early_misses_what_it_leaves_out() -> None:
    assert values(clicks(TIMES)[: 16000 * 2])[0] == pytest.approx(2 * 2 / (2 + 5))


def test_only_the_evaluated_length_and_what_the_reference_covers_count() -> None:
    late = clicks(TIMES, seconds=6.0)
    late[16000 * 5 : 16000 * 5 + 800] = clicks([0.0])[:800]
    assert values(late)[0] == 1.0  # the click at 5 s comes after the reference's end
    assert values(clicks(TIMES[:2]), seconds=1.9)[0] == 1.0


def fade(seconds: float = 4.0) -> np.ndarray:
    """A tone that comes up slowly and is cut off at its loudest."""
    time = np.arange(round(seconds * 16000)) / 16000
    return ((time / seconds) ** 2 * np.sin(2 * np.pi * 300 * time)).astype(np.float32)


def test_where_a_sound_is_cut_there_is_no_onset() -> None:
    tone = np.sin(2 * np.pi * 300 * np.arange(64000) / 16000).astype(np.float32)
    assert len(onset_times_s(tone, 16000)) == len(onset_times_s(fade(), 16000)) == 0
    assert onset_times_s(clicks([0.1, 3.8]), 16000) == pytest.approx([0.1, 3.8], abs=0.015)


def test_no_sound_no_reference_and_no_onset_are_unscored() -> None:
    cases = {
        "silent": judged(np.zeros(64000, np.float32)),
        "no reference sound": judged(clicks(TIMES), reference=None),
        "no onset": judged(clicks(TIMES), reference=fade()),
    }
    for reason, scores in cases.items():
        assert set(scores) == {"onset_f1", "onset_error_s"}
        for score in scores.values():
            assert score.value is None
            assert reason in score.reason
    assert judged(clicks(TIMES), reference=np.zeros(9, np.float32))["onset_f1"].reason == "no reference sound"


def test_a_sound_without_onsets_is_wrong_not_unscored() -> None:
    assert values(fade()) == (0.0, 0.5)


def test_the_truth_is_not_read() -> None:
    class Closed(Mapping[str, Any]):
        def __getitem__(self, key: str) -> Any:
            raise AssertionError(f"read {key}")

        __iter__ = __len__ = __getitem__  # type: ignore[assignment]

    assert "truth" not in Onset().needs
    assert values(clicks(TIMES), meta=Closed()) == (1.0, 0.0)
