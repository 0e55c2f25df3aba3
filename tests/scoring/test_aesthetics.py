"""Audiobox Aesthetics: golden ratings, names of weights, the mask, heads, windows, scale and scorer."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from transformers import WavLMConfig, WavLMModel

from foleypref.published import aesthetics as published
from foleypref.published.aesthetics import (
    AXES,
    FIRST_FRAME,
    FRAME,
    NUM_SAMPLES,
    build_aesthetics,
    file_settings,
    num_frames,
    valid_frames,
    windows,
)
from foleypref.published.filling import rename
from foleypref.published.places import MissingWeights
from foleypref.scoring.scorers import ScoreItem
from foleypref.scoring.scorers.aesthetics import Aesthetics
from tests.golden import check_aesthetics as checks
from tests.golden import recipes
from tests.golden.compare import LIMIT, relative_error
from tests.judged import scores_of

GOLDEN = Path(__file__).parents[1] / "golden"
WIDTH = 16
SCALES = {axis: {"mean": 5.0 + index, "std": 1.5 - index / 4} for index, axis in enumerate(AXES)}
ABOUT = {"target_transform": SCALES, "normalize_embed": True, "nth_layer": 13}

OFFICIAL = [  # names of transformers -> the file's
    (r"masked_spec_embed", "mask_emb"),
    (r"(feature_extractor.conv_layers.\d).conv", r"\1.0"),
    (r"(feature_extractor.conv_layers.\d).layer_norm", r"\1.2"),
    (r"feature_projection.projection", "post_extract_proj"),
    (r"feature_projection.layer_norm", "layer_norm"),
    (r"pos_conv_embed.conv.parametrizations.weight.original0", "pos_conv.0.weight_g"),
    (r"pos_conv_embed.conv.parametrizations.weight.original1", "pos_conv.0.weight_v"),
    (r"pos_conv_embed.conv", "pos_conv.0"),
    (r"(layers.\d+).layer_norm", r"\1.self_attn_layer_norm"),
    (r"attention.gru_rel_pos_linear", "self_attn.grep_linear"),
    (r"attention.gru_rel_pos_const", "self_attn.grep_a"),
    (r"attention.rel_attn_embed", "self_attn.relative_attention_bias"),
    (r"attention\.", "self_attn."),
    (r"feed_forward.intermediate_dense", "fc1"),
    (r"feed_forward.output_dense", "fc2"),
]


def tiny_trunk() -> WavLMModel:
    torch.manual_seed(1)
    config = WavLMConfig(
        hidden_size=WIDTH,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_buckets=32,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        conv_dim=[8] * 7,
    )
    return WavLMModel(config).eval()


def official_names(trunk: WavLMModel) -> dict[str, Tensor]:
    state = {}
    for name, value in trunk.state_dict().items():
        for ours, theirs in OFFICIAL:
            name, count = re.subn(rf"{ours}", theirs, name)
            if count:
                break
        state[published.TRUNK + name] = value + 0.05 * torch.randn(value.shape)
    return state


def tiny_state(trunk: WavLMModel | None = None) -> dict[str, Tensor]:
    """An official state dict with heads of one layer and weights of two layers and their input."""
    state = official_names(trunk or tiny_trunk())
    for axis in AXES:
        state[f"layer_weights.{axis}"] = torch.randn(3)
        state |= {
            f"proj_layer.{axis}.0.weight": torch.randn(1, WIDTH),
            f"proj_layer.{axis}.0.bias": torch.randn(1),
        }
    return state


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return tiny_state()


# -- golden vectors --------------------------------------------------------------------------------------


def assert_agrees(name: str) -> None:
    errors = {
        key: relative_error(ours, expected) for key, ours, expected in checks.CHECKS[name](GOLDEN / name)
    }
    assert max(errors.values()) <= LIMIT, errors


def test_golden_names_and_sizes() -> None:
    assert_agrees("scorers_audiobox.json")


@pytest.mark.slow  # a full-size trunk over four windows
def test_golden_ratings() -> None:
    assert_agrees("scorers_audiobox.safetensors")


# -- the network -----------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_rating_is_the_head_of_the_weighed_mean_over_layers_and_frames(state: dict[str, Tensor]) -> None:
    network, trunk = build_aesthetics(state, ABOUT), tiny_trunk()
    renamed, unknown = rename(state, published.NAMES)
    assert not unknown
    trunk.load_state_dict({k.removeprefix("trunk."): v for k, v in renamed.items() if k.startswith("trunk.")})
    wave = recipes.wave(1, 16000, 2)[None]
    layers = torch.stack(trunk(wave, output_hidden_states=True).hidden_states)[:, 0]  # (L, T, D)
    ours = network(wave, torch.tensor([16000]))[0]
    for axis, rating in zip(AXES, ours):
        mixed = torch.einsum("l,ltd->td", state[f"layer_weights.{axis}"].softmax(0), layers).mean(0)
        weight, bias = (state[f"proj_layer.{axis}.0.{kind}"] for kind in ("weight", "bias"))
        assert float(rating) == pytest.approx(float(weight[0] @ (mixed / mixed.norm()) + bias), abs=1e-5)


@torch.no_grad()
def test_the_mean_is_over_the_frames_of_the_sound(state: dict[str, Tensor]) -> None:
    network = build_aesthetics(state, ABOUT)
    wave = F.pad(recipes.wave(1, 16000, 2), (0, 32000))[None]
    mask = (torch.arange(48000) < FIRST_FRAME + 49 * FRAME)[None].long()  # 50 frames of 20 ms
    layers = torch.stack(network.trunk(wave, attention_mask=mask, output_hidden_states=True).hidden_states)
    mixed = torch.einsum("l,ld->d", state["layer_weights.CU"].softmax(0), layers[:, 0, :50].mean(1))
    weight, bias = (state[f"proj_layer.CU.0.{kind}"] for kind in ("weight", "bias"))
    rating = network(wave, torch.tensor([16000]))[0, AXES.index("CU")]
    assert float(rating) == pytest.approx(float(weight[0] @ (mixed / mixed.norm()) + bias), abs=1e-5)


def test_names_of_a_trunk_come_back(state: dict[str, Tensor]) -> None:
    renamed, _ = rename(state, published.NAMES)
    trunk_keys = {k.removeprefix("trunk.") for k in renamed if k.startswith("trunk.")}
    assert trunk_keys == set(tiny_trunk().state_dict())


def test_the_trunk_keeps_every_frame_with_sound_in_it(state: dict[str, Tensor]) -> None:
    """Trap: a mask of the sound's own samples keeps one frame less."""
    network = build_aesthetics(state, ABOUT)
    seen: list[Tensor] = []
    network.trunk.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["attention_mask"]), with_kwargs=True
    )
    valid = torch.tensor([1, 320, 321, 400, 16000, 16001, 128000, 159999, 160000])
    with torch.no_grad():
        network(torch.zeros(len(valid), NUM_SAMPLES), valid)
    frame_counts = network.trunk._get_feature_vector_attention_mask(499, seen[0]).sum(1)
    assert frame_counts.tolist() == [1, 1, 2, 2, 50, 51, 400, 499, 499]
    assert valid_frames(valid, NUM_SAMPLES).tolist() == frame_counts.tolist()
    plain = torch.arange(NUM_SAMPLES) < 128000
    assert network.trunk._get_feature_vector_attention_mask(499, plain[None].long()).sum() == 399
    assert (num_frames(NUM_SAMPLES), num_frames(FIRST_FRAME), num_frames(FIRST_FRAME + FRAME)) == (499, 1, 2)


