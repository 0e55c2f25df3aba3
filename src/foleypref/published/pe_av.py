"""PE-AV (Meta, 2025): sound, text and picture in one space, from facebook/pe-av-* of the hub (Apache-2.0).

The networks are `transformers`' own. Embeddings have any length, and a score is not a cosine: it is the logit
of "these two belong together", a dot product with the learned scale and bias. The picture's tower is timm's,
which needs torchvision; without it, only sound and text are compared.

Letters: C channels, N samples, T frames, E width of the joint space.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import PeAudioConfig, PeAudioModel, PeAudioVideoConfig, PeAudioVideoModel

from foleypref.networks.resample import HANN, resample

SAMPLE_RATE, HOP = 48000, 1920  # waves are multiples of HOP: 25 frames per second
SIDE = 336  # pixels; both sides are stretched to it
MAX_TOKENS = 512
FEW_FRAMES = 16  # of the picture, in the models called -16-frame; the others take all
WHOLE, SOUND_ONLY = "pe_audio_video", "pe_audio"  # `model_type` in a config

SOUND_HALF = "audio_model."
SHARED = {  # weights that the whole model stores once, under another name than PeAudioModel's
    "text_model.": "text_model.",
    "audio_video_encoder.embedder.audio_encoder.": "audio_encoder.",
}
OTHER_HALF = ("video_model.", "audio_video_", "text_audio_video_", "audio_plus_text_", "video_plus_text_")


def pe_wave(sound: Float[Tensor, "C N"], sample_rate: int) -> Float[Tensor, " M"]:
    """Mix to mono at 48 kHz, and reflect the end up to a multiple of 1920 samples. No sound: ValueError."""
    if sound.shape[-1] == 0:
        raise ValueError("no sound: PE-AV takes at least one sample")
    wave = resample(sound.mean(0), sample_rate, SAMPLE_RATE, HANN)
    # numpy reflects repeatedly if the sound is shorter than the padding
    return torch.from_numpy(np.pad(wave.numpy(), (0, -len(wave) % HOP), "reflect"))


def pick_frames(count: int, num: int | None) -> list[int]:
    """Return the indices of `num` frames spread over `count`, from the first to the last; None takes all."""
    if num is None:
        return list(range(count))
    return [int(index * (count - 1) / (num - 1)) for index in range(num)]


def pe_pixels(frames: Float[Tensor, "T 3 H W"]) -> Float[Tensor, "T 3 H W"]:
    """Map grey levels 0 to 255 to the picture tower's input in [-1, 1]."""
    return (frames / 255 - 0.5) / 0.5


class PeAv(nn.Module):
    """Embeds sound and text, and the picture too if the whole model was loaded."""

    def __init__(
        self, model: PeAudioModel | PeAudioVideoModel, tokens: Tokenizer, num_frames: int | None = None
    ) -> None:
        super().__init__()
        self.model, self.tokens, self.num_frames = model, tokens, num_frames

    @property
    def audio(self) -> PeAudioModel:
        """The half for sound and text."""
        return self.model if isinstance(self.model, PeAudioModel) else self.model.audio_model

    @property
    def width(self) -> int:
        """The width E of an embedding."""
        return int(self.audio.config.text_config.hidden_size)

    def embed_audio(self, sound: np.ndarray, sample_rate: int) -> Float[Tensor, " E"]:
        """Embed one sound (C, N); the result is on the CPU."""
        wave = pe_wave(torch.from_numpy(sound), sample_rate).to(self._device)
        pooled = self.audio.audio_encoder(input_values=wave[None, None]).pooler_output
        return self.audio.audio_head(pooled)[0].cpu()

    def embed_text(self, text: str) -> Float[Tensor, " E"]:
        """Embed one text for comparison with sound; the result is on the CPU."""
        ids = torch.tensor([self.tokens.encode(text).ids], device=self._device)
        # Not get_text_audio_embeds: it does not request the hidden states that it needs, and fails (5.23).
        states = self.audio.text_model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        return self.audio.text_audio_head(states[:, 0])[0].cpu()

    def embed_video(self, frames: np.ndarray) -> Float[Tensor, " E"]:
        """Embed frames (T, 336, 336, 3) uint8 for comparison with sound; the result is on the CPU."""
        picked = torch.from_numpy(frames[pick_frames(len(frames), self.num_frames)]).to(self._device)
        pixels = pe_pixels(picked.movedim(-1, 1).float())
        pooled = self.model.video_model.video_encoder(pixel_values_videos=pixels[None]).pooler_output
        return self.model.video_model.video_head(pooled)[0].cpu()

    def audio_text(self, audio: Float[Tensor, " E"], text: Float[Tensor, " E"]) -> float:
        """Return the logit that a sound and a text belong together."""
        return _logit(audio, text, self.audio.text_audio_logit_scale, self.audio.text_audio_logit_bias)

    def audio_video(self, audio: Float[Tensor, " E"], video: Float[Tensor, " E"]) -> float:
        """Return the logit that a sound and a picture belong together."""
        return _logit(audio, video, self.model.audio_video_logit_scale, self.model.audio_video_logit_bias)

    @property
    def _device(self) -> torch.device:
        return self.audio.text_audio_logit_scale.device


