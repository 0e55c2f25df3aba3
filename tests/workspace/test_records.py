"""Ids are content-hashed and stable: a changed golden value orphans every workspace on disk."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys

import pytest

from foleypref.workspace import records
from foleypref.workspace.records import (
    RECORDS,
    Candidate,
    Clip,
    Failure,
    Feature,
    Pair,
    Rating,
    Score,
    Vote,
    digest,
)

NOISE_SEED = 1741458011374903546  # of seed 7 on clip c0
GOLDEN = {
    "digest": (lambda: digest("clip", 1, 2.5, None), "2e3856730756f140"),
    "clip": (lambda: Clip.make_id("abc", 0.0, 4.0), "481b7e5b5ed98f18"),
    "candidate": (lambda: Candidate.make_id("c0", "world", "w0", 7, "euler", 10, 2.0), "d3c1cd88a090b297"),
    "feature": (lambda: Feature.make_id("c0", "key"), "e53aeaf187f2917b"),
    "score": (lambda: Score.make("a0", "clap", "1", "text", 0.5).score_id, "e61b29af5f4f1404"),
    "rating": (lambda: Rating.make("a0", "anna", 2, "human").rating_id, "5832eea1258d33eb"),
    "vote": (lambda: Vote.make("c0", "a0", "a1", "anna", 1, "human").vote_id, "04dd7d3ce26f35ab"),
    "pair": (lambda: Pair.make_id("c0", "a0", "a1", "auto"), "1347b92f31c97f73"),
    "failure": (lambda: Failure.make("ingest", "x.mp4", "no sound").failure_id, "f510f368b747542d"),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_ids_are_the_golden_ones(name: str) -> None:
    make, expected = GOLDEN[name]
    assert make() == expected


def test_a_candidate_is_made_with_its_id_and_its_clips_noise() -> None:
    made = Candidate.make("c0", "world", "w0", seed=7, solver="euler", num_steps=10, guidance_scale=2.0)
    assert (made.candidate_id, made.shard, made.row) == ("d3c1cd88a090b297", "", -1)
    assert made.noise_seed == NOISE_SEED
    tuned = dataclasses.replace(made, model="other", weights="w1", solver="rk4")
    assert tuned.noise_seed == NOISE_SEED
    assert dataclasses.replace(made, clip_id="c1").noise_seed != NOISE_SEED
    assert dataclasses.replace(made, seed=8).noise_seed != NOISE_SEED


def test_records_are_read_without_importing_torch() -> None:
    code = "import sys, foleypref.workspace.records as r; assert r.RECORDS and 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_digest_depends_on_every_part_and_on_their_order() -> None:
    found = {digest(*parts) for parts in [("a", "b"), ("b", "a"), ("ab",), ("a", "b", ""), ("a", ["b"])]}
    assert len(found) == 5
    assert len(digest("a", length=24)) == 24


def test_digest_ignores_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})


def test_every_candidate_setting_is_in_its_id() -> None:
    settings = {
        "clip_id": "c", "model": "m", "weights": "w", "seed": 1,
        "solver": "euler", "num_steps": 10, "guidance_scale": 2.0,
    }  # fmt: skip
    ids = {Candidate.make_id(**settings)}
    for key, value in settings.items():
        ids.add(Candidate.make_id(**{**settings, key: value + value}))
    assert len(ids) == 1 + len(settings)


def test_float_noise_does_not_change_a_clip_id() -> None:
    assert Clip.make_id("abc", 0.1 + 0.2, 4.0) == Clip.make_id("abc", 0.3, 4.0)
    assert Clip.make_id("abc", 0.3001, 4.0) != Clip.make_id("abc", 0.3, 4.0)


def test_a_score_that_is_not_a_number_is_unscored_with_a_reason() -> None:
    score = Score.make("a0", "clap", "1", "text", math.nan)
    assert score.value is None
    assert score.reason == "not a number"
    assert Score.make("a0", "clap", "1", "text", 0.0).value == 0.0


@pytest.mark.parametrize("label", [-1, 3, None])
def test_a_label_outside_the_three_is_refused(label: int | None) -> None:
    with pytest.raises(ValueError, match="label is 0"):
        Rating.make("a0", "anna", label, "human")


def test_a_preference_outside_the_three_is_refused() -> None:
    with pytest.raises(ValueError, match="preference is 1"):
        Vote.make("c0", "a0", "a1", "anna", 2, "human")


def test_every_record_class_has_its_own_table_and_a_real_id_field() -> None:
    classes = [c for c in vars(records).values() if isinstance(c, type) and issubclass(c, records.Record)]
    classes.remove(records.Record)
    assert sorted(RECORDS) == sorted(c.table for c in classes)
    for cls in classes:
        assert RECORDS[cls.table] is cls
        assert cls.id_field in cls.columns()


def test_records_are_frozen() -> None:
    failure = Failure.make("ingest", "x.mp4", "no sound")
    with pytest.raises(dataclasses.FrozenInstanceError):
        failure.reason = "other"  # type: ignore[misc]
    assert failure.record_id == failure.failure_id
