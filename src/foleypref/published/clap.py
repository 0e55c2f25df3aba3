"""LAION-CLAP: how well a sound fits a text, from `music_speech_audioset_epoch_15_esc_89.98.pt` (HTSAT-base).

The towers are those of `transformers`; weights are named as in the official file, or as in its conversion on
the hub, laion/larger_clap_general. Sound is read by `taggers.benchmark_wave`. The front end is av-benchmark's
but for one thing: of sound beyond 10 s it takes the middle, where the original takes a random part.

Letters: B sounds or texts, N samples, T tokens (77), E width of the joint space (512).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import ClapConfig, ClapModel, ClapTextConfig

from foleypref.published.filling import fill
from foleypref.published.htsat import HtsatMel, below, htsat_config, htsat_to_transformers
from foleypref.published.hub_files import weights_path
from foleypref.published.taggers import benchmark_wave
from foleypref.published.text_tokens import ROBERTA, ByteLevelTokens, load_tokens
from foleypref.published.weights import load_published

NAME = "music_speech_audioset_epoch_15_esc_89.98.pt"
SAMPLE_RATE, HOP = 48000, 480
NUM_SAMPLES = 10 * SAMPLE_RATE
NUM_TOKENS = 77
START, PAD, END = 0, 1, 2
ROBERTA_EPS = 1e-5  # of every LayerNorm of the text tower. Trap: ClapTextConfig's default is 1e-12
HEAD_WIDTH = 64  # of every RoBERTa

AUDIO, TEXT = "audio_branch.", "text_branch."
PROJECTION = re.compile(r"(?P<tower>audio|text)_projection\.(?P<layer>[02])\.(?P<kind>weight|bias)")
UNUSED = re.compile(  # a further loss of the training, and what is computed anew
    r"(audio|text)_transform\..+|text_branch\.embeddings\.(position_ids|token_type_ids)"
)
CONVERTED = "audio_model.audio_encoder."  # begins names that `transformers` gave
COMPUTED = ("position_ids", "token_type_ids")  # tables in conversions: counted here


def ten_seconds(wave: Float[Tensor, " N"]) -> Float[Tensor, " 480000"]:
    """Exactly 10 s at 48 kHz: repeated as often as it fits and padded with zeros, or the middle of it.

    8 s are 8 s and 2 s of silence. Raises ValueError for no sound at all.
    """
    if len(wave) == 0:
        raise ValueError("no sound: CLAP takes at least one sample")
    if len(wave) > NUM_SAMPLES:
        start = (len(wave) - NUM_SAMPLES) // 2
        return wave[start : start + NUM_SAMPLES]
    wave = wave.repeat(NUM_SAMPLES // len(wave))
    return F.pad(wave, (0, NUM_SAMPLES - len(wave)))


def roberta_ids(tokens: ByteLevelTokens, texts: Sequence[str]) -> Int[Tensor, "B 77"]:
    """Start, words, end, then padding, 77 ids a text; a text too long is cut and its last id is the end."""
    rows = torch.full((len(texts), NUM_TOKENS), PAD, dtype=torch.int64)
    for row, text in zip(rows, texts):
        ids = [START, *tokens.encode(text)[: NUM_TOKENS - 2], END]
        row[: len(ids)] = torch.tensor(ids)
    return rows


class Clap(nn.Module):
    """Both towers and their projections, frozen."""

    def __init__(self, model: ClapModel) -> None:
        super().__init__()
        self.model = model
        self.mel = HtsatMel(SAMPLE_RATE, HOP)

    def embed_audio(self, waves: Float[Tensor, "B 480000"]) -> Float[Tensor, "B E"]:
        """10 s at 48 kHz -> vectors of length 1."""
        pooled = self.model.audio_model(input_features=self.mel(waves)).pooler_output
        return F.normalize(self.model.audio_projection(pooled), dim=-1)

    def embed_text(self, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B E"]:
        """Padded ids -> vectors of length 1."""
        pooled = self.model.text_model(input_ids=ids, attention_mask=ids.ne(PAD).long()).pooler_output
        return F.normalize(self.model.text_projection(pooled), dim=-1)


class LoadedClap:
    """A model with its tokens on a device: sounds and texts in, embeddings out."""

    def __init__(self, model: Clap, tokens: ByteLevelTokens, device: torch.device | str = "cpu") -> None:
        self.model, self.tokens, self.device = model.to(device), tokens, torch.device(device)

    def wave(self, sound: np.ndarray, sample_rate: int, seconds: float | None) -> Float[Tensor, " 480000"]:
        """Sound (C, N), of which the first `seconds` count, as the model hears it."""
        return ten_seconds(benchmark_wave(sound, sample_rate, SAMPLE_RATE, seconds))

    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "B E"]:
        """Texts -> vectors of length 1, on the CPU."""
        return self.model.embed_text(roberta_ids(self.tokens, texts).to(self.device)).cpu()


def load_clap(
    weights: str = "", folder: Path | str | None = None, device: torch.device | str = "cpu"
) -> LoadedClap:
    """The published file, or the file or repository `weights`, with RoBERTa's tokens. Raises ValueError."""
    tokens = load_tokens(ROBERTA, folder)
    state = load_published(weights_path(weights, NAME, folder) if weights else NAME, folder)
    return LoadedClap(build_clap(state), tokens, device)


