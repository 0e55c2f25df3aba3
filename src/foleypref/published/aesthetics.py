"""Audiobox Aesthetics (arXiv 2502.05139): four ratings of a sound alone, from Meta's `checkpoint.pt`.

The trunk is WavLM-base+ of `transformers`; weights are named as in the official file. Here all is float32,
where the original runs in bfloat16 if its file says so.

Letters: B windows, N samples (160,000), T frames of 20 ms, L layer outputs (13), D width (768), A axes (4).
"""

from __future__ import annotations

import json
import re
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
from foleypref.published.filling import fill
from foleypref.published.hub_files import weights_path
from foleypref.published.weights import load_published

NAME = "audiobox-aesthetics/checkpoint.pt"
AXES = ("CE", "CU", "PC", "PQ")  # content enjoyment, content usefulness, production complexity and quality
SAMPLE_RATE, NUM_SAMPLES = 16000, 160000  # 10 s
FRAME, FIRST_FRAME = 320, 400  # samples from frame to frame, samples that the first one needs
ROWS_AT_ONCE = 8
NUM_LAYERS = 13  # outputs of the trunk: 12 layers and what enters the first

TRUNK = "wavlm_model."
TRUNK_NAMES = (  # in this order; the parts of a layer have names of their own
    (r"mask_emb", r"masked_spec_embed"),
    (r"(feature_extractor\.conv_layers\.\d+)\.0\.(.+)", r"\1.conv.\2"),
    (r"(feature_extractor\.conv_layers\.\d+)\.2\.(.+)", r"\1.layer_norm.\2"),
    (r"post_extract_proj\.(.+)", r"feature_projection.projection.\1"),
    (r"layer_norm\.(.+)", r"feature_projection.layer_norm.\1"),
    (r"encoder\.pos_conv\.0\.weight_g", r"encoder.pos_conv_embed.conv.parametrizations.weight.original0"),
    (r"encoder\.pos_conv\.0\.weight_v", r"encoder.pos_conv_embed.conv.parametrizations.weight.original1"),
    (r"encoder\.pos_conv\.0\.bias", r"encoder.pos_conv_embed.conv.bias"),
    (r"(encoder\.layer_norm\..+)", r"\1"),
    (r"(encoder\.layers\.\d+)\.self_attn\.([kvq]|out)_proj\.(.+)", r"\1.attention.\2_proj.\3"),
    (r"(encoder\.layers\.\d+)\.self_attn\.grep_linear\.(.+)", r"\1.attention.gru_rel_pos_linear.\2"),
    (r"(encoder\.layers\.\d+)\.self_attn\.grep_a", r"\1.attention.gru_rel_pos_const"),
    (r"(encoder\.layers\.\d+)\.self_attn\.relative_attention_bias\.(.+)", r"\1.attention.rel_attn_embed.\2"),
    (r"(encoder\.layers\.\d+)\.self_attn_layer_norm\.(.+)", r"\1.layer_norm.\2"),
    (r"(encoder\.layers\.\d+)\.fc1\.(.+)", r"\1.feed_forward.intermediate_dense.\2"),
    (r"(encoder\.layers\.\d+)\.fc2\.(.+)", r"\1.feed_forward.output_dense.\2"),
    (r"(encoder\.layers\.\d+\.final_layer_norm\..+)", r"\1"),
)
REQUIRED = {"normalize_embed": True, "use_weighted_layer_sum": True, "nth_layer": NUM_LAYERS, "output_dim": 1}
"""What the file's own settings must say where they say anything; nothing else was ever published."""


def aesthetics_wave(sound: Float[Tensor, "C N"], sample_rate: int) -> Tensor:
    """Sound of any number of channels -> mono at 16 kHz. Raises ValueError for no sound at all."""
    if sound.shape[-1] == 0:
        raise ValueError("no sound: Audiobox Aesthetics takes at least one sample")
    return resample(sound.mean(0), sample_rate, SAMPLE_RATE, HANN)


def windows(wave: Float[Tensor, " n"]) -> tuple[Float[Tensor, "B 160000"], Int[Tensor, " B"]]:
    """Sound at 16 kHz in windows of 10 s, one after the other, and the samples of each that are sound.

    The last one is padded with zeros. Frames behind the sound are left out, but the padding counts: the
    trunk's first norm is over all of a window's time.
    """
    parts = wave.split(NUM_SAMPLES)
    rows = torch.stack([F.pad(part, (0, NUM_SAMPLES - len(part))) for part in parts])
    return rows, torch.tensor([len(part) for part in parts])


def num_frames(samples: int) -> int:
    """Frames that the trunk makes of a window."""
    return (samples - FIRST_FRAME) // FRAME + 1


