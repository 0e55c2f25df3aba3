"""The cost of LTX-2, counted on its parts at the sizes that a folder configures, or the released ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foleypref.models.costs import FLOAT16, META, Cost, count, count_pair, meta_tensor
from foleypref.published.ltx2_folder import (
    RELEASED,
    TRANSFORMER,
    Sizes,
    find_folder,
    imported,
    read_config,
    read_sizes,
)
from foleypref.published.places import MissingWeights

BYTES = {"float32": 4, "bfloat16": 2}
_GEMMA_12B = {
    "hidden_size": 3840, "intermediate_size": 15360, "num_hidden_layers": 48, "num_attention_heads": 16,
    "num_key_value_heads": 8, "head_dim": 256, "vocab_size": 262_208,
}  # fmt: skip


@lru_cache
def ltx2_cost(
    folder: str, *, grid: tuple[int, int, int], audio_frames: int, num_tokens: int, dtype: str
) -> Cost:
    """Count the cost of clips of `grid` (F, rows, columns) and `audio_frames` latents.

    Prompts have `num_tokens`; frozen weights have the size of `dtype`. Raises ValueError if diffusers or
    transformers is missing.
    """
    try:
        place = find_folder(folder)
    except MissingWeights:
        place = None
    sizes = read_sizes(place) if place else RELEASED
    config = _config(place, "transformer")
    network, *shallow = (_network(config, layers) for layers in (None, 1, 2))

    def at_size(measure: Callable[[Callable[[], Tensor]], float], rows: int) -> float:
        """Extrapolate from one and two blocks, because all are the same and counting 48 takes a minute."""
        run = partial(_velocity, sizes=sizes, rows=rows, grid=grid, audio=audio_frames, tokens=num_tokens)
        first, second = (measure(partial(run, network)) for network in shallow)
        return first + (network.config.num_layers - 1) * (second - first)

    decoding, encoding = _codecs(place, sizes, grid, audio_frames)
    numbers = grid[0] * grid[1] * grid[2] * sizes.channels + audio_frames * sizes.audio_features
    return Cost(
        features=_features(place, num_tokens),
        network_pass=at_size(count, rows=1),
        decoding=decoding,
        encoding=encoding,
        pair=at_size(count_pair, rows=2),
        feature_bytes=FLOAT16 * num_tokens * (sizes.video_text + sizes.audio_text + 1),
        latent_bytes=FLOAT16 * numbers,
        parameters=sum(p.numel() for p in network.parameters()),
        weight_bytes=BYTES[dtype],
    )


def _network(config: dict[str, Any], num_layers: int | None) -> Any:
    layers = {} if num_layers is None else {"num_layers": num_layers}
    with META:
        return imported(*TRANSFORMER).from_config({**config, **layers})


def _velocity(
    network: Any, sizes: Sizes, *, rows: int, grid: tuple[int, int, int], audio: int, tokens: int
) -> Tensor:
    """Return the sums of both streams' outputs (2,), from which a gradient can be taken."""
    outputs = network(
        hidden_states=meta_tensor(rows, grid[0] * grid[1] * grid[2], sizes.channels),
        audio_hidden_states=meta_tensor(rows, audio, sizes.audio_features),
        encoder_hidden_states=meta_tensor(rows, tokens, sizes.video_text),
        audio_encoder_hidden_states=meta_tensor(rows, tokens, sizes.audio_text),
        timestep=meta_tensor(rows),
        sigma=meta_tensor(rows),
        num_frames=grid[0],
        height=grid[1],
        width=grid[2],
        audio_num_frames=audio,
        return_dict=False,
    )
    return torch.stack([part.sum() for part in outputs])


def _features(place: Path | None, num_tokens: int) -> float:
    """Count Gemma's language half and the connectors on one prompt."""
    text = read_config(place, "text_encoder").get("text_config", {}) if place else _GEMMA_12B
    known = {key: text.get(key, value) for key, value in _GEMMA_12B.items()}
    with META:
        config = imported("transformers", "Gemma3TextConfig")(**known)
        gemma = imported("transformers", "Gemma3TextModel")(config).eval()
        connectors = imported("diffusers.pipelines.ltx2", "LTX2TextConnectors").from_config(
            _config(place, "connectors")
        )
    width = connectors.config.caption_channels * connectors.config.text_proj_in_factor
    mask = torch.ones(1, num_tokens, device=META, dtype=torch.long)
    text_cost = count(lambda: gemma(inputs_embeds=meta_tensor(1, num_tokens, known["hidden_size"])))
    return text_cost + count(lambda: connectors(meta_tensor(1, num_tokens, width), mask))


def _codecs(place: Path | None, sizes: Sizes, grid: tuple[int, int, int], audio: int) -> tuple[float, float]:
    """Count the decoding of latents to frames and sound, and the encoding of frames and mel."""
    vocoder_config = _config(place, "vocoder")
    vocoder_class = vocoder_config.get("_class_name", "LTX2Vocoder")
    with META:
        vae = imported("diffusers", "AutoencoderKLLTX2Video").from_config(_config(place, "vae"))
        audio_vae = imported("diffusers", "AutoencoderKLLTX2Audio").from_config(_config(place, "audio_vae"))
        vocoder = imported("diffusers.pipelines.ltx2", vocoder_class).from_config(vocoder_config)
    frames = sizes.temporal * (grid[0] - 1) + 1
    picture = (vae.config.in_channels, frames, sizes.spatial * grid[1], sizes.spatial * grid[2])
    packed = (sizes.audio_channels, audio, sizes.mel_bins // sizes.MEL_FACTOR)
    mel = (sizes.MEL_FACTOR * (audio - 1) + 1, sizes.mel_bins)
    decoding = (
        count(lambda: vae.decode(meta_tensor(1, sizes.channels, *grid)))
        + count(lambda: audio_vae.decode(meta_tensor(1, *packed)))
        + count(lambda: vocoder(meta_tensor(1, audio_vae.config.output_channels, *mel)))
    )
    encoding = count(lambda: vae.encode(meta_tensor(1, *picture)))
    return decoding, encoding + count(
        lambda: audio_vae.encode(meta_tensor(1, audio_vae.config.in_channels, *mel))
    )


def _config(place: Path | None, part: str) -> dict[str, Any]:
    """Read a part's configuration; {} takes its class's defaults, which are the released LTX-2's."""
    return read_config(place, part) if place else {}