@torch.no_grad()
def test_what_is_behind_the_sound_is_not_rated(state: dict[str, Tensor]) -> None:
    """Frames behind it are left out: the noise there reaches the sound only through the first norm."""
    network = build_aesthetics(state, ABOUT)
    norm = network.trunk.feature_extractor.conv_layers[0].layer_norm
    norm.forward = lambda x: x  # type: ignore[method-assign]
    wave = F.pad(recipes.wave(2, 16000, 2), (0, 16000))[None]
    noisy = wave.clone()
    noisy[:, 32400:] = 0.1  # two frames look 80 samples beyond the sound
    valid = torch.tensor([32000])
    assert torch.allclose(network(wave, valid), network(noisy, valid), atol=1e-6)
    assert not torch.allclose(
        network(wave, torch.tensor([48000])), network(noisy, torch.tensor([48000])), atol=1e-4
    )


@torch.no_grad()
def test_deeper_heads_have_their_layers_where_the_names_say(state: dict[str, Tensor]) -> None:
    torch.manual_seed(3)
    deep = {name: value for name, value in state.items() if not name.startswith("proj_layer.")}
    linear, last = torch.randn(WIDTH, WIDTH), torch.randn(1, WIDTH)
    norm, bias = 1 + 0.2 * torch.randn(WIDTH), torch.randn(WIDTH)
    for axis in AXES:  # linear, norm, GELU, dropout, linear
        place = f"proj_layer.{axis}."
        deep |= {f"{place}0.weight": linear, f"{place}0.bias": bias, f"{place}1.weight": norm}
        deep |= {f"{place}1.bias": bias, f"{place}4.weight": last, f"{place}4.bias": torch.zeros(1)}
    head = build_aesthetics(deep, ABOUT).proj_layer["PQ"]
    x = torch.randn(2, WIDTH)
    expected = F.gelu(F.layer_norm(x @ linear.T + bias, (WIDTH,), norm, bias)) @ last.T
    assert torch.allclose(head(x), expected, atol=1e-5)


