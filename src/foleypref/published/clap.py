"""LAION-CLAP: how well a sound fits a text, from `music_speech_audioset_epoch_15_esc_89.98.pt` (HTSAT-base).

The towers are `transformers`' own; weights are named as in the official file, or as in its conversion on the
hub, laion/larger_clap_general. Sound is read by `taggers.benchmark_wave`. The front end is av-benchmark's
with one difference: from sound beyond 10 s it takes the middle, where the original takes a random part.

Letters: B sounds or texts, N samples, T tokens (77), E width of the joint space (512).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import ClapConfig, ClapModel, ClapTextConfig

from foleypref.published.filling import Renamed, below, fill, prefixed, rename, rule
from foleypref.published.htsat import TOWER_NAMES, HtsatMel, LoadedClap, htsat_config
from foleypref.published.hub_files import load_weights
from foleypref.published.taggers import benchmark_wave
from foleypref.published.text_tokens import ROBERTA, ByteLevelTokens, id_rows, load_tokens

NAME = "music_speech_audioset_epoch_15_esc_89.98.pt"
SAMPLE_RATE, HOP = 48000, 480
NUM_SAMPLES = 10 * SAMPLE_RATE
NUM_TOKENS = 77
START, PAD, END = 0, 1, 2
ROBERTA_EPS = 1e-5  # of every LayerNorm of the text tower. Trap: ClapTextConfig's default is 1e-12
HEAD_WIDTH = 64  # of every RoBERTa

AUDIO = "audio_branch."
CONVERTED = "audio_model.audio_encoder."  # a prefix of the names in `transformers`
NAMES = (  # official names to those of ClapModel
    *prefixed(TOWER_NAMES, AUDIO, CONVERTED),
    rule(r"(audio|text)_projection\.0\.(weight|bias)", r"\1_projection.linear1.\2"),
    rule(r"(audio|text)_projection\.2\.(weight|bias)", r"\1_projection.linear2.\2"),
    rule(r"(logit_scale_[at])", r"\1"),
    rule(r"(audio|text)_transform\..+"),  # of a further loss of the training
    rule(r"text_branch\.embeddings\.(position_ids|token_type_ids)"),  # computed anew
    rule(r"text_branch\.(.+)", r"text_model.\1"),
)
COMPUTED = ("position_ids", "token_type_ids")  # tables in conversions, computed here


def ten_seconds(wave: Float[Tensor, " N"]) -> Float[Tensor, " 480000"]:
    """Return exactly 10 s at 48 kHz: the middle of a longer wave; a shorter one is repeated, then padded.

    It is repeated only whole: 8 s become 8 s and 2 s of silence. Raises ValueError for no sound at all.
    """
    if len(wave) == 0:
        raise ValueError("no sound: CLAP takes at least one sample")
    if len(wave) > NUM_SAMPLES:
        start = (len(wave) - NUM_SAMPLES) // 2
        return wave[start : start + NUM_SAMPLES]
    wave = wave.repeat(NUM_SAMPLES // len(wave))
    return F.pad(wave, (0, NUM_SAMPLES - len(wave)))


def roberta_ids(tokens: ByteLevelTokens, texts: Sequence[str]) -> Int[Tensor, "B 77"]:
    """Return 77 ids per text: start, words, end, padding; a text too long is cut before its end."""
    return id_rows([[START, *tokens.encode(text)[: NUM_TOKENS - 2], END] for text in texts], NUM_TOKENS, PAD)


class Clap(nn.Module):
    """Both towers and their projections, frozen."""

    def __init__(self, model: ClapModel) -> None:
        super().__init__()
        self.model = model
        self.mel = HtsatMel(SAMPLE_RATE, HOP)

    def embed_audio(self, waves: Float[Tensor, "B 480000"]) -> Float[Tensor, "B E"]:
        """Embed 10 s of sound at 48 kHz; the vectors have length 1."""
        pooled = self.model.audio_model(input_features=self.mel(waves)).pooler_output
        return F.normalize(self.model.audio_projection(pooled), dim=-1)

    def embed_text(self, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B E"]:
        """Embed texts, given as padded ids; the vectors have length 1."""
        pooled = self.model.text_model(input_ids=ids, attention_mask=ids.ne(PAD).long()).pooler_output
        return F.normalize(self.model.text_projection(pooled), dim=-1)


def load_clap(
    weights: str = "", folder: Path | str | None = None, device: torch.device | str = "cpu"
) -> LoadedClap:
    """Load the published file, or the file or repository `weights`, with RoBERTa's tokens.

    Raises ValueError if a file is missing or does not fit.
    """
    tokens = load_tokens(ROBERTA, folder)
    network = build_clap(load_weights(weights, NAME, folder)).to(device)
    return LoadedClap(
        network,
        torch.device(device),
        read=lambda sound, rate, seconds: ten_seconds(benchmark_wave(sound, rate, SAMPLE_RATE, seconds)),
        encode=lambda texts: roberta_ids(tokens, texts),
    )


def build_clap(state: Mapping[str, Tensor]) -> Clap:
    """Build the frozen model from an official or converted state dict. Raises ValueError as `fill` does."""
    renamed, unknown = to_transformers(state)
    advice = f"give {NAME}, or model.safetensors of its conversion laion/larger_clap_general"
    config = _clap_config(renamed, advice)
    positions = config.text_config.max_position_embeddings
    renamed["text_model.embeddings.position_ids"] = torch.arange(positions)[None]
    renamed["text_model.embeddings.token_type_ids"] = torch.zeros(1, positions, dtype=torch.int64)
    model = fill(lambda: ClapModel(config), renamed, unknown=unknown, role="LAION-CLAP", advice=advice)
    return Clap(model).eval()


def _clap_config(state: Mapping[str, Tensor], advice: str) -> ClapConfig:
    """Read the sizes of both towers off the shapes of their weights."""
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


def to_transformers(state: Mapping[str, Tensor]) -> Renamed:
    """Rename an official state dict to the names of ClapModel; names that are so already are kept."""
    if any(name.startswith(CONVERTED) for name in state):
        return Renamed({name: value for name, value in state.items() if not name.endswith(COMPUTED)}, [])
    return rename(state, NAMES)