def valid_frames(valid: Int[Tensor, " B"], samples: int) -> Int[Tensor, " B"]:
    """Frames of a window of `samples` that have any of its first `valid` samples in them."""
    return (-(-valid // FRAME)).clamp(1, num_frames(samples))


class Aesthetics(nn.Module):
    """Trunk and four heads, frozen: each head weighs the trunk's layers by itself."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: WavLMConfig, heads: Mapping[str, nn.Sequential]) -> None:
        super().__init__()
        self.trunk = WavLMModel(config)
        layers = config.num_hidden_layers + 1
        self.layer_weights = nn.ParameterDict({axis: torch.zeros(layers) for axis in AXES})
        self.proj_layer = nn.ModuleDict(heads)

    def forward(self, waves: Float[Tensor, "B N"], valid: Int[Tensor, " B"]) -> Float[Tensor, "B A"]:
        """Windows and how many of their samples are sound -> ratings before `target_transform`."""
        frames = valid_frames(valid, waves.shape[1])  # (B,)
        # Trap: of a mask of samples the trunk keeps one frame less, as its last convolutions do not fit.
        mask = torch.arange(waves.shape[1], device=valid.device) < FIRST_FRAME + FRAME * (frames - 1)[:, None]
        out = self.trunk(waves, attention_mask=mask.long(), output_hidden_states=True)
        states = torch.stack(out.hidden_states)  # (L, B, T, D)
        kept = torch.arange(states.shape[2], device=valid.device) < frames[:, None]
        means = (states * kept[..., None]).sum(2) / frames[:, None]  # (L, B, D)
        ratings = [self._rate(axis, means) for axis in AXES]
        return torch.cat(ratings, dim=1)

    def _rate(self, axis: str, means: Float[Tensor, "L B D"]) -> Float[Tensor, "B 1"]:
        weights = self.layer_weights[axis].softmax(0)
        vectors = torch.einsum("l,lbd->bd", weights, means)
        return self.proj_layer[axis](F.normalize(vectors, dim=-1))

    @torch.inference_mode()
    def rate_sounds(self, sounds: Sequence[tuple[np.ndarray, int]]) -> Tensor:
        """Sounds (C, N) with their rates in Hz -> ratings (len(sounds), A), about 1 to 10, on the CPU.

        A sound's rating is the mean of its windows', weighed by how much of each is sound.
        """
        cut = [windows(aesthetics_wave(torch.from_numpy(sound), rate)) for sound, rate in sounds]
        if not cut:
            return torch.zeros(0, len(AXES))
        waves, valid = (torch.cat(parts) for parts in zip(*cut))
        chunks = zip(waves.split(ROWS_AT_ONCE), valid.split(ROWS_AT_ONCE))
        raw = torch.cat([self(w.to(self.mean.device), n.to(self.mean.device)).cpu() for w, n in chunks])
        weighed = (raw * self.std.cpu() + self.mean.cpu()) * valid[:, None]
        lengths = [len(n) for _, n in cut]
        pairs = zip(weighed.split(lengths), valid.split(lengths))
        return torch.stack([part.sum(0) / n.sum() for part, n in pairs])


def load_aesthetics(weights: str = "", folder: Path | str | None = None) -> Aesthetics:
    """The published file, or the file or repository `weights`; ValueError says what is missing."""
    path = weights_path(weights, NAME, folder)
    state = load_published(path if weights else NAME, folder)
    return build_aesthetics(state, file_settings(path))


def build_aesthetics(state: Mapping[str, Tensor], about: Mapping[str, Any]) -> Aesthetics:
    """The network around an official state dict, sizes read off it, in eval mode without gradients.

    `about` is what `file_settings` read. Raises ValueError when a weight is missing, unknown or of another
    shape, or when the file describes another network.
    """
    mean, std = _statistics(about)
    renamed, unknown = to_transformers(state)
    with torch.device("meta"):
        network = Aesthetics(_config(renamed), {axis: _head(renamed, axis) for axis in AXES})
    fill(network, renamed, unknown, "Audiobox Aesthetics", f"give {NAME} or facebook/audiobox-aesthetics")
    network.register_buffer("mean", mean, persistent=False)
    network.register_buffer("std", std, persistent=False)
    return network


def file_settings(path: Path) -> dict[str, Any]:
    """What a file of weights says beside them: `target_transform` and the network's settings.

    It stands inside `checkpoint.pt`, and in `config.json` beside a safetensors file. Raises ValueError.
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
    said = loaded if isinstance(loaded, dict) else {}
    return {**said.get("model_cfg", {}), "target_transform": said.get("target_transform")}


def to_transformers(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """An official state dict under our names, and the names that were not understood."""
    renamed: dict[str, Tensor] = {}
    unknown = []
    for name, value in state.items():
        inner = name.removeprefix(TRUNK)
        if name.startswith(("layer_weights.", "proj_layer.")):
            renamed[name] = value
        elif inner != name and (rule := next((r for r in TRUNK_NAMES if re.fullmatch(r[0], inner)), None)):
            renamed["trunk." + re.sub(*rule, inner)] = value
        else:
            unknown.append(name)
    return renamed, unknown


def _config(state: Mapping[str, Tensor]) -> WavLMConfig:
    """The trunk's sizes by the shapes of its weights; strides are those of every WavLM."""
    attention = "trunk.encoder.layers.0.attention."
    inner = state.get("trunk.encoder.layers.0.feed_forward.intermediate_dense.weight")
    buckets = state.get(f"{attention}rel_attn_embed.weight")
    position = state.get("trunk.encoder.pos_conv_embed.conv.parametrizations.weight.original1")
    convs = [
        value
        for name, value in state.items()
        if re.fullmatch(r"trunk\.feature_extractor.+\.conv\.weight", name)
    ]
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
    """An axis's MLP with its official numbering: linear, perhaps a norm, then GELU and perhaps dropout."""
    prefix = f"proj_layer.{axis}."
    found = {int(name.split(".")[2]): value for name, value in state.items() if name.startswith(prefix)}
    weights = {index: state.get(f"{prefix}{index}.weight") for index in range(max(found, default=-1) + 1)}
    layers: list[nn.Module] = []
    for weight in weights.values():
        if weight is None:  # without weights: the first is the GELU, what may follow the dropout
            layers.append(nn.Identity() if layers and isinstance(layers[-1], nn.GELU) else nn.GELU())
        elif weight.ndim == 1:
            layers.append(nn.LayerNorm(len(weight)))
        else:
            layers.append(nn.Linear(weight.shape[1], weight.shape[0]))
    return nn.Sequential(*layers)


def _statistics(about: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the people's ratings by axis, (A,) each."""
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
