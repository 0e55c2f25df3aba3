"""Audiobox Aesthetics (arXiv 2502.05139): four ratings of a sound without its video, from `checkpoint.pt`.

The trunk is WavLM-base+ of `transformers`; weights are named as in the official file. Everything runs in
float32; the original runs in bfloat16 if its file says so.

Letters: B windows, N samples (160,000), T frames of 20 ms, L layer outputs (13), D width (768), A axes (4).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import WavLMConfig, WavLMModel

from foleypref.networks.resample import HANN, resample
from foleypref.published.filling import below, fill, prefixed, rename, rule
from foleypref.published.hub_files import load_weights, weights_path

NAME = "audiobox-aesthetics/checkpoint.pt"
AXES = ("CE", "CU", "PC", "PQ")  # content enjoyment, content usefulness, production complexity and quality
SAMPLE_RATE, NUM_SAMPLES = 16000, 160000  # 10 s
FRAME, FIRST_FRAME = 320, 400  # samples from frame to frame, and samples that the first one needs
ROWS_AT_ONCE = 8
NUM_LAYERS = 13  # outputs of the trunk: the input of the first layer and the outputs of 12

TRUNK = "wavlm_model."
_TRUNK_NAMES = (
    rule(r"mask_emb", r"masked_spec_embed"),
    rule(r"(feature_extractor\.conv_layers\.\d+)\.0\.(.+)", r"\1.conv.\2"),
    rule(r"(feature_extractor\.conv_layers\.\d+)\.2\.(.+)", r"\1.layer_norm.\2"),
    rule(r"post_extract_proj\.(.+)", r"feature_projection.projection.\1"),
    rule(r"layer_norm\.(.+)", r"feature_projection.layer_norm.\1"),
    rule(r"encoder\.pos_conv\.0\.weight_g", r"encoder.pos_conv_embed.conv.parametrizations.weight.original0"),
    rule(r"encoder\.pos_conv\.0\.weight_v", r"encoder.pos_conv_embed.conv.parametrizations.weight.original1"),
    rule(r"encoder\.pos_conv\.0\.bias", r"encoder.pos_conv_embed.conv.bias"),
    rule(r"(encoder\.layer_norm\..+)", r"\1"),
    rule(r"(encoder\.layers\.\d+)\.self_attn\.([kvq]|out)_proj\.(.+)", r"\1.attention.\2_proj.\3"),
    rule(r"(encoder\.layers\.\d+)\.self_attn\.grep_linear\.(.+)", r"\1.attention.gru_rel_pos_linear.\2"),
    rule(r"(encoder\.layers\.\d+)\.self_attn\.grep_a", r"\1.attention.gru_rel_pos_const"),
    rule(
        r"(encoder\.layers\.\d+)\.self_attn\.relative_attention_bias\.(.+)", r"\1.attention.rel_attn_embed.\2"
    ),
    rule(r"(encoder\.layers\.\d+)\.self_attn_layer_norm\.(.+)", r"\1.layer_norm.\2"),
    rule(r"(encoder\.layers\.\d+)\.fc1\.(.+)", r"\1.feed_forward.intermediate_dense.\2"),
    rule(r"(encoder\.layers\.\d+)\.fc2\.(.+)", r"\1.feed_forward.output_dense.\2"),
    rule(r"(encoder\.layers\.\d+\.final_layer_norm\..+)", r"\1"),
)
NAMES = (  # official names to those of `Aesthetics`
    *prefixed(_TRUNK_NAMES, TRUNK, "trunk."),
    rule(r"((?:layer_weights|proj_layer)\..+)", r"\1"),
)
REQUIRED = {"normalize_embed": True, "use_weighted_layer_sum": True, "nth_layer": NUM_LAYERS, "output_dim": 1}
"""Values that the file's own settings must have if they are there; nothing else was ever published."""


def aesthetics_wave(sound: Float[Tensor, "C N"], sample_rate: int) -> Tensor:
    """Mix all channels to mono at 16 kHz. Raises ValueError for no sound at all."""
    if sound.shape[-1] == 0:
        raise ValueError("no sound: Audiobox Aesthetics takes at least one sample")
    return resample(sound.mean(0), sample_rate, SAMPLE_RATE, HANN)


