"""Names as av-benchmark makes them, odd rules included."""

from __future__ import annotations

import pytest

from foleypref.benchmark import clean_name

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
