"""The LTX-2 adapter on tiny random parts of diffusers' classes: convention, pipeline, codecs, costs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from foleypref.flow.convention import Latents, noise_like_rows
from foleypref.generate import GenerateSettings, generate
from foleypref.media.clip import probe, read_clip
from foleypref.models import cost_ltx2 as ltx2_cost
from foleypref.models.backbones import Media
from foleypref.models.backbones.ltx2 import LTX2, covering
from foleypref.models.costs import count
from foleypref.models.tools import sample_latents
from foleypref.networks.mel_basis import slaney_basis
from foleypref.published import ltx2_folder
from foleypref.published.ltx2_folder import Sizes
from foleypref.published.ltx2_parts import mel_front
from tests.ltx2_tiny import SETTINGS, tiny_folder, tiny_ltx2

STEPS = 4


@pytest.fixture(scope="module")
def model() -> LTX2:
    return tiny_ltx2()


@pytest.fixture(scope="module")
def conditions(model: LTX2) -> dict[str, torch.Tensor]:
    return model.condition([Media(prompt="a dog barks"), Media(prompt="rain")])


def noise(model: LTX2, num: int = 2, first: int = 0) -> Latents:
    return noise_like_rows(model.spec.latents, list(range(first, first + num)))


def clip(seed: int = 0, wave: np.ndarray | None = None) -> Media:
    rng = np.random.default_rng(seed)
    sound = rng.standard_normal(27_000).astype(np.float32) / 10 if wave is None else wave
    return Media({"video": rng.integers(0, 255, (9, 32, 64, 3), dtype=np.uint8)}, sound, "a dog")


def test_shapes_are_known_before_loading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLEYPREF_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    spec = LTX2().spec
    assert spec.latents == {"video": (16, 16 * 24, 128), "audio": (126, 128)}
    assert (spec.sample_rate, spec.clip_seconds) == (24_000, 121 / 24)
    assert LTX2().with_duration(3.0).num_frames == 73
    with pytest.raises(ValueError, match="multiples of 32 pixels, found 500 × 768"):
        LTX2(height=500).spec  # noqa: B018
    with pytest.raises(ValueError, match=r"found 120: take 121"):
        LTX2(num_frames=120).spec  # noqa: B018
    with pytest.raises(ValueError, match=r"LTX-2/model_index.json .* is missing.*licence LTX-2 Community"):
        LTX2().load()


@pytest.mark.parametrize(("seconds", "frames"), [(121 / 24, 121), (5.0, 121), (0.01, 1), (10 / 24, 17)])
def test_a_length_is_the_next_on_the_grid(seconds: float, frames: int) -> None:
    assert Sizes().frames_for(seconds * 24) == frames


def test_velocity_is_the_transformers_answer_at_one_minus_t_turned_round(
    model: LTX2, conditions: dict[str, torch.Tensor]
) -> None:
    x_t, t = noise(model), torch.tensor([0.25, 0.8])
    rows, columns = 4, 8
    with torch.no_grad():
        v = model.velocity(x_t, t, conditions)
        eps_minus_x = cast(Any, model.network)(
            hidden_states=x_t["video"].reshape(2, 5 * rows * columns, 8),
            audio_hidden_states=x_t["audio"],
            encoder_hidden_states=conditions["video_text"],
            audio_encoder_hidden_states=conditions["audio_text"],
            timestep=(1 - t) * 1000,
            encoder_attention_mask=conditions["text_mask"],
            audio_encoder_attention_mask=conditions["text_mask"],
            num_frames=5,
            height=rows,
            width=columns,
            fps=8.0,
            audio_num_frames=28,
        )
    assert torch.equal(v["video"].flatten(1, 2), -eps_minus_x.sample)
    assert torch.equal(v["audio"], -eps_minus_x.audio_sample)


def pipeline_run(model: LTX2, x0: Latents, output_type: str, **guidance: float) -> Any:
    """diffusers' own pipeline over the model's folder, from the same noise, with its own scheduler."""
    from diffusers import LTX2Pipeline

    pipe = LTX2Pipeline.from_pretrained(model.weights_folder, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    stored = pipe.audio_vae
    scale = {"guidance_scale": 1.0, "audio_guidance_scale": 1.0, **guidance}
    return pipe(
        prompt=["a dog barks", "rain"],
        height=model.height,
        width=model.width,
        num_frames=model.num_frames,
        frame_rate=model.fps,
        num_inference_steps=STEPS,
        latents=x0["video"].flatten(1, 2),
        audio_latents=x0["audio"] * stored.latents_std + stored.latents_mean,  # it normalises what it gets
        max_sequence_length=model.text_tokens,
        output_type=output_type,
        stg_scale=0.0,
        audio_stg_scale=0.0,
        modality_scale=1.0,
        audio_modality_scale=1.0,
        guidance_rescale=0.0,
        audio_guidance_rescale=0.0,
        spatio_temporal_guidance_blocks=None,
        **scale,
    )


@pytest.mark.parametrize(
    ("scale", "newer"),
    [
        (3.0, False),
        pytest.param(1.0, False, marks=pytest.mark.slow),
        pytest.param(1.0, True, marks=pytest.mark.slow),
        pytest.param(3.0, True, marks=pytest.mark.slow),
    ],
)
def test_sampling_is_the_pipelines(scale: float, newer: bool) -> None:
    model = tiny_ltx2(weights_folder=str(tiny_folder(newer)))
    seeds = [3, 4]
    given = model.condition([Media(prompt="a dog barks"), Media(prompt="rain")])
    with torch.inference_mode():
        ours = sample_latents(model, given, seeds, num_steps=STEPS, guidance_scale=scale)
    x0 = noise_like_rows(model.spec.latents, seeds)
    theirs = pipeline_run(model, x0, "latent", guidance_scale=scale, audio_guidance_scale=scale)
    vae, audio_vae = (model._loaded._part("codecs", name) for name in ("vae", "audio_vae"))
    mean, std = (value.reshape(1, -1, 1, 1, 1) for value in (vae.latents_mean, vae.latents_std))
    video = ((theirs.frames - mean) / std).permute(0, 2, 3, 4, 1).flatten(2, 3)
    audio = (theirs.audio.transpose(1, 2).flatten(2) - audio_vae.latents_mean) / audio_vae.latents_std
    for found, expected in ((ours["video"], video), (ours["audio"], audio)):
        size = expected.abs().max()
        torch.testing.assert_close(found / size, expected / size, rtol=0, atol=1e-5)


def test_steps_are_shifted_towards_noise_by_the_pictures_size() -> None:
    few, many = (tiny_ltx2(num_frames=n).times(STEPS) for n in (9, 33))
    assert few is not None
    assert many is not None
    for times in (few, many):
        assert (len(times), times[0], times[-1]) == (STEPS + 1, 0.0, 1.0)
        assert times == sorted(times)
        assert times[-2] == pytest.approx(0.9)  # the last step begins where a tenth is noise
    assert all(a > b for a, b in zip(few[1:-2], many[1:-2]))  # more latents, more steps in the noise
    assert few[1] < 1 / STEPS
    assert tiny_ltx2().times(1) == [0.0, 1.0]
    assert tiny_ltx2(schedule="equal").times(STEPS) is None
    model = tiny_ltx2()
    conditions = model.condition([Media(prompt="rain")])
    with pytest.raises(ValueError, match="dopri5 takes equal steps"):
        sample_latents(model, conditions, [0], num_steps=2, guidance_scale=1.0, solver="dopri5")
    equal, shifted = tiny_ltx2(schedule="equal").fingerprint, tiny_ltx2().fingerprint
    assert equal != shifted


@pytest.mark.slow
@pytest.mark.parametrize("newer", [False, True])
def test_pictures_and_sound_are_the_pipelines(newer: bool) -> None:
    model = tiny_ltx2(weights_folder=str(tiny_folder(newer)))
    given = model.condition([Media(prompt="a dog barks"), Media(prompt="rain")])
    with torch.inference_mode():
        latents = sample_latents(model, given, [3, 4], num_steps=STEPS, guidance_scale=1.0)
        frames, waves = model.decode_video(latents), model.decode(latents)
    theirs = pipeline_run(model, noise_like_rows(model.spec.latents, [3, 4]), "pt")
    assert frames.shape == (2, 9, 32, 64, 3)
    expected = theirs.frames.permute(0, 1, 3, 4, 2) * 255
    assert (frames.float() - expected).abs().max() < 0.6  # rounded to a grey level
    rate = model.spec.sample_rate
    assert rate == (48_000 if newer else 24_000)
    num = theirs.audio.shape[2]
    assert num == (4 * 28 - 3) * rate // 100  # 10 ms a mel frame
    torch.testing.assert_close(waves[:, :num], theirs.audio.mean(1), rtol=0, atol=1e-4)
    assert waves.shape[1] == round(1.125 * rate)
    assert waves[:, num:].abs().sum() == 0


def test_clips_become_normalised_latents(model: LTX2) -> None:
    media = [clip(0), clip(1)]
    x1 = model.encode_media(media)
    assert {key: value.shape[1:] for key, value in x1.items()} == model.spec.latents
    vae = model._loaded._part("codecs", "vae")
    pixels = torch.from_numpy(media[1].frames["video"]).permute(3, 0, 1, 2)[None] / 127.5 - 1
    raw = vae.encode(pixels).latent_dist.mean[0]  # (C, F, rows, columns)
    expected = (raw - vae.latents_mean.reshape(-1, 1, 1, 1)) / vae.latents_std.reshape(-1, 1, 1, 1)
    torch.testing.assert_close(x1["video"][1], expected.permute(1, 2, 3, 0).reshape(5, 32, 8))
    short = Media({"video": media[0].frames["video"][:7]}, media[0].wave)
    held = np.concatenate([media[0].frames["video"][:7], *[media[0].frames["video"][6:7]] * 2])
    torch.testing.assert_close(
        model.encode_media([short])["video"],
        model.encode_media([Media({"video": held}, short.wave)])["video"],
    )
    with pytest.raises(ValueError, match="1 of 2 clips have no picture"):
        model.encode_media([clip(), Media({}, media[0].wave)])
    with pytest.raises(ValueError, match="1 of 1 clips have no sound"):
        model.encode_media([Media(media[0].frames)])


def test_mel_frames_are_centred_magnitudes_on_slaneys_scale() -> None:
    wave = torch.randn(1, 4000, generator=torch.Generator().manual_seed(0))
    window = torch.hann_window(1024)
    spectrum = torch.stft(wave, 1024, 160, window=window, center=True, return_complex=True)
    basis = slaney_basis(16_000, 1024, 64, 0.0, 8000.0).float()
    expected = (basis @ spectrum.abs()).clamp(min=1e-5).log()
    torch.testing.assert_close(mel_front(Sizes())(wave), expected, rtol=1e-4, atol=1e-4)


def test_a_latent_of_sound_is_forty_milliseconds(model: LTX2) -> None:
    """Sound that comes 40 ms later has its latents one later, away from the ends."""
    generator = torch.Generator().manual_seed(0)
    gains = torch.randn(30, generator=generator).mul(2).exp().repeat_interleave(900)
    wave = gains * torch.randn(1, 27_000, generator=generator) / 100
    late = F.pad(wave, (960, 0))[:, :27_000]
    first, second = (model.encode(sound)["audio"][0] for sound in (wave, late))
    torch.testing.assert_close(second[13:-2], first[12:-3], rtol=0, atol=1e-3)
    assert (second[13:-2] - first[13:-2]).abs().max() > 0.1


def test_silence_and_short_sound_are_filled_up(model: LTX2) -> None:
    short = torch.randn(1, 10_000, generator=torch.Generator().manual_seed(0))
    whole = F.pad(short, (0, 17_000))
    assert torch.equal(model.encode(short)["audio"], model.encode(whole)["audio"])


def test_frames_cover_the_size_and_lose_their_sides_alike() -> None:
    wide = np.zeros((50, 200, 3), np.uint8)
    wide[:, 90:110] = 255
    found = covering(wide, (32, 64))
    assert found.shape == (32, 64, 3)
    np.testing.assert_array_equal(found, found[:, ::-1])
    assert found[16, 32, 0] == 255
    assert found[16, 0, 0] == 0


def test_the_empty_prompt_is_made_once_and_kept_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, conditions: dict[str, torch.Tensor]
) -> None:
    folder = Path(
        shutil.copytree(tiny_folder(), tmp_path / "LTX-2", ignore=shutil.ignore_patterns(".foley*"))
    )
    first = tiny_ltx2(weights_folder=str(folder)).null(conditions)
    load = ltx2_folder.load_part
    loaded: list[str] = []

    def noted(folder: Path, name: str, dtype: torch.dtype) -> Any:
        loaded.append(name)
        return load(folder, name, dtype)

    monkeypatch.setattr(ltx2_folder, "load_part", noted)
    again = tiny_ltx2(weights_folder=str(folder))
    second = again.null(conditions)
    assert not loaded
    said = again.condition([Media(prompt="  ")])
    assert loaded == ["text_encoder", "connectors"]
    for key in first:
        assert torch.equal(first[key], second[key])
        torch.testing.assert_close(first[key][:1], said[key])


def test_text_encoder_and_codecs_are_never_held_together(model: LTX2) -> None:
    parts = model._loaded
    model.condition([Media(prompt="a dog")])
    assert set(parts._loaded) == {"text_encoder", "connectors", "tokenizer"}
    x1 = model.encode_media([clip()])
    assert set(parts._loaded) == {"vae", "audio_vae", "mel"}
    given = model.condition([Media(prompt="a dog")])
    with torch.no_grad():
        model.velocity(x1, torch.tensor([0.5]), given)
    assert not parts._loaded


def test_keys_follow_what_they_hang_on(model: LTX2) -> None:
    other = tiny_ltx2(num_frames=17)
    assert other.feature_key == model.feature_key
    assert other.latent_key != model.latent_key
    assert other.fingerprint != model.fingerprint
    assert tiny_ltx2(text_tokens=16).feature_key != model.feature_key
    assert tiny_ltx2().fingerprint == model.fingerprint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder(), tmp_path / "LTX-2"))


def test_what_is_wrong_with_a_folder_is_said(folder: Path) -> None:
    def load() -> LTX2:
        return LTX2(**{**SETTINGS, "weights_folder": str(folder)}).load()

    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"vae holds no \.safetensors"):
        load().encode_media([clip()])
    config = folder / "transformer" / "config.json"
    kept = json.loads(config.read_text())
    config.write_text(json.dumps({**kept, "num_layers": 3}))
    with pytest.raises(ValueError, match=r"transformer lacks \d+ weights, first transformer_blocks\.2\."):
        load()
    config.write_text(json.dumps({**kept, "_class_name": "WanTransformer3DModel"}))
    with pytest.raises(ValueError, match="holds WanTransformer3DModel, expected LTX2Video"):
        load()
    config.write_text(json.dumps({**kept, "patch_size": 2}))
    with pytest.raises(ValueError, match="patches"):
        load()
    shutil.rmtree(folder / "vocoder")
    config.write_text(json.dumps(kept))
    with pytest.raises(ValueError, match=r"vocoder.config\.json is missing"):
        load()


@pytest.mark.slow
def test_cost_by_two_blocks_is_the_cost_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    config = json.loads((tiny_folder() / "transformer" / "config.json").read_text())
    read = ltx2_cost._config

    def four_blocks(place: Path | None, part: str) -> dict[str, Any]:
        return {**config, "num_layers": 4} if part == "transformer" else read(place, part)

    monkeypatch.setattr(ltx2_cost, "_config", four_blocks)
    found = ltx2_cost.ltx2_cost.__wrapped__(
        str(tiny_folder()), grid=(5, 4, 8), audio_frames=28, num_tokens=32, dtype="bfloat16"
    )
    network = ltx2_cost._network({**config, "num_layers": 4}, None)
    sizes = tiny_ltx2()._sizes
    with torch.no_grad():
        whole = count(
            lambda: ltx2_cost._velocity(network, sizes, rows=1, grid=(5, 4, 8), audio=28, tokens=32)
        )
    assert found.network_pass == pytest.approx(whole, rel=1e-9)
    assert found.parameters == sum(p.numel() for p in network.parameters())
    assert found.training_bytes(adapters=True) == 2 * found.parameters
    assert found.latent_bytes == 2 * (5 * 32 * 8 + 28 * 16)


def test_generate_writes_picture_and_sound_of_a_joint_model(tmp_path: Path) -> None:
    model = tiny_ltx2()
    settings = GenerateSettings(model=model, prompt="a dog barks", num_steps=2, guidance_scale=1.0)
    (out,) = generate(None, tmp_path / "out.mp4", settings)
    video = model.spec.video
    assert video is not None
    seconds, rate = model.spec.clip_seconds, model.spec.sample_rate
    read = read_clip(out, duration_s=seconds, fps=video.fps, sample_rate=rate)
    assert read.frames is not None
    assert read.wave is not None
    assert read.frames.shape == (video.num_frames, video.height, video.width, 3)
    assert len(read.wave) == round(seconds * rate)
    (again,) = generate(None, tmp_path / "again.mp4", settings)
    assert again.read_bytes() == out.read_bytes()
    (sound,) = generate(None, tmp_path / "out.wav", settings)
    assert probe(sound).has_video is False
    with pytest.raises(ValueError, match=r"makes picture and sound together, about .* asked for 60 s"):
        generate(None, tmp_path / "long.mp4", settings.model_copy(update={"duration": 60.0}))
    with pytest.raises(ValueError, match=r"-o must be \.wav or \.flac or \.mp4"):
        generate(None, tmp_path / "out.webm", settings)