def windows(wave: Float[Tensor, " n"]) -> tuple[Float[Tensor, "B 160000"], Int[Tensor, " B"]]:
    """Cut sound at 16 kHz into windows of 10 s; return them and the number of samples of sound in each.

    The last one is padded with zeros. Frames after the sound are not averaged, but the padding still has an
    effect: the trunk's first norm is over all of a window's time.
    """
    parts = wave.split(NUM_SAMPLES)
    rows = torch.stack([F.pad(part, (0, NUM_SAMPLES - len(part))) for part in parts])
    return rows, torch.tensor([len(part) for part in parts])


def num_frames(samples: int) -> int:
    """Return the number of frames that the trunk makes of a window."""
    return (samples - FIRST_FRAME) // FRAME + 1


def valid_frames(valid: Int[Tensor, " B"], samples: int) -> Int[Tensor, " B"]:
    """Count the frames of a window of `samples` that contain any of its first `valid` samples."""
    return (-(-valid // FRAME)).clamp(1, num_frames(samples))


class Aesthetics(nn.Module):
    """Trunk and four heads, frozen; each head has its own weights of the trunk's layers."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: WavLMConfig, heads: Mapping[str, nn.Sequential]) -> None:
        super().__init__()
        self.trunk = WavLMModel(config)
        layers = config.num_hidden_layers + 1
        self.layer_weights = nn.ParameterDict({axis: torch.zeros(layers) for axis in AXES})
        self.proj_layer = nn.ModuleDict(heads)

    def forward(self, waves: Float[Tensor, "B N"], valid: Int[Tensor, " B"]) -> Float[Tensor, "B A"]:
        """Rate windows, `valid` samples of which are sound, on the scale before `target_transform`."""
        frames = valid_frames(valid, waves.shape[1])  # (B,)
        # Trap: from a mask of samples the trunk derives one frame less: its last convolutions do not fit.
        mask = torch.arange(waves.shape[1], device=valid.device) < FIRST_FRAME + FRAME * (frames - 1)[:, None]
        out = self.trunk(waves, attention_mask=mask.long(), output_hidden_states=True)
        states = torch.stack(out.hidden_states)  # (L, B, T, D)
        is_sound = torch.arange(states.shape[2], device=valid.device) < frames[:, None]
        means = (states * is_sound[..., None]).sum(2) / frames[:, None]  # (L, B, D)
        ratings = [self._rate(axis, means) for axis in AXES]
        return torch.cat(ratings, dim=1)

    def _rate(self, axis: str, means: Float[Tensor, "L B D"]) -> Float[Tensor, "B 1"]:
        weights = self.layer_weights[axis].softmax(0)
        vectors = torch.einsum("l,lbd->bd", weights, means)
        return self.proj_layer[axis](F.normalize(vectors, dim=-1))

    @torch.inference_mode()
    def rate_sounds(self, sounds: Sequence[tuple[np.ndarray, int]]) -> Tensor:
        """Rate sounds (C, N) with their rates in Hz: (len(sounds), A), about 1 to 10, on the CPU.

        A sound's rating is the mean over its windows, weighted by how much of each is sound.
        """
        cut = [windows(aesthetics_wave(torch.from_numpy(sound), rate)) for sound, rate in sounds]
        if not cut:
            return torch.zeros(0, len(AXES))
        waves, valid = (torch.cat(parts) for parts in zip(*cut))
        chunks = zip(waves.split(ROWS_AT_ONCE), valid.split(ROWS_AT_ONCE))
        raw = torch.cat([self(w.to(self.mean.device), n.to(self.mean.device)).cpu() for w, n in chunks])
        weighted = (raw * self.std.cpu() + self.mean.cpu()) * valid[:, None]
        lengths = [len(n) for _, n in cut]
        pairs = zip(weighted.split(lengths), valid.split(lengths))
        return torch.stack([part.sum(0) / n.sum() for part, n in pairs])


def load_aesthetics(weights: str = "", folder: Path | str | None = None) -> Aesthetics:
    """Load the published file, or the file or repository `weights`. Raises ValueError if it is missing."""
    state = load_weights(weights, NAME, folder)
    return build_aesthetics(state, file_settings(weights_path(weights, NAME, folder)))


def build_aesthetics(state: Mapping[str, Tensor], about: Mapping[str, Any]) -> Aesthetics:
    """Build the frozen network from an official state dict; sizes are read off the tensors.

    `about` is the result of `file_settings`. Raises ValueError if a weight is missing, unknown or of another
    shape, or if the file describes another network.
    """
    mean, std = _rating_scale(about)
    renamed, unknown = rename(state, NAMES)
    network = fill(
        lambda: Aesthetics(_trunk_config(renamed), {axis: _head(renamed, axis) for axis in AXES}),
        renamed,
        unknown=unknown,
        role="Audiobox Aesthetics",
        advice=f"give {NAME} or facebook/audiobox-aesthetics",
    )
    network.register_buffer("mean", mean, persistent=False)
    network.register_buffer("std", std, persistent=False)
    return network


def file_settings(path: Path) -> dict[str, Any]:
    """Read `target_transform` and the network's settings, which come with a file of weights.

    They lie inside `checkpoint.pt`, or in `config.json` beside a safetensors file. Raises ValueError if they
    are missing or the file does not read.
    """
    if path.suffix == ".safetensors":
        config = path.with_name("config.json")
        if not config.is_file():
            raise ValueError(
                f"{config} is missing, which has the ratings' scale (target_transform); get it from "
                "https://huggingface.co/facebook/audiobox-aesthetics, or give checkpoint.pt"
            )
        return dict(json.loads(config.read_text("utf-8")))
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torn or foreign pickles raise anything
        raise ValueError(f"{path} does not read as a checkpoint: {error}") from error
    entries = loaded if isinstance(loaded, dict) else {}
    return {**entries.get("model_cfg", {}), "target_transform": entries.get("target_transform")}


def _trunk_config(state: Mapping[str, Tensor]) -> WavLMConfig:
    """Read the trunk's sizes off the shapes of its weights; the strides are the same in every WavLM."""
    attention = "trunk.encoder.layers.0.attention."
    inner = state.get("trunk.encoder.layers.0.feed_forward.intermediate_dense.weight")
    buckets = state.get(f"{attention}rel_attn_embed.weight")
    position = state.get("trunk.encoder.pos_conv_embed.conv.parametrizations.weight.original1")
    front = below(state, "trunk.feature_extractor.")
    convs = [value for name, value in front.items() if name.endswith(".conv.weight")]
    if inner is None or buckets is None or position is None or not convs:
        raise ValueError(f"not the weights of Audiobox Aesthetics: no WavLM trunk in it; give {NAME}")
    layers = {name.split(".")[3] for name in state if name.startswith("trunk.encoder.layers.")}
    return WavLMConfig(
        hidden_size=inner.shape[1],
        intermediate_size=inner.shape[0],
        num_hidden_layers=len(layers),
        num_attention_heads=buckets.shape[1],
        num_buckets=buckets.shape[0],
        num_conv_pos_embeddings=position.shape[2],
        num_conv_pos_embedding_groups=position.shape[0] // position.shape[1],
        conv_dim=[len(conv) for conv in convs],
        conv_kernel=[conv.shape[2] for conv in convs],
    )


def _head(state: Mapping[str, Tensor], axis: str) -> nn.Sequential:
    """Return an axis's MLP with its official numbering: linear, maybe a norm, then GELU and maybe dropout."""
    prefix = f"proj_layer.{axis}."
    last = max((int(name.split(".")[2]) for name in state if name.startswith(prefix)), default=-1)
    layers: list[nn.Module] = []
    for weight in (state.get(f"{prefix}{index}.weight") for index in range(last + 1)):
        if weight is None:  # no weights: first the GELU, then, if there is one, the dropout
            layers.append(nn.Identity() if layers and isinstance(layers[-1], nn.GELU) else nn.GELU())
        elif weight.ndim == 1:
            layers.append(nn.LayerNorm(len(weight)))
        else:
            layers.append(nn.Linear(weight.shape[1], weight.shape[0]))
    return nn.Sequential(*layers)


def _rating_scale(about: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of the raters' ratings by axis, (A,) each."""
    other = {key: about[key] for key, value in REQUIRED.items() if key in about and about[key] != value}
    if other:
        raise ValueError(f"the file describes another network than Audiobox Aesthetics: {other}")
    scales = about.get("target_transform") or {}
    missing = [axis for axis in AXES if not {"mean", "std"} <= set(scales.get(axis) or {})]
    if missing:
        raise ValueError(
            f"the weights come without the ratings' scale (target_transform) of {', '.join(missing)}; "
            "give checkpoint.pt as published, or model.safetensors with its config.json beside it"
        )
    mean, std = (torch.tensor([float(scales[axis][key]) for axis in AXES]) for key in ("mean", "std"))
    return mean, std