def test_weights_that_do_not_fit_are_refused(state: dict[str, Tensor]) -> None:
    lost = {k: v for k, v in state.items() if k != "layer_weights.CU"}
    for message, wrong in {
        r"missing layer_weights\.CU": lost,
        r"unknown wavlm_model\.encoder\.layers\.0\.new": state
        | {"wavlm_model.encoder.layers.0.new": torch.zeros(1)},
        "no WavLM trunk": {k: v for k, v in state.items() if not k.startswith("wavlm_model")},
    }.items():
        with pytest.raises(ValueError, match=f"not the weights of Audiobox Aesthetics.*{message}"):
            build_aesthetics(wrong, ABOUT)


# -- windows and scale -----------------------------------------------------------------------------------


def test_windows_follow_each_other_and_the_last_is_padded() -> None:
    wave = torch.randn(25 * 16000)
    rows, valid = windows(wave)
    assert valid.tolist() == [160000, 160000, 80000]
    assert torch.equal(torch.cat([row[:n] for row, n in zip(rows, valid)]), wave)
    assert rows[2, 80000:].abs().sum() == 0
    assert windows(wave[:160000])[1].tolist() == [160000]
    with pytest.raises(ValueError, match="no sound"):
        published.aesthetics_wave(torch.zeros(2, 0), 44100)


def test_a_sound_is_rated_by_its_windows_weighed_by_their_sound(
    state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = build_aesthetics(state, ABOUT)
    monkeypatch.setattr(type(network), "forward", lambda _, waves, valid: waves[:, :1] * torch.ones(1, 4))
    long, short = np.zeros((1, 400000), np.float32), np.zeros((2, 16000), np.float32)
    long[0, [0, 160000, 320000]] = 1.0, 2.0, 6.0  # windows of 10, 10 and 5 s
    short[:, 0] = 2.0, 4.0  # channels are mixed
    ratings = network.rate_sounds([(long, 16000), (short, 16000)])
    raw = torch.tensor([[(1 + 2 + 6 / 2) / 2.5], [3.0]])
    mean, std = (torch.tensor([SCALES[axis][key] for axis in AXES]) for key in ("mean", "std"))
    assert torch.allclose(ratings, raw * std + mean, atol=1e-5)
    assert network.rate_sounds([]).shape == (0, 4)


def write(folder: Path, state: dict[str, Tensor], about: dict[str, Any]) -> tuple[Path, Path]:
    """A checkpoint in Meta's layout, and the hub's two files."""
    checkpoint, hub = folder / "checkpoint.pt", folder / "hub"
    model_cfg = {key: value for key, value in about.items() if key != "target_transform"}
    wrapped = {f"model.{name}": value for name, value in state.items()}
    metadata = {"model_cfg": model_cfg, "target_transform": about.get("target_transform")}
    torch.save({"state_dict": wrapped, **metadata}, checkpoint)
    hub.mkdir(exist_ok=True)
    save_file({name: value.contiguous() for name, value in state.items()}, hub / "model.safetensors")
    (hub / "config.json").write_text(json.dumps(about))
    return checkpoint, hub


def test_the_scale_is_read_from_the_file_or_from_beside_it(tmp_path: Path, state: dict[str, Tensor]) -> None:
    checkpoint, hub = write(tmp_path, state, ABOUT)
    assert file_settings(checkpoint) == ABOUT
    assert file_settings(hub / "model.safetensors") == ABOUT
    network = build_aesthetics(state, ABOUT)
    assert network.mean.tolist() == [5, 6, 7, 8]
    assert network.std.tolist() == [1.5, 1.25, 1.0, 0.75]


def test_without_its_scale_nothing_is_rated(tmp_path: Path, state: dict[str, Tensor]) -> None:
    checkpoint, hub = write(tmp_path, state, {"normalize_embed": True})
    with pytest.raises(ValueError, match=r"without the ratings' scale .*CE, CU, PC, PQ; give checkpoint.pt"):
        build_aesthetics(state, file_settings(checkpoint))
    (hub / "config.json").unlink()
    with pytest.raises(ValueError, match=r"config.json is missing, which has the ratings' scale"):
        file_settings(hub / "model.safetensors")
    part = {"target_transform": {**SCALES, "PC": {"mean": 1.0}}}
    with pytest.raises(ValueError, match=r"scale .*of PC"):
        build_aesthetics(state, part)
    with pytest.raises(ValueError, match=r"another network .*normalize_embed"):
        build_aesthetics(state, ABOUT | {"normalize_embed": False})
    (tmp_path / "torn.pt").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="does not read as a checkpoint"):
        file_settings(tmp_path / "torn.pt")


