"""HTSAT, the audio tower of LAION's and Microsoft's CLAP (arXiv 2202.00874): front end and weight names.

The tower is that of `transformers`; the weights are named as in the official files.
Letters: B sounds, N samples, T frames, M mel bands (64).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import ClapAudioConfig

from foleypref.networks.mel import slaney_basis

N_FFT, MELS = 1024, 64
F_MIN, F_MAX = 50.0, 14000.0  # Hz. Trap: ClapFeatureExtractor's own default starts at 0
FLOOR = 1e-10  # of power: silence is -100 dB

BLOCK = re.compile(r"(?P<place>layers\.\d+\.blocks\.\d+\.)(?P<part>.+)")
BLOCK_NAMES = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
    "attn.proj": "attention.output.dense",
}
BLOCK_TABLES = ("relative_position_bias_table", "relative_position_index")  # below `attn.`
SAME_NAME = re.compile(r"patch_embed\.(proj|norm)\..+|norm\.\w+|layers\.\d+\.downsample\..+")
UNUSED = re.compile(  # the STFT as convolutions, what is computed anew, and the AudioSet classifier
    r"spectrogram_extractor\..+|logmel_extractor\.melW|.+\.attn_mask|(tscam_conv|head)\.(weight|bias)"
)


class HtsatMel(nn.Module):
    """Decibels in 64 Slaney mel bands, 50 Hz to 14 kHz: (B, N) -> (B, 1, N // hop + 1, 64).

    `sample_rate` is the one that the filters are built for, which need not be the sound's.
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
        """Centred frames, ends reflected; power, not magnitude; no normalisation."""
        spectrum = torch.stft(wave, N_FFT, self.hop, window=self.window, return_complex=True)
        power = spectrum.real.square() + spectrum.imag.square()
        return 10 * (power.mT @ self.basis).clamp(min=FLOOR).log10()[:, None]


def htsat_config(state: Mapping[str, Tensor]) -> ClapAudioConfig:
    """The tower's sizes, read off the tensors of a ClapAudioModel. Raises ValueError if it has none."""
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


def htsat_to_transformers(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Official names (without prefix) -> those of ClapAudioModel, and the names that were not understood."""
    renamed: dict[str, Tensor] = {}
    unknown = []
    for name, value in state.items():
        block = BLOCK.fullmatch(name)
        part, _, kind = block["part"].rpartition(".") if block else ("", "", "")
        if SAME_NAME.fullmatch(name):
            renamed[name] = value
        elif name.startswith("bn0."):
            renamed[name.replace("bn0.", "batch_norm.", 1)] = value
        elif block and part in BLOCK_NAMES:
            renamed[f"{block['place']}{BLOCK_NAMES[part]}.{kind}"] = value
        elif block and part == "attn" and kind in BLOCK_TABLES:
            renamed[f"{block['place']}attention.self.{kind}"] = value
        elif block and part == "attn.qkv" and len(value) % 3 == 0:
            for word, third in zip(("query", "key", "value"), value.chunk(3)):
                renamed[f"{block['place']}attention.self.{word}.{kind}"] = third
        elif not UNUSED.fullmatch(name):
            unknown.append(name)
    return {f"audio_encoder.{name}": value for name, value in renamed.items()}, unknown


def below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _table(stage: int, block: int) -> str:
    place = f"audio_encoder.layers.{stage}.blocks.{block}."
    return f"{place}attention.self.relative_position_bias_table"
