"""Names and pairs as av-benchmark makes them, odd rules included."""

from __future__ import annotations

import pytest

from foleytune.benchmark_names import clean_name, pair_names

CLIP = "zxpo56cpUBU_000007"


@pytest.mark.parametrize(
    "stem", [CLIP, f"{CLIP}-0", f"{CLIP}_1", f"Y{CLIP}_0", f"000000014_{CLIP}-0", f"123456789_{CLIP}_x"]
)
def test_every_form_of_a_clip_is_the_same_name(stem: str) -> None:
    assert clean_name(stem) == CLIP


def test_nothing_but_the_length_is_looked_at() -> None:
    assert clean_name("a" * 18 + "bb") == "a" * 18
    assert clean_name("b" + "a" * 18 + "cc") == "a" * 18
    assert clean_name("b" * 10 + "a" * 18 + "cc") == "a" * 18
    for length in (0, 1, 17, 18, 19, 22, 29, 31):
        assert clean_name("x" * length) == "x" * length
    assert clean_name(f"{CLIP}.wav") == f"{CLIP}.wav"  # 22 characters: the suffix must be off


def test_pairs_come_in_the_order_of_the_predictions() -> None:
    pairing = pair_names(["a", "b", "c"], ["c", "a", "d"])
    assert pairing.pairs == (("c", "c"), ("a", "a"))
    assert pairing.unpaired == ("b", "d")


def test_two_predictions_of_one_clip_are_two_pairs() -> None:
    pairing = pair_names([CLIP], [f"{CLIP}-0", f"{CLIP}-1"])
    assert pairing.pairs == ((f"{CLIP}-0", CLIP), (f"{CLIP}-1", CLIP))
    assert pairing.unpaired == ()


def test_a_ground_truth_is_never_cleaned() -> None:
    pairing = pair_names([f"{CLIP}-0"], [f"{CLIP}-0"])
    assert pairing.pairs == ()
    assert pairing.unpaired == (CLIP, f"{CLIP}-0")


def test_raw_stems_pair_where_cleaned_ones_do_not_and_the_other_way_round() -> None:
    assert pair_names([f"{CLIP}-0"], [f"{CLIP}-0"], clean=False).pairs == ((f"{CLIP}-0", f"{CLIP}-0"),)
    assert pair_names([CLIP], [f"{CLIP}-0"], clean=False).pairs == ()
    assert pair_names([CLIP], [f"{CLIP}-0"]).pairs == ((f"{CLIP}-0", CLIP),)


def test_nothing_on_a_side() -> None:
    assert pair_names([], []) == ((), ())
    assert pair_names([], ["a"]) == ((), ("a",))
    assert pair_names(["a"], []) == ((), ("a",))
