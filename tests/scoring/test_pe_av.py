"""PE-AV at a tiny size: what comes out of `transformers` whole, the half for sound and text, the scorer.

The picture's tower is timm's, which does not import everywhere; a ViT of `transformers` stands in for it.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    PeAudioConfig,
    PeAudioEncoderConfig,
    PeAudioFeatureExtractor,
    PeAudioModel,
    PeAudioVideoConfig,
    PeAudioVideoEncoderConfig,
    PeAudioVideoModel,
    PeVideoEncoderConfig,
    ViTConfig,
)

from foleypref.published import pe_av as published
from foleypref.published.pe_av import load_pe_av, pe_pixels, pe_wave, pick_frames
from foleypref.published.places import MissingWeights
from foleypref.scoring.scorers import ScoreItem
from foleypref.scoring.scorers.pe_av import PICTURE, PeAv
from tests.golden import recipes
from tests.judged import judged, scores_of

SIDE = 28  # of the stand-in's pictures
WORDS = ("[PAD]", "[CLS]", "[SEP]", "dog", "barks", "rain", "falls")
TEXT = {
    "model_type": "modernbert",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "cls_token_id": 1,
    "eos_token_id": 2,
    "sep_token_id": 2,
}
DAC = {
    "model_type": "dac",
    "encoder_hidden_size": 8,
    "downsampling_ratios": [2, 8, 10, 12],
    "codebook_dim": 6,
}
ENCODER = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "head_dim": 16,
}


def whole_config() -> PeAudioVideoConfig:
    vision = ViTConfig(
        image_size=SIDE,
        patch_size=14,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        num_labels=20,
    )
    audio = PeAudioEncoderConfig(dac_config=dict(DAC), **ENCODER)
    both = PeAudioVideoEncoderConfig(
        audio_config=audio, video_config=PeVideoEncoderConfig(vision_config=vision, **ENCODER), **ENCODER
    )
    return PeAudioVideoConfig(text_config=dict(TEXT), audio_video_config=both)


def audible(model: torch.nn.Module) -> None:
    """Weights large enough that every part shows in the result; scales and biases that are not 0."""
    torch.manual_seed(4)
    for name, value in model.named_parameters():
        if value.ndim > 1:
            value.data = torch.randn(value.shape) / value[0].numel() ** 0.5
        elif name.endswith(("logit_scale", "logit_bias")):
            value.data = torch.randn(value.shape)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[PeAudioVideoModel, Path]:
    """A whole model and its folder, as the hub has it."""
    folder = tmp_path_factory.mktemp("hub") / "pe-av-tiny"
    model = PeAudioVideoModel(whole_config()).eval()
    audible(model)
    model.save_pretrained(folder)
    tokens = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[PAD]"))
    tokens.pre_tokenizer = pre_tokenizers.Whitespace()
    tokens.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    tokens.enable_padding(length=20)  # files have it; one text at a time wants none
    tokens.save(str(folder / "tokenizer.json"))
    return model, folder


@pytest.fixture(scope="module")
def half(whole: tuple[PeAudioVideoModel, Path]) -> published.PeAv:
    return load_pe_av(whole[1])


# -- front ends ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [1920, 1921, 5000, 700, 2])
def test_sound_is_reflected_to_whole_frames_as_the_original_does(samples: int) -> None:
    sound = recipes.wave(1, 48000, 3)[:samples]
    extractor = PeAudioFeatureExtractor()
    expected = extractor(sound.numpy(), sampling_rate=48000, return_tensors="pt")["input_values"].flatten()
    ours = pe_wave(sound[None], 48000)
    assert len(ours) % 1920 == 0
    assert torch.equal(ours, expected)


def test_sound_is_mixed_and_resampled() -> None:
    sound = torch.randn(2, 16000)
    assert len(pe_wave(sound, 16000)) == 48000
    assert torch.allclose(pe_wave(sound, 16000), pe_wave(sound.mean(0)[None], 16000), atol=1e-6)
    with pytest.raises(ValueError, match="no sound"):
        pe_wave(torch.zeros(2, 0), 16000)


def test_few_frames_are_spread_from_the_first_to_the_last() -> None:
    assert pick_frames(5, None) == [0, 1, 2, 3, 4]
    assert pick_frames(200, 16) == [0, 13, 26, 39, 53, 66, 79, 92, 106, 119, 132, 145, 159, 172, 185, 199]
    assert pick_frames(1, 16) == [0] * 16
    levels = pe_pixels(torch.tensor([0.0, 127.5, 255.0]).expand(1, 3, 1, 3))
    assert levels[0, 0, 0].tolist() == [-1, 0, 1]


def test_the_picture_is_stretched_to_a_square() -> None:
    pixels = np.zeros((120, 300, 3), np.uint8)
    pixels[:, 150:] = 200
    frame = SimpleNamespace(width=300, height=120, to_ndarray=lambda format: pixels, side_data={})
    shown = PICTURE.convert(frame, Fraction(1))
    assert shown.shape == (336, 336, 3)
    assert shown.dtype == np.uint8
    assert shown[:, :160].max() == 0
    assert shown[:, 176:].min() == 200


# -- the half for sound and text -------------------------------------------------------------------------


@torch.no_grad()
def test_the_half_says_what_the_whole_model_says(whole: tuple[PeAudioVideoModel, Path], half: Any) -> None:
    model = whole[0]
    wave = pe_wave(recipes.wave(0.3, 48000, 1)[None], 48000)
    ids = torch.tensor([[1, 3, 4, 2]])
    output = model.audio_model(input_ids=ids, input_values=wave[None, None])
    audio, text = (
        half.embed_audio(recipes.wave(0.3, 48000, 1)[None].numpy(), 48000),
        half.embed_text("dog barks"),
    )
    assert torch.allclose(audio, output.audio_embeds[0], atol=1e-5)
    assert torch.allclose(text, output.text_audio_embeds[0], atol=1e-5)
    assert half.audio_text(audio, text) == pytest.approx(float(output.logits_audio_text), abs=1e-4)
    assert abs(float(output.logits_audio_text)) > 1e-2
    assert (half.width, half.num_frames) == (32, None)
    assert not torch.allclose(text, half.embed_text("rain falls"), atol=1e-3)


def test_the_half_needs_nothing_of_the_picture(half: Any) -> None:
    assert isinstance(half.model, PeAudioModel)
    assert not any("video" in name for name, _ in half.named_parameters())


@torch.no_grad()
def test_a_folder_of_the_half_alone_is_read_too(tmp_path: Path, whole: Any, half: Any) -> None:
    model = PeAudioModel(
        PeAudioConfig(text_config=dict(TEXT), audio_config={**ENCODER, "dac_config": dict(DAC)})
    )
    model.load_state_dict(half.model.state_dict())
    model.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes((whole[1] / "tokenizer.json").read_bytes())
    assert torch.allclose(load_pe_av(tmp_path).embed_text("dog"), half.embed_text("dog"), atol=1e-6)
    with pytest.raises(ValueError, match="'pe_audio', expected pe_audio_video"):
        load_pe_av(tmp_path, video=True)


def test_weights_shared_between_towers_may_have_any_of_their_names(half: Any) -> None:
    state = half.model.state_dict()
    one = next(name for name in state if name.startswith("audio_encoder."))
    two = next(name for name in state if name.startswith("text_model."))
    a, b, c = torch.zeros(1), torch.ones(1), torch.ones(2)
    stored = {
        "audio_video_encoder.embedder." + one: a,
        two: b,
        "audio_model.audio_head.proj.weight": c,
        "video_model.text_model.x": a,
        "audio_video_logit_scale": a,
    }
    assert published.sound_half(stored) == {one: a, two: b, "audio_head.proj.weight": c}
    stored["audio_model." + one] = c  # its own name counts more
    assert published.sound_half(stored)[one] is c


def test_what_does_not_fit_is_refused(tmp_path: Path, whole: tuple[PeAudioVideoModel, Path]) -> None:
    folder = whole[1]
    config = json.loads((folder / "config.json").read_text())
    for name in ("tokenizer.json", "config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(ValueError, match=r"other weights than its config says: .*missing audio_encoder"):
        load_pe_av(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(config | {"text_config": TEXT | {"vocab_size": 5}}))
    with pytest.raises(ValueError, match="other weights than its config says"):
        load_pe_av(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clap"}))
    with pytest.raises(ValueError, match=r"'clap', expected pe_audio_video or pe_audio"):
        load_pe_av(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"tokenizer\.json is missing"):
        load_pe_av(tmp_path)


def test_the_picture_needs_timm(
    monkeypatch: pytest.MonkeyPatch, whole: tuple[PeAudioVideoModel, Path]
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r"timm, which does not import here .*leave `video` off"):
        load_pe_av(whole[1], video=True)


def test_how_many_frames_a_model_looks_at(tmp_path: Path) -> None:
    few, all_frames = tmp_path / "pe-av-base-16-frame", tmp_path / "pe-av-base"
    few.mkdir()
    all_frames.mkdir()
    assert published._num_frames(few) == 16
    assert published._num_frames(all_frames) is None
    (all_frames / "processor_config.json").write_text(json.dumps({"video_processor": {"num_frames": 8}}))
    assert published._num_frames(all_frames) == 8


# -- the scorer ------------------------------------------------------------------------------------------


def item(name: str, seed: int, prompt: str = "dog barks", clip: str = "c") -> ScoreItem:
    frames = recipes.video_u8(6, SIDE, SIDE, seed=7).movedim(1, -1).numpy()
    wave = recipes.wave(0.3, 48000, seed, 200.0 + 90 * seed).numpy()
    return ScoreItem(name, wave, 48000, prompt, {PICTURE.key: frames}, clip_id=clip)


@pytest.fixture
def seeing(monkeypatch: pytest.MonkeyPatch, whole: tuple[PeAudioVideoModel, Path]) -> PeAv:
    """The scorer with the picture, the stand-in's config in place of timm's."""
    monkeypatch.setattr(published, "_model_config", lambda config, video: whole_config())
    return PeAv(weights=str(whole[1]), video=True).load()


def test_without_the_picture_there_is_one_dimension(whole: tuple[PeAudioVideoModel, Path]) -> None:
    scorer = PeAv(weights=str(whole[1])).load()
    assert (scorer.dimensions, scorer.streams) == (("audio_text",), ())
    assert scorer.needs == {"audio", "text"}
    items = [item("a", 1), item("b", 2, "rain falls"), item("c", 3), item("d", 4, "")]
    silent = replace(items[0], candidate_id="silent", wave=np.zeros(4800, np.float32))
    scores, embeddings = judged(scorer, [*items, silent])
    assert [s.reason for s in scores] == ["", "", "", "no caption", "silent"]
    assert len({s.value for s in scores[:3]}) == 3
    assert {(s.scorer, s.dimension) for s in scores} == {("pe_av", "audio_text")}
    assert embeddings["audio"].shape == (5, 32)
    back = scores_of(scorer, items[::-1])
    assert [s.value for s in back[::-1]] == pytest.approx([s.value for s in scores[:4]], abs=1e-5)


def test_with_the_picture_there_are_two(whole: tuple[PeAudioVideoModel, Path], seeing: PeAv) -> None:
    assert seeing.dimensions == ("audio_text", "audio_video")
    assert seeing.higher_is_better == {"audio_text": True, "audio_video": True}
    assert seeing.needs == {"audio", "text", "video"}
    assert seeing.streams == (PICTURE,)
    items = [item("a", 1), replace(item("b", 2), frames={}, clip_id="other"), item("c", 3)]
    values = {(s.candidate_id, s.dimension): s for s in scores_of(seeing, items)}
    assert len(values) == 6
    assert values["b", "audio_video"].reason == "no picture"
    assert values["b", "audio_text"].value is not None
    pixels = pe_pixels(recipes.video_u8(6, SIDE, SIDE, seed=7).float())
    with torch.no_grad():
        for one in (items[0], items[2]):
            wave = torch.from_numpy(np.pad(one.wave, (0, -len(one.wave) % 1920), "reflect"))
            output = whole[0](input_values=wave[None, None], pixel_values_videos=pixels[None])
            value = values[one.candidate_id, "audio_video"].value
            assert value == pytest.approx(float(output.logits_audio_video), abs=1e-4)
            assert abs(float(output.logits_audio_video)) > 1e-2


def test_the_picture_is_seen_once_a_clip(seeing: PeAv) -> None:
    assert seeing._network is not None
    calls: list[int] = []
    encoder = seeing._network.model.video_model.video_encoder
    encoder.register_forward_pre_hook(lambda *_: calls.append(1))
    scores_of(seeing, [item("a", 1), item("b", 2), item("c", 3, clip="other")])
    assert len(calls) == 2


def test_variants_are_repositories_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    for variant in ("large", "small-16-frame"):
        scorer = PeAv(variant=variant, weights_folder=str(tmp_path))
        with pytest.raises(MissingWeights, match=f"hf download facebook/pe-av-{variant}"):
            scorer.load()
    snapshot = tmp_path / "hub" / "models--facebook--pe-av-small" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (snapshot / "model.safetensors").write_bytes(b"weights")
    small = PeAv(variant="small", weights_folder=str(tmp_path))
    assert small._folder == snapshot
    assert small.version.endswith("-1")
    assert (small.scored_as, PeAv().scored_as) == ("pe_av-small", "pe_av")
    assert PeAv().variant == "large"