def _logit(first: Tensor, second: Tensor, scale: Tensor, bias: Tensor) -> float:
    return float(first @ second) * float(scale) + float(bias)


def load_pe_av(
    folder: Path, *, video: bool = False, config: PeAudioConfig | PeAudioVideoConfig | None = None
) -> PeAv:
    """Load the frozen model in a folder of the hub in float32; without `video`, only the sound and text half.

    `config` replaces the folder's own. Raises ValueError if a file is missing, weights do not fit, or timm is
    needed and does not import.
    """
    config = config or _model_config(_read_json(folder / "config.json"), video)
    state: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        state |= load_file(path)
    kind = PeAudioVideoModel if video else PeAudioModel
    # from_pretrained and not `fill`, because the model has tables that are not in the weights
    half = state if video else sound_half(state)
    try:
        model, misfits = kind.from_pretrained(
            None, config=config, state_dict=half, output_loading_info=True, dtype=torch.float32
        )
        problems = [
            f"{key.split('_')[0]} {name}" for key in misfits for name in sorted(map(str, misfits[key]))
        ]
    except RuntimeError as error:  # tensors of another shape
        problems = [" ".join(str(error).split())]
    if problems:
        raise ValueError(
            f"{folder} holds other weights than its config says: {len(problems)} problems, first "
            f"{'; '.join(problems[:3])}; `hf download facebook/pe-av-large` gets a whole model"
        )
    tokens = _tokens(folder / "tokenizer.json", config.text_config.vocab_size)
    return PeAv(model, tokens, _num_frames(folder)).eval().requires_grad_(False)


def sound_half(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return PeAudioModel's weights, by its names, out of the whole model's or already its own."""
    half: dict[str, Tensor] = {}
    for name, value in state.items():
        shared = next((prefix for prefix in SHARED if name.startswith(prefix)), None)
        if name.startswith(SOUND_HALF):
            half[name.removeprefix(SOUND_HALF)] = value
        elif shared:
            half.setdefault(SHARED[shared] + name.removeprefix(shared), value)
        elif not name.startswith(OTHER_HALF):
            half[name] = value
    return half


def _model_config(config: Mapping[str, Any], video: bool) -> PeAudioConfig | PeAudioVideoConfig:
    kind = config.get("model_type")
    if kind not in (WHOLE, SOUND_ONLY) or (video and kind == SOUND_ONLY):
        expected = WHOLE if video else f"{WHOLE} or {SOUND_ONLY}"
        raise ValueError(f"the model is of type {kind!r}, expected {expected}; take facebook/pe-av-large")
    if video:
        try:
            importlib.import_module("timm")
        except (ImportError, RuntimeError, OSError) as error:  # a torchvision of another torch raises any
            raise ValueError(
                f"PE-AV reads the picture through timm, which does not import here ({error}); install timm "
                "and the torchvision that fits your torch, or leave `video` off: sound and text need neither"
            ) from error
        return PeAudioVideoConfig(**config)
    audio = config["audio_video_config"]["audio_config"] if kind == WHOLE else config["audio_config"]
    return PeAudioConfig(text_config=config["text_config"], audio_config=audio)


def _tokens(path: Path, vocabulary: int) -> Tokenizer:
    """Load the text tower's tokens. Raises ValueError if there are none, or more than the tower has."""
    if not path.is_file():
        raise ValueError(f"{path} is missing, which turns text into tokens; get it with the weights")
    tokens = Tokenizer.from_file(str(path))
    size = tokens.get_vocab_size()
    if not 0 < size <= vocabulary:
        raise ValueError(f"{path} has {size} tokens, the text tower {vocabulary}; get it with the weights")
    tokens.no_padding()
    tokens.enable_truncation(MAX_TOKENS)
    return tokens


def _num_frames(folder: Path) -> int | None:
    """Return how many frames of the picture to use, None for all, by the folder's processor or its name."""
    for name in ("video_preprocessor_config.json", "processor_config.json", "preprocessor_config.json"):
        processor = _read_json(folder / name)
        for settings in (processor, processor.get("video_processor") or {}):
            if settings.get("num_frames"):
                return int(settings["num_frames"])
    return FEW_FRAMES if "16-frame" in str(folder) else None


def _read_json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text("utf-8"))) if path.is_file() else {}
