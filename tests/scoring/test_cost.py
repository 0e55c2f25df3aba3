"""Costs of judges: closed forms of the operations counted, and quantities that must not matter."""

from __future__ import annotations

import pytest

from foleypref.scoring.cost import scorer_cost


def test_cnn14_is_its_convolutions() -> None:
    cost = scorer_cost("panns", 8.0)
    assert cost is not None
    products, frames, mels = 0, 801, 64
    for channels, to in ((1, 64), (64, 128), (128, 256), (256, 512), (512, 1024), (1024, 2048)):
        products += 9 * frames * mels * (channels * to + to * to)
        frames, mels = frames // 2, mels // 2
    assert cost.candidate == pytest.approx(2e-12 * (products + 2048 * (2048 + 527)), rel=1e-6)
    assert cost.clip == 0


def test_a_transformer_costs_about_two_operations_a_weight_and_token() -> None:
    cost = scorer_cost("passt", 8.0)
    assert cost is not None
    linear = 2 * 1190 * 11.17 * 12 * 768**2  # of the last block little is needed
    attention = 4 * 1190**2 * 768 * 11
    assert cost.candidate == pytest.approx(1e-12 * (linear + attention), rel=0.02)
    assert cost == scorer_cost("passt", 4.0)  # always 10 s


def test_clap_is_a_swin_of_64_by_64_patches_and_a_roberta() -> None:
    cost = scorer_cost("clap", 8.0)
    assert cost is not None
    stages = ((2, 4096, 128), (2, 1024, 256), (12, 256, 512), (2, 64, 1024))  # blocks, patches, width
    linear = sum(2 * blocks * patches * 12 * width**2 for blocks, patches, width in stages)
    windows = sum(4 * blocks * patches * 64 * width for blocks, patches, width in stages)  # 8 x 8 each
    halving = sum(2 * patches // 4 * 4 * width * 2 * width for _, patches, width in stages[:-1])
    assert cost.candidate == pytest.approx(1e-12 * (linear + windows + halving), rel=0.01)
    text = 2 * 77 * 12 * 12 * 768**2 + 4 * 12 * 77**2 * 768
    assert cost.clip == pytest.approx(1e-12 * text, rel=0.01)


def test_pictures_are_paid_once_a_clip_and_grow_with_it() -> None:
    for name in ("synchformer", "imagebind"):
        four, eight, ten = (scorer_cost(name, seconds) for seconds in (4.0, 8.0, 10.0))
        assert four is not None
        assert eight is not None
        assert ten is not None
        assert 0 <= four.clip < eight.clip < ten.clip
        assert eight.clip > 5 * eight.candidate
    assert scorer_cost("synchformer", 4.0) == (0.0, 0.0)  # unscored
    assert scorer_cost("pesq", 8.0) is None