def build_clap(state: Mapping[str, Tensor]) -> Clap:
    """The model around an official or converted state dict, frozen, its sizes read off the tensors.

    Raises ValueError when a weight is missing, unknown or of another shape.
    """
    renamed, unknown = to_transformers(state)
    advice = f"give {NAME}, or model.safetensors of its conversion laion/larger_clap_general"
    with torch.device("meta"):
        model = ClapModel(_config(renamed, advice))
    positions = model.text_model.embeddings.position_ids.shape[1]
    renamed["text_model.embeddings.position_ids"] = torch.arange(positions)[None]
    renamed["text_model.embeddings.token_type_ids"] = torch.zeros(1, positions, dtype=torch.int64)
    return Clap(fill(model, renamed, unknown, "LAION-CLAP", advice)).eval()


def _config(state: Mapping[str, Tensor], advice: str) -> ClapConfig:
    """Sizes of both towers by the shapes of their weights."""
    embeddings = "text_model.embeddings."
    words = state.get(f"{embeddings}word_embeddings.weight")
    places = state.get(f"{embeddings}position_embeddings.weight")
    inner = state.get("text_model.encoder.layer.0.intermediate.dense.weight")
    joint = state.get("audio_projection.linear2.weight")
    if words is None or places is None or inner is None or joint is None:
        raise ValueError(f"not the weights of LAION-CLAP: no RoBERTa and projections in it; {advice}")
    layers = {name.split(".")[3] for name in state if name.startswith("text_model.encoder.layer.")}
    text = ClapTextConfig(
        vocab_size=words.shape[0],
        hidden_size=words.shape[1],
        num_hidden_layers=len(layers),
        num_attention_heads=words.shape[1] // HEAD_WIDTH,
        intermediate_size=inner.shape[0],
        max_position_embeddings=places.shape[0],
        layer_norm_eps=ROBERTA_EPS,
        pad_token_id=PAD,
    )
    audio = htsat_config(below(state, "audio_model."))
    return ClapConfig(text_config=text, audio_config=audio, projection_dim=joint.shape[0])


def to_transformers(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """An official state dict under the names of ClapModel, and the names that were not understood.

    One that has these names already keeps them.
    """
    if any(name.startswith(CONVERTED) for name in state):
        return {name: value for name, value in state.items() if not name.endswith(COMPUTED)}, []
    tower, unknown = htsat_to_transformers(below(state, AUDIO))
    unknown = [AUDIO + name for name in unknown]
    renamed = {f"audio_model.{name}": value for name, value in tower.items()}
    for name, value in state.items():
        projection = PROJECTION.fullmatch(name)
        if projection:
            layer = 1 if projection["layer"] == "0" else 2
            renamed[f"{projection['tower']}_projection.linear{layer}.{projection['kind']}"] = value
        elif name in ("logit_scale_a", "logit_scale_t"):
            renamed[name] = value
        elif UNUSED.fullmatch(name) or name.startswith(AUDIO):
            continue
        elif name.startswith(TEXT):
            renamed["text_model." + name.removeprefix(TEXT)] = value
        else:
            unknown.append(name)
    return renamed, unknown
