"""Parts that the CLAPs of LAION and Microsoft share: the audio tower HTSAT (arXiv 2202.00874) and its use.

The tower is `transformers`' own; the weights are named as in the official files.
Letters: B sounds, N samples, T frames, M mel bands (64).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import ClapAudioConfig

from foleypref.networks.mel_basis import slaney_basis
from foleypref.published.filling import rule

N_FFT, MELS = 1024, 64
F_MIN, F_MAX = 50.0, 14000.0  # Hz. Trap: ClapFeatureExtractor's own default starts at 0
FLOOR = 1e-10  # of power: silence is -100 dB

_BLOCK = r"(layers\.\d+\.blocks\.\d+\.)"
TOWER_NAMES = (  # official names, without prefix, to those below `audio_encoder.` of ClapAudioModel
    rule(r"(patch_embed\.(?:proj|norm)\..+|norm\.\w+|layers\.\d+\.downsample\..+)", r"\1"),
    rule(r"bn0\.(.+)", r"batch_norm.\1"),
    rule(_BLOCK + r"norm1\.(\w+)", r"\1layernorm_before.\2"),
    rule(_BLOCK + r"norm2\.(\w+)", r"\1layernorm_after.\2"),
    rule(_BLOCK + r"mlp\.fc1\.(\w+)", r"\1intermediate.dense.\2"),
    rule(_BLOCK + r"mlp\.fc2\.(\w+)", r"\1output.dense.\2"),
    rule(_BLOCK + r"attn\.proj\.(\w+)", r"\1attention.output.dense.\2"),
    rule(_BLOCK + r"attn\.(relative_position_(?:bias_table|index))", r"\1attention.self.\2"),
    rule(
        _BLOCK + r"attn\.qkv\.(\w+)", *(rf"\1attention.self.{part}.\2" for part in ("query", "key", "value"))
    ),
    # the STFT as convolutions, what is computed anew, and the AudioSet classifier
    rule(r"spectrogram_extractor\..+|logmel_extractor\.melW|.+\.attn_mask|(tscam_conv|head)\.(weight|bias)"),
)


class HtsatMel(nn.Module):
    """Decibels in 64 Slaney mel bands, 50 Hz to 14 kHz: (B, N) -> (B, 1, N // hop + 1, 64).

    The filters are built for `sample_rate`, which need not be the sound's.
    """

    basis: Tensor
    window: Tensor

    def __init__(self, sample_rate: int, hop: int) -> None:
        super().__init__()
        self.hop = hop
        basis = slaney_basis(sample_rate, N_FFT, MELS, F_MIN, F_MAX).T.float().contiguous()
        self.register_buffer("basis", basis, persistent=False)
        self.register_buffer("window", torch.hann_window(N_FFT), persistent=False)  # periodic

    def forward(self, wave: Float[Tensor, "B N"]) -> Float[Tensor, "B 1 T M"]:
        """Frames are centred and reflected at the ends; power, not magnitude; no normalisation."""
        spectrum = torch.stft(wave, N_FFT, self.hop, window=self.window, return_complex=True)
        power = spectrum.real.square() + spectrum.imag.square()
        return 10 * (power.mT @ self.basis).clamp(min=FLOOR).log10()[:, None]


class LoadedClap:
    """A CLAP on a device with its front end and its tokens: sounds and texts in, embeddings out.

    `model` has `embed_audio(waves)` and `embed_text(ids)`; `read(sound, sample_rate, seconds)` makes its
    waves and `encode(texts)` its ids.
    """

    def __init__(
        self,
        model: Any,
        device: torch.device,
        read: Callable[[np.ndarray, int, float | None], Tensor],
        encode: Callable[[Sequence[str]], Tensor],
    ) -> None:
        self.model, self.device, self._read, self._encode = model, device, read, encode

    def wave(self, sound: np.ndarray, sample_rate: int, seconds: float | None = None) -> Float[Tensor, " N"]:
        """Return sound (C, N) as the model takes it; `seconds` limits it where the front end has a limit."""
        return self._read(sound, sample_rate, seconds)

    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "B E"]:
        """Embed texts; the result is on the CPU."""
        embedded: Tensor = self.model.embed_text(self._encode(texts).to(self.device))
        return embedded.cpu()


def htsat_config(state: Mapping[str, Tensor]) -> ClapAudioConfig:
    """Read the tower's sizes off the tensors of a ClapAudioModel. Raises ValueError if there are none."""
    patches = state.get("audio_encoder.patch_embed.proj.weight")
    depths: list[int] = []
    heads: list[int] = []
    while (table := state.get(_table(len(depths), 0))) is not None:
        blocks = (block for block in range(len(state)) if _table(len(depths), block) not in state)
        depths.append(next(blocks))
        heads.append(table.shape[1])
    if patches is None or not depths:
        raise ValueError("not the weights of a CLAP: no HTSAT audio tower in it; give CLAP's own file")
    return ClapAudioConfig(
        patch_embeds_hidden_size=len(patches),
        hidden_size=len(patches) * 2 ** (len(depths) - 1),  # each stage after the first doubles the width
        depths=depths,
        num_attention_heads=heads,
        num_hidden_layers=len(depths),
        enable_fusion=False,
    )


def _table(stage: int, block: int) -> str:
    place = f"audio_encoder.layers.{stage}.blocks.{block}."
    return f"{place}attention.self.relative_position_bias_table"
