"""Both CLAPs as networks: front ends, names of weights, towers; the traps of each."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import GPT2Config, GPT2Model, RobertaConfig, RobertaModel

from foleypref.published import msclap
from foleypref.published.clap import build_clap, ten_seconds
from foleypref.published.htsat import MELS, HtsatMel
from foleypref.published.msclap import build_msclap, msclap_wave
from tests.golden import check_clap as checks
from tests.golden import recipes

GOLDEN = Path(__file__).parents[1] / "golden"
SMALL = (16, (1, 2, 1, 1), (1, 1, 2, 2))  # of an HTSAT
MERGES = [("Ġ", "d"), ("o", "g"), ("Ġd", "og"), ("b", "a"), ("r", "k"), ("ba", "rk"), ("bark", "s")]


# -- front ends ------------------------------------------------------------------------------------------


def test_silence_is_minus_100_db_and_a_tone_lies_in_its_band() -> None:
    mel = HtsatMel(48000, 480)
    assert torch.equal(mel(torch.zeros(1, 4800)), torch.full((1, 1, 11, MELS), -100.0))
    # a full-scale cosine under a Hann window: (window sum / 2)^2 in its bin, a quarter of it in both next
    bins = torch.arange(480000) * (2 * torch.pi * 64 / 1024)
    frame = mel(bins.cos()[None])[0, 0, 500]
    expected = 256.0**2 * (mel.basis[64] + (mel.basis[63] + mel.basis[65]) / 4)
    loud = expected > 1
    assert torch.allclose(frame[loud], 10 * expected[loud].log10(), atol=1e-3)
    assert loud.sum() >= 2


def test_nothing_under_50_hz_is_heard() -> None:
    """Trap: the feature extractor of transformers starts at 0 unless it is told."""
    mel = HtsatMel(48000, 480)
    assert mel.basis[1].sum() == 0  # 46.9 Hz
    assert mel.basis[2].sum() > 0  # 93.8 Hz
    assert mel.basis[299:].sum() == 0  # from 14 kHz on


def test_short_sound_is_repeated_as_often_as_it_fits_then_silent() -> None:
    eight, three = torch.randn(8 * 48000), torch.randn(3 * 48000)
    assert torch.equal(ten_seconds(eight), torch.cat([eight, torch.zeros(96000)]))
    assert torch.equal(ten_seconds(three), torch.cat([three, three, three, torch.zeros(48000)]))
    assert torch.equal(ten_seconds(torch.ones(1)), torch.ones(480000))
    with pytest.raises(ValueError, match="no sound"):
        ten_seconds(torch.zeros(0))


def test_of_long_sound_the_middle_is_heard_whatever_the_random_state() -> None:
    twelve = torch.arange(12.0 * 48000)
    heard = []
    for seed in range(3):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        random.seed(seed)
        heard.append((ten_seconds(twelve), msclap_wave(twelve[None, : 8 * 44100], 44100)))
    for laion, microsoft in heard:
        assert torch.equal(laion, twelve[48000:-48000])
        assert torch.equal(microsoft, twelve[22050 : 22050 + 7 * 44100])


def test_microsofts_channels_stand_one_after_the_other() -> None:
    left, right = torch.randn(2, 2 * 44100)
    both = torch.cat([left, right])
    assert torch.equal(msclap_wave(torch.stack([left, right]), 44100), both.repeat(2)[: 7 * 44100])
    assert torch.equal(msclap_wave(left[None], 44100), left.repeat(4)[: 7 * 44100])
    assert torch.equal(msclap_wave(torch.ones(1, 1), 44100), torch.ones(7 * 44100))
    with pytest.raises(ValueError, match="no sound"):
        msclap_wave(torch.zeros(2, 0), 16000)


def test_microsofts_filters_are_those_of_another_rate() -> None:
    """Trap: the sound has 44.1 kHz, the filters count its bins as if it had 32."""
    mel = HtsatMel(msclap.MEL_RATE, msclap.HOP)
    phase = 2 * torch.pi * 4000 * torch.arange(7 * 44100, dtype=torch.float64) / 44100
    tone = mel(phase.cos().float()[None])
    assert tone.shape == (1, 1, 965, MELS)
    loudest = tone[0, 0, 400].argmax()
    centre = mel.basis[:, loudest].argmax() * 32000 / 1024  # Hz, as the filters count them
    assert centre == pytest.approx(4000 * 32000 / 44100, rel=0.03)


# -- LAION's model ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def official() -> dict[str, Tensor]:
    return checks.official_state(*SMALL, vocabulary=300)


@torch.no_grad()
def test_the_text_tower_is_roberta(official: dict[str, Tensor]) -> None:
    """Trap: its norms have 1e-5 under the root, which shows where embeddings are small."""
    names = [name for name in official if "embeddings" in name and name.endswith("weight")]
    state = official | {name: 1e-3 * official[name] for name in names if "LayerNorm" not in name}
    config = RobertaConfig(
        vocab_size=300,
        hidden_size=64,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=128,
        max_position_embeddings=80,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
    )
    roberta = RobertaModel(config).eval()
    missing = roberta.load_state_dict(
        {k.removeprefix("text_branch."): v for k, v in state.items() if k.startswith("text_branch.")},
        strict=False,
    )
    assert not missing.unexpected_keys
    assert all("position_ids" in key or "token_type_ids" in key for key in missing.missing_keys)
    ids = torch.tensor([[0, 7, 200, 8, 2, 1, 1], [0, 9, 2, 1, 1, 1, 1]])
    pooled = roberta(input_ids=ids, attention_mask=ids.ne(1).long()).pooler_output
    hidden = F.relu(F.linear(pooled, state["text_projection.0.weight"], state["text_projection.0.bias"]))
    vectors = F.linear(hidden, state["text_projection.2.weight"], state["text_projection.2.bias"])
    ours = build_clap(state).embed_text(ids)
    assert torch.allclose(ours, F.normalize(vectors, dim=-1), atol=1e-6)
    alone = build_clap(state).embed_text(ids[1:, :3])  # padding is not seen
    assert torch.allclose(ours[1:], alone, atol=1e-6)


@torch.no_grad()
def test_a_conversion_is_the_same_model(official: dict[str, Tensor]) -> None:
    model = build_clap(official)
    again = build_clap(model.model.state_dict())
    sound = ten_seconds(recipes.wave(1, 48000, 3))[None]
    assert torch.equal(model.embed_audio(sound), again.embed_audio(sound))
    assert model.embed_audio(sound).norm() == pytest.approx(1, abs=1e-6)
    halves = build_clap({name: x.half() if x.is_floating_point() else x for name, x in official.items()})
    assert halves.embed_audio(sound).dtype == torch.float32


def test_weights_that_do_not_fit_are_refused(official: dict[str, Tensor]) -> None:
    first = "audio_branch.patch_embed.proj.bias"
    wrong = {
        "missing": {k: v for k, v in official.items() if k != first},
        "audio_branch.patch_embed.mel_conv2d.weight": official
        | {"audio_branch.patch_embed.mel_conv2d.weight": torch.zeros(1)},  # of a model with fusion
        "unknown visual.proj": official | {"visual.proj": torch.zeros(1)},
        r"is \(3,\), expected \(16,\)": official | {first: torch.zeros(3)},
        "no HTSAT": {k: v for k, v in official.items() if not k.startswith("audio_branch.layers")},
        "no RoBERTa": {k: v for k, v in official.items() if not k.startswith("text_branch")},
    }
    for message, state in wrong.items():
        with pytest.raises(ValueError, match=f"not the weights of .*CLAP.*{message}"):
            build_clap(state)
    with pytest.raises(ValueError, match="no GPT-2"):
        build_msclap(official)


# -- Microsoft's model -----------------------------------------------------------------------------------


def microsoft_state(vocabulary: int = 300, joint: int = 24) -> dict[str, Tensor]:
    """An official state dict of small size, masks and classifier included."""
    torch.manual_seed(5)
    laion = checks.official_state(*SMALL)
    state = {
        f"{msclap.AUDIO}{name.removeprefix('audio_branch.')}": value
        for name, value in laion.items()
        if name.startswith("audio_branch.")
    }
    config = GPT2Config(
        vocab_size=vocabulary, n_embd=64, n_layer=2, n_head=1, n_positions=80, bos_token_id=0, eos_token_id=0
    )
    for name, value in GPT2Model(config).state_dict().items():
        state[msclap.TEXT + name] = value + 0.1 * torch.randn(value.shape)
    for layer in range(2):
        state[f"{msclap.TEXT}h.{layer}.attn.bias"] = torch.ones(1, 1, 80, 80).tril().bool()
        state[f"{msclap.TEXT}h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    for tower, width in (("audio", 128), ("caption", 64)):
        place = f"{tower}_encoder.projection."
        state[f"{place}linear1.weight"] = torch.randn(joint, width) / 8
        state[f"{place}linear2.weight"] = torch.randn(joint, joint) / 5
        state[f"{place}layer_norm.weight"] = 1 + 0.1 * torch.randn(joint)
        state[f"{place}layer_norm.bias"] = 0.1 * torch.randn(joint)
    return state | {"logit_scale": torch.tensor(1.0)}


def projected(x: Tensor, state: dict[str, Tensor], tower: str) -> Tensor:
    place = f"{tower}_encoder.projection."
    first = x @ state[f"{place}linear1.weight"].T
    second = F.gelu(first) @ state[f"{place}linear2.weight"].T
    weight, bias = state[f"{place}layer_norm.weight"], state[f"{place}layer_norm.bias"]
    return F.layer_norm(first + second, (len(weight),), weight, bias)


@torch.no_grad()
def test_microsofts_audio_tower_is_laions_with_its_own_projection() -> None:
    state = microsoft_state()
    ours, laion = build_msclap(state), build_clap(checks.official_state(*SMALL))
    wave = msclap_wave(recipes.wave(2, 44100, 4)[None], 44100)[None]
    pooled = laion.model.audio_model(input_features=ours.mel(wave)).pooler_output
    assert torch.allclose(ours.embed_audio(wave), projected(pooled, state, "audio"), atol=1e-5)


@torch.no_grad()
def test_microsofts_text_vector_is_the_state_where_ids_that_are_not_0_end() -> None:
    """Trap: "!" has id 0 as the padding has, and is not counted."""
    state = microsoft_state()
    ours = build_msclap(state)
    plain, shouted = [5, 6, 7, 8], [5, 6, 0, 7, 8]
    ids = torch.zeros(2, 77, dtype=torch.int64)
    ids[0, :4], ids[1, :5] = torch.tensor(plain), torch.tensor(shouted)
    states = [
        ours.towers.caption(input_ids=torch.tensor([row])).last_hidden_state[0] for row in (plain, shouted)
    ]
    expected = torch.stack([states[0][3], states[1][3]])  # of the second the last but one
    assert torch.allclose(ours.embed_text(ids), projected(expected, state, "caption"), atol=1e-5)


def test_microsofts_weights_that_do_not_fit_are_refused() -> None:
    state = microsoft_state()
    with pytest.raises(ValueError, match=r"not the weights of Microsoft.*unknown caption_encoder.base2"):
        build_msclap(state | {"caption_encoder.base2": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"missing audio_projection\.linear2\.weight"):
        build_msclap({k: v for k, v in state.items() if k != "audio_encoder.projection.linear2.weight"})
