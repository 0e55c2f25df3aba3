"""The Frieren adapter on small random networks: frames and groups, lengths, null, export, LoRA, one video."""

from __future__ import annotations

from fractions import Fraction
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
from foleypref.models.backbones import frieren as model_file
from foleypref.models.backbones.frieren import Frieren, cavp_frame
from foleypref.models.tools import frozen_copy, sample_latents
from foleypref.networks.cavp import GROUP
from foleypref.settings.parts import build
from tests.frieren_tiny import TinyParts, patch_frieren, tiny_frieren

CLIP_S = 8 * 0.256  # of the small model


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Frieren:
    return tiny_frieren(monkeypatch)


def pictures(num: int, seed: int = 0) -> np.ndarray:
    """Frames as they are read."""
    return np.random.default_rng(seed).integers(0, 255, (num, 224, 224, 3), dtype=np.uint8)


def seen(num: int = 8, seed: int = 0) -> Media:
    return Media({"cavp": pictures(num, seed)}, None, "", num / 4)


def velocity(model: Frieren, conditions: Conditions) -> torch.Tensor:
    rows = len(conditions["cavp"])
    x_t = noise_like_rows(model.spec.latents, list(range(rows)))
    with torch.no_grad():
        return model.velocity(x_t, torch.linspace(0.1, 0.9, rows), conditions)["audio"]


# -- lengths ------------------------------------------------------------------------------------------------


def test_eight_seconds_of_picture_make_a_little_more_sound() -> None:
    spec = Frieren().spec
    assert spec.latents == {"audio": (256, 20)}
    assert spec.sample_rate == 16000
    assert spec.clip_seconds == 8.192
    assert model_file.NUM_FRAMES / model_file.FPS == 8.0
    assert not spec.any_length


def test_there_is_one_length() -> None:
    model = Frieren()
    assert model.with_duration(8.192) is model
    with pytest.raises(ValueError, match=r"makes 8\.192 s of sound at a time, asked for 8 s; use windows"):
        model.with_duration(8.0)


def test_names_are_variants() -> None:
    assert build("models", "frieren") == Frieren()
    for variant in ("base", "reflow", "distilled"):
        assert build("models", f"frieren-{variant}").settings()["variant"] == variant
    with pytest.raises(ValueError, match="variant"):
        build("models", "frieren-large")


# -- frames -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "frames", "counted"), [(12.0, 40, 8.0), (8.0, 32, 8.0), (3.0, 12, 3.0)])
def test_up_to_forty_frames_are_read_and_thirty_two_counted(
    tmp_path: Path, seconds: float, frames: int, counted: float
) -> None:
    levels = np.arange(round(seconds * 8), dtype=np.uint8)[:, None, None, None] * 2
    source = np.broadcast_to(levels, (len(levels), 32, 48, 3))
    media = Frieren().read(write_video(tmp_path / "in.mp4", source, 8), audio=False)
    assert media.frames["cavp"].shape == (frames, 224, 224, 3)
    assert media.seconds == counted
    # ffmpeg's rule at half the rate: frame n is the last source frame that rounds to n or less
    shown = media.frames["cavp"][:10].mean((1, 2, 3))
    assert np.abs(shown - 4 * np.arange(10)).max() <= 3


def test_reading_starts_where_it_is_asked_to(tmp_path: Path) -> None:
    levels = (np.arange(80, dtype=np.uint8) * 3)[:, None, None, None]
    video = write_video(tmp_path / "in.mp4", np.broadcast_to(levels, (80, 32, 32, 3)), Fraction(8))
    later = Frieren().read(video, 5.0, audio=False)
    assert later.frames["cavp"].shape[0] == 20
    assert abs(float(later.frames["cavp"][0].mean()) - 120) <= 3
    assert later.seconds == 5.0


def test_both_sides_are_stretched() -> None:
    wide = np.zeros((90, 160, 3), np.uint8)
    wide[:, 80:] = 255
    frame = cavp_frame(wide)
    assert frame.shape == (224, 224, 3)
    assert frame[:, :105].max() == 0
    assert frame[:, 119:].min() == 255


