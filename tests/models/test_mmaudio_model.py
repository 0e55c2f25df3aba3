"""The MMAudio adapter on small random networks: conditions, stand-ins, lengths, export, one video."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from foleypref.flow.convention import noise_like_rows
from foleypref.generate import GenerateSettings, generate
from foleypref.media.clip import read_wave, write_video
from foleypref.models.backbones import Conditions, Media
from foleypref.models.backbones.mmaudio import MMAudio
from foleypref.models.tools import frozen_copy, sample_latents, with_weights
from foleypref.networks.mmaudio import sequence_lengths
from tests.mmaudio_tiny import patch_mmaudio, tiny_mmaudio


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> MMAudio:
    return tiny_mmaudio(monkeypatch)


def make_media(seconds: float = 1.0, seed: int = 0, prompt: str = "a dog barks") -> Media:
    generator = np.random.default_rng(seed)
    frames = {
        "clip": generator.integers(0, 255, (int(8 * seconds), 384, 384, 3), dtype=np.uint8),
        "sync": generator.integers(0, 255, (int(25 * seconds), 224, 224, 3), dtype=np.uint8),
    }
    return Media(frames, None, prompt, seconds)


def velocity(model: MMAudio, conditions: Conditions) -> torch.Tensor:
    rows = len(conditions["text"])
    x_t = noise_like_rows(model.spec.latents, list(range(rows)))
    with torch.no_grad():
        return model.velocity(x_t, torch.linspace(0.1, 0.9, rows), conditions)["audio"]


def test_shapes_follow_the_duration(model: MMAudio) -> None:
    for seconds in (1.0, 2.5):
        view = model.with_duration(seconds)
        lengths = sequence_lengths(seconds, 16000)
        conditions = view.condition([make_media(seconds)])
        assert view.spec.latents == {"audio": (lengths.latent, 20)}
        assert conditions["clip"].shape == (1, lengths.clip, 24)
        assert conditions["sync"].shape == (1, lengths.sync, 16)
        assert conditions["text"].shape == (1, 77, 16)
        assert velocity(view, conditions).shape == (1, lengths.latent, 20)
        assert view.network is model.network


def test_conditions_prepared_once_give_the_same_velocity(model: MMAudio) -> None:
    conditions = model.condition([make_media(), make_media(seed=1, prompt="")])
    torch.testing.assert_close(velocity(model, conditions), velocity(model, model.prepare(conditions)))


def test_what_is_missing_becomes_the_networks_own_stand_in(model: MMAudio) -> None:
    network: Any = model.network
    conditions = model.condition([Media(prompt=""), make_media()])
    lengths = sequence_lengths(1.0, 16000)
    null = network.null_features(2, lengths.clip, lengths.sync)
    expected = network.prepare(*(feature.float() for feature in null))
    for key, value in model.prepare(model.null(conditions)).items():
        torch.testing.assert_close(value, expected[key])
    for key, value in model.prepare(conditions).items():
        torch.testing.assert_close(value[0], expected[key][0])
        assert not torch.allclose(value[1], expected[key][1])


def test_stand_ins_learn_where_conditions_are_dropped(model: MMAudio) -> None:
    conditions = model.null(model.condition([make_media()]))
    x_t = noise_like_rows(model.spec.latents, [0])
    model.velocity(x_t, torch.tensor([0.5]), conditions)["audio"].square().mean().backward()
    network: Any = model.network
    assert network.empty_clip_feat.grad.abs().sum() > 0
    assert network.empty_sync_feat.grad.abs().sum() > 0


def test_a_picture_that_ends_early_holds_its_last_frame(model: MMAudio) -> None:
    whole = make_media()
    frames = {key: value[: len(value) // 2 + 1] for key, value in whole.frames.items()}
    held = {
        key: np.concatenate([value, value[-1:].repeat(len(whole.frames[key]) - len(value), 0)])
        for key, value in frames.items()
    }
    short, filled = (model.condition([Media(f, None, "x")]) for f in (frames, held))
    for key in short:
        torch.testing.assert_close(short[key], filled[key])


def test_features_in_bfloat16_are_near_those_in_float32(model: MMAudio) -> None:
    media = [make_media()]
    half = model.with_settings(feature_dtype="bfloat16").load()
    for key, exact in model.condition(media).items():
        rounded = half.condition(media)[key]
        assert rounded.dtype == torch.float32
        assert (rounded - exact).norm() <= 0.03 * exact.norm()
        assert key.startswith("has_") or not torch.equal(rounded, exact)


def test_the_feature_key_names_what_shapes_features_and_the_fingerprint_what_shapes_sound(
    model: MMAudio,
) -> None:
    keys, prints = {model.feature_key}, {model.fingerprint}
    for change in ({"frame_rule": "training"}, {"duration": 2.0}, {"feature_dtype": "bfloat16"}):
        other = model.with_settings(**change).load()
        keys.add(other.feature_key)
        prints.add(other.fingerprint)
    assert len(keys) == len(prints) == 4
    assert "training" in "".join(keys)
    assert model.with_settings(dtype="bfloat16").load().fingerprint not in prints


def test_latents_are_normalised_by_the_checkpoints_statistics(model: MMAudio) -> None:
    wave = 0.3 * torch.sin(torch.arange(16000) * 0.2)[None]
    lengths = sequence_lengths(1.0, 16000)
    padded = torch.nn.functional.pad(wave, (0, lengths.samples - 16000))
    parts = model._loaded
    expected = (parts.codec.encode(padded) - parts.statistics.mean) / parts.statistics.std
    torch.testing.assert_close(model.encode(wave)["audio"], expected)
    decoded = model.decode({"audio": expected})
    torch.testing.assert_close(decoded, parts.codec.decode(parts.codec.encode(padded)), rtol=1e-3, atol=1e-4)
    assert decoded.shape == (1, lengths.samples)


def test_exported_weights_have_the_official_keys_and_load_again(
    model: MMAudio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.no_grad():
        next(model.network.parameters()).add_(0.1)
    for name in ("tuned.safetensors", "tuned.pth"):
        model.export(str(tmp_path / name))
    stored = load_file(tmp_path / "tuned.safetensors")
    pickled = torch.load(tmp_path / "tuned.pth", weights_only=True)
    assert set(stored) == set(pickled) == set(model.network.state_dict())
    assert {value.dtype for value in stored.values()} == {torch.float32}
    assert all(torch.equal(stored[key], pickled[key]) for key in stored)
    again = tiny_mmaudio(monkeypatch, weights=str(tmp_path / "tuned.safetensors"))
    conditions = model.condition([make_media()])
    torch.testing.assert_close(velocity(again, conditions), velocity(model, conditions))


def test_bf16_weights_keep_time_and_rotations_exact_enough(model: MMAudio) -> None:
    rough = model.with_settings(dtype="bfloat16").load()
    conditions = model.condition([make_media()])
    exact, found = velocity(model, conditions), velocity(rough, conditions)
    assert found.dtype == torch.float32
    assert (found - exact).square().mean().sqrt() < 0.05 * exact.square().mean().sqrt()


def test_lora_reaches_both_kinds_of_blocks_and_merges_to_official_keys(
    model: MMAudio, tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    from foleypref.models.lora import LoraSettings, add_adapters, merged, save_adapters, trained_state

    official = set(model.network.state_dict())
    conditions, base = model.condition([make_media()]), frozen_copy(model)
    before = velocity(base, conditions)
    adapted = add_adapters(model.network, LoraSettings(r=2), model.lora_targets, seed=0)
    model.set_network(adapted)
    torch.testing.assert_close(velocity(model, conditions), before)  # B is zero
    with torch.no_grad():
        for key, value in trained_state(adapted).items():
            if "lora_B" in key:
                value.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
    names = {key.split(".lora_")[0].removeprefix("base_model.model.") for key in trained_state(adapted)}
    for part in (
        "joint_blocks.0.latent_block.attn.qkv", "joint_blocks.0.latent_block.linear1",
        "joint_blocks.0.clip_block.ffn.w1", "joint_blocks.0.text_block.ffn.w2",
        "joint_blocks.1.clip_block.attn.qkv", "fused_blocks.0.linear1", "fused_blocks.0.ffn.w3",
    ):  # fmt: skip
        assert part in names
    after = velocity(model, conditions)
    assert not torch.allclose(after, before, atol=1e-3)
    save_adapters(adapted, tmp_path / "adapter")
    model.set_network(merged(adapted))
    torch.testing.assert_close(velocity(model, conditions), after, rtol=1e-4, atol=1e-5)
    assert set(model.network.state_dict()) == official
    assert (
        with_weights(model.with_settings(adapter="a"), "b").settings()
        == model.with_settings(weights="b").settings()
    )
    loaded = model.with_settings(adapter=str(tmp_path / "adapter")).load()
    torch.testing.assert_close(velocity(loaded, conditions), after, rtol=1e-4, atol=1e-5)


def test_one_video_gets_its_own_length_or_what_was_asked_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patch_mmaudio(monkeypatch)
    settings = GenerateSettings(
        model=MMAudio(variant="small-16k"), prompt="rain", num_steps=2, guidance_scale=2.0
    )
    frames = np.random.default_rng(0).integers(0, 255, (30, 64, 64, 3), dtype=np.uint8)
    video = write_video(tmp_path / "in.mp4", frames, 25)  # 1.2 s
    for asked, seconds in ((None, 1.2), (1.0, 1.0), (8.0, 1.16)):  # of 30 frames at 25 fps the rule keeps 29
        asking = settings.model_copy(update={"duration": asked})
        (out,) = generate(video, tmp_path / "out.wav", asking)
        wave, rate = read_wave(out)
        assert (rate, len(wave)) == (16000, round(seconds * 16000))
    (spoken,) = generate(None, tmp_path / "text.flac", settings.model_copy(update={"duration": 1.5}))
    assert len(read_wave(spoken)[0]) == 24000


def test_sampling_several_clips_at_once_is_sampling_each(model: MMAudio) -> None:
    conditions = model.condition([make_media(seed=i) for i in range(2)])
    with torch.no_grad():
        both = sample_latents(model, conditions, [3, 4], num_steps=3, guidance_scale=4.5)["audio"]
        for row, seed in enumerate((3, 4)):
            one = {key: value[row : row + 1] for key, value in conditions.items()}
            alone = sample_latents(model, one, [seed], num_steps=3, guidance_scale=4.5)["audio"]
            torch.testing.assert_close(both[row : row + 1], alone, rtol=1e-4, atol=1e-4)


def test_too_short_a_duration_is_refused_before_anything_is_read() -> None:
    with pytest.raises(ValueError, match=r"greater than or equal to 0\.64"):
        MMAudio(duration=0.5)