# -- the scorer ------------------------------------------------------------------------------------------


def item(name: str, seed: int, rate: int = 16000, seconds: float = 1.0) -> ScoreItem:
    return ScoreItem(name, recipes.wave(seconds, rate, seed, 200.0 + 90 * seed).numpy(), rate)


@pytest.fixture(scope="module")
def scorers(tmp_path_factory: pytest.TempPathFactory, state: dict[str, Tensor]) -> list[Aesthetics]:
    """From Meta's layout and from the hub's."""
    checkpoint, hub = write(tmp_path_factory.mktemp("aesthetics"), state, ABOUT)
    return [Aesthetics(weights=str(path)).load() for path in (checkpoint, hub)]


def test_four_ratings_an_item_from_either_layout(scorers: list[Aesthetics]) -> None:
    items = [item("a", 1), item("b", 2, 44100), item("c", 3, seconds=11.0)]
    first, second = (scores_of(scorer, items) for scorer in scorers)
    assert [(s.candidate_id, s.dimension) for s in first] == [(i, axis) for i in "abc" for axis in AXES]
    assert [s.value for s in first] == pytest.approx([s.value for s in second], abs=1e-6)
    assert {s.scorer for s in first} == {"aesthetics"}
    assert scorers[0].version != scorers[1].version
    assert len({round(s.value or 0, 5) for s in first}) == 12


def test_ratings_do_not_depend_on_order_and_company(scorers: list[Aesthetics]) -> None:
    items = [item("a", 1), item("b", 2, seconds=10.5), item("c", 3)]
    together = {(s.candidate_id, s.dimension): s.value for s in scores_of(scorers[0], items)}
    for group in (items[::-1], items[1:2]):
        for score in scores_of(scorers[0], group):
            assert score.value == pytest.approx(together[score.candidate_id, score.dimension], abs=1e-4)


def test_silence_is_unscored_and_channels_are_mixed(scorers: list[Aesthetics]) -> None:
    good = item("good", 1)
    silent = replace(good, candidate_id="silent", wave=np.zeros_like(good.wave))
    empty = replace(good, candidate_id="empty", wave=good.wave[:0])
    stereo = replace(good, channels=np.stack([1.5 * good.wave, 0.5 * good.wave]))
    scores = scores_of(scorers[0], [silent, good, empty, stereo])
    assert [s.value is None for s in scores] == [True] * 4 + [False] * 4 + [True] * 4 + [False] * 4
    assert {s.reason for s in scores if s.value is None} == {"silent"}
    assert [s.value for s in scores[4:8]] == pytest.approx([s.value for s in scores[12:]], abs=1e-5)
    assert scores_of(scorers[0], []) == []
    assert scores_of(scorers[0], [silent])[0].value is None


def test_missing_weights_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(MissingWeights, match=r"weights fetch audiobox-aesthetics/checkpoint\.pt"):
        Aesthetics(weights_folder=str(tmp_path)).load()
    with pytest.raises(MissingWeights, match="hf download facebook/audiobox-aesthetics"):
        Aesthetics(weights="facebook/audiobox-aesthetics", weights_folder=str(tmp_path)).load()