def test_frames_are_seen_with_what_follows_them(model: Frieren) -> None:
    more = pictures(GROUP)
    with_rest = model.condition([Media({"cavp": more})])["cavp"]
    without = model.condition([Media({"cavp": more[:8]})])["cavp"]
    expected = model._loaded.cavp_features(more)[:8]
    torch.testing.assert_close(with_rest[0], expected)
    torch.testing.assert_close(with_rest[0, :4], without[0, :4])  # one block a stage: two frames either way
    assert not torch.allclose(with_rest[0, 7], without[0, 7], atol=1e-4)


def test_a_short_picture_holds_its_last_frame(model: Frieren) -> None:
    short = pictures(5)
    held = np.concatenate([short, short[-1:].repeat(3, 0)])
    found, filled = (model.condition([Media({"cavp": frames})])["cavp"] for frames in (short, held))
    assert found.shape == (1, 8, 512)
    torch.testing.assert_close(found, filled)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(1, 8))


# -- conditions ---------------------------------------------------------------------------------------------


def test_no_picture_is_the_null_and_a_prompt_changes_nothing(model: Frieren) -> None:
    found = model.condition(
        [Media(prompt="a dog"), seen(), Media({"cavp": seen().frames["cavp"]}, prompt="x")]
    )
    assert not found["cavp"][0].any()
    torch.testing.assert_close(found["cavp"][1], found["cavp"][2])
    assert not model.null(found)["cavp"].any()
    network: Any = model.network
    bias = network.cond_stage_model["embedder"][0].bias
    expected = network.estimator.prepare(bias.expand(8, -1))
    torch.testing.assert_close(model.prepare(found)["frames"][0], expected)


def test_guidance_goes_from_null_to_condition(model: Frieren) -> None:
    conditions = model.condition([seen()])
    x_t, t = noise_like_rows(model.spec.latents, [0]), torch.tensor([0.3])
    with torch.no_grad():
        with_video = model.velocity(x_t, t, conditions)["audio"]
        without = model.velocity(x_t, t, model.null(conditions))["audio"]
        step = sample_latents(model, conditions, [0], num_steps=1, guidance_scale=4.5)["audio"]
        start = [
            model.velocity(x_t, torch.zeros(1), c)["audio"] for c in (conditions, model.null(conditions))
        ]
    assert not torch.allclose(with_video, without, atol=1e-3)
    guided = start[1] + 4.5 * (start[0] - start[1])
    torch.testing.assert_close(step, x_t["audio"] + guided, rtol=1e-4, atol=1e-4)


def test_time_is_cut_inside_the_network_alone(model: Frieren) -> None:
    conditions = model.condition([seen()])
    x_t = noise_like_rows(model.spec.latents, [0])
    with torch.no_grad():
        a, b, c = (model.velocity(x_t, torch.tensor([t]), conditions)["audio"] for t in (0.5, 0.5009, 0.5011))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_sampling_several_clips_at_once_is_sampling_each(model: Frieren) -> None:
    conditions = model.condition([seen(seed=i) for i in range(2)])
    with torch.no_grad():
        both = sample_latents(model, conditions, [3, 4], num_steps=3, guidance_scale=4.5)["audio"]
        for row, seed in enumerate((3, 4)):
            one = {key: value[row : row + 1] for key, value in conditions.items()}
            alone = sample_latents(model, one, [seed], num_steps=3, guidance_scale=4.5)["audio"]
            torch.testing.assert_close(both[row : row + 1], alone, rtol=1e-4, atol=1e-4)


def test_keys_name_what_shapes_features_and_sound(model: Frieren) -> None:
    prints = {model.fingerprint}
    for change in ({"variant": "reflow"}, {"dtype": "bfloat16"}, {"variant": "distilled"}):
        other = model.with_settings(**change).load()
        assert other.feature_key == model.feature_key
        prints.add(other.fingerprint)
    assert len(prints) == 4
    assert "fps4x40" in model.feature_key


# -- sound --------------------------------------------------------------------------------------------------


def test_sound_is_cut_or_padded_to_the_clip(model: Frieren) -> None:
    samples = round(CLIP_S * 16000)
    wave = 0.3 * torch.sin(torch.arange(2 * samples) * 0.2)[None]
    codec = model._loaded.codec
    torch.testing.assert_close(model.encode(wave)["audio"], codec.encode(wave[:, :samples]))
    short = torch.nn.functional.pad(wave[:, :9000], (0, samples - 9000))
    torch.testing.assert_close(model.encode(wave[:, :9000])["audio"], codec.encode(short))
    latents = model.encode(wave)
    assert latents["audio"].shape == (1, 64, 20)
    assert model.decode(latents).shape == (1, samples)


