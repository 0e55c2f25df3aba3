"""Which pairs a run learns from and which it holds out."""

from __future__ import annotations

import pytest

from foleypref.training import data as train_data
from foleypref.workspace.records import Pair
from foleypref.workspace.store import Workspace


def test_held_out_pairs_share_no_clip_with_the_others(filled: Workspace) -> None:
    pairs = filled.read(Pair)
    kept, held_out = train_data.split_pairs(pairs, None, 7)
    assert len(held_out) == 7
    assert not {p.clip_id for p in kept} & {p.clip_id for p in held_out}
    assert train_data.split_pairs(pairs[::-1], None, 7)[1] == held_out
    assert train_data.split_pairs(pairs, None, 0) == (pairs, [])
    with pytest.raises(ValueError, match="well below half"):
        train_data.split_pairs(pairs, None, 40)


def test_sources_are_filtered(filled: Workspace) -> None:
    kept, held_out = train_data.split_pairs(filled.read(Pair), ("human",), 2)
    assert {p.source for p in [*kept, *held_out]} == {"human"}