def test_one_video_gets_sound_of_its_own_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patch_frieren(monkeypatch)
    settings = GenerateSettings(model=Frieren(), num_steps=2, guidance_scale=4.5)
    frames = np.random.default_rng(0).integers(0, 255, (60, 32, 32, 3), dtype=np.uint8)
    for count in (20, 60):  # 1 s in one window, 3 s in two
        video = write_video(tmp_path / "in.mp4", frames[:count], 20)
        (out,) = generate(video, tmp_path / "out.wav", settings)
        wave, rate = read_wave(out)
        assert (rate, len(wave)) == (16000, count * 800)


# -- tuning -------------------------------------------------------------------------------------------------


def test_a_gradient_reaches_every_weight_but_positions_beyond_the_clip(model: Frieren) -> None:
    conditions = model.condition([seen(), seen(seed=1)])
    x_t = noise_like_rows(model.spec.latents, [0, 1])
    loss = model.velocity(x_t, torch.tensor([0.2, 0.7]), conditions)["audio"].square().mean()
    loss.backward()
    for name, parameter in model.network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    positions: Any = model.network.get_parameter("model.diffusion_model.pos_emb.weight").grad
    assert positions[:65].abs().sum(1).min() > 0
    assert not positions[65:].any()


def test_exported_weights_have_the_official_keys_and_load_again(
    model: Frieren, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.no_grad():
        next(model.network.parameters()).add_(0.1)
    model.export(str(tmp_path / "tuned.safetensors"))
    stored = load_file(tmp_path / "tuned.safetensors")
    assert stored.keys() == model.network.state_dict().keys()
    assert all(key.startswith(("model.diffusion_model.", "cond_stage_model.embedder.0.")) for key in stored)
    again = tiny_frieren(monkeypatch, weights=str(tmp_path / "tuned.safetensors"))
    conditions = model.condition([seen()])
    torch.testing.assert_close(velocity(again, conditions), velocity(model, conditions))
    assert again.fingerprint != model.fingerprint


def test_bf16_weights_are_near(model: Frieren) -> None:
    rough = model.with_settings(dtype="bfloat16").load()
    conditions = model.condition([seen()])
    exact, found = velocity(model, conditions), velocity(rough, conditions)
    assert found.dtype == torch.float32
    assert (found - exact).norm() < 0.05 * exact.norm()


def test_lora_reaches_attention_and_convolutions_and_merges_to_official_keys(
    model: Frieren, tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    from foleypref.models.lora import LoraSettings, add_adapters, merged, save_adapters, trained_state

    official = set(model.network.state_dict())
    conditions, base = model.condition([seen()]), frozen_copy(model)
    before = velocity(base, conditions)
    adapted = add_adapters(model.network, LoraSettings(r=2), model.lora_targets, seed=0)
    model.set_network(adapted)
    torch.testing.assert_close(velocity(model, conditions), before)  # B is zero
    with torch.no_grad():
        for key, value in trained_state(adapted).items():
            if "lora_B" in key:
                value.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
    names = {key.split(".lora_")[0].split("transformer_blocks.0.")[1] for key in trained_state(adapted)}
    attention = {f"attn{i}.{part}" for i in (1, 2) for part in ("to_q", "to_k", "to_v", "to_out.0")}
    assert names == attention | {"ff.net.0.proj", "ff.net.2"}
    after = velocity(model, conditions)
    assert not torch.allclose(after, before, atol=1e-3)
    save_adapters(adapted, tmp_path / "adapter")
    model.set_network(merged(adapted))
    torch.testing.assert_close(velocity(model, conditions), after, rtol=1e-4, atol=1e-5)
    assert set(model.network.state_dict()) == official
    loaded = model.with_settings(adapter=str(tmp_path / "adapter")).load()
    torch.testing.assert_close(velocity(loaded, conditions), after, rtol=1e-4, atol=1e-5)


def test_nothing_is_read_before_load(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    class Watched(TinyParts):
        def __init__(self, *args: Any) -> None:
            made.append(args[0])
            super().__init__(*args)

    monkeypatch.setattr(model_file, "FrierenParts", Watched)
    model = Frieren(variant="reflow")
    assert model.spec.clip_seconds == 8.192
    assert not made
    model.load()
    assert made == ["reflow"]
