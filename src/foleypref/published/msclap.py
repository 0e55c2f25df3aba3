"""Microsoft's CLAP of 2023: how well a sound fits a text, from `CLAP_weights_2023.pth`.

HTSAT-tiny and GPT-2 are those of `transformers`; weights are named as in the official file. The front end is
that of the `msclap` package, quirks included, but for one: of sound beyond 7 s it takes the middle, where the
package takes another random part each time, so that its scores of 8 s clips never repeat.

Letters: B sounds or texts, C channels, N samples, T tokens (77), D GPT-2's width, E the joint space (1024).
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
from transformers import ClapAudioModel, GPT2Config, GPT2Model

from foleypref.networks.resample import HANN, resample
from foleypref.published.filling import fill
from foleypref.published.htsat import HtsatMel, below, htsat_config, htsat_to_transformers
from foleypref.published.hub_files import weights_path
from foleypref.published.text_tokens import GPT2, ByteLevelTokens, load_tokens
from foleypref.published.weights import load_published

NAME = "CLAP_weights_2023.pth"
SAMPLE_RATE = 44100
NUM_SAMPLES = 7 * SAMPLE_RATE
MEL_RATE, HOP = 32000, 320  # Trap: the filters are HTSAT's own for 32 kHz, whatever the sound's rate
NUM_TOKENS = 77
PAD = 0  # Trap: it is "!" as well
END_OF_TEXT = " <|endoftext|>"  # the space before it is a token of its own
HEAD_WIDTH = 64  # of every GPT-2

AUDIO, TEXT = "audio_encoder.base.htsat.", "caption_encoder.base."
PROJECTION = re.compile(r"(?P<tower>audio|caption)_encoder\.projection\.(?P<part>.+)")
UNUSED = re.compile(r"logit_scale|caption_encoder\.base\.h\.\d+\.attn\.(bias|masked_bias)")  # causal masks


def msclap_wave(sound: Float[Tensor, "C N"], sample_rate: int) -> Float[Tensor, " 308700"]:
    """Exactly 7 s at 44.1 kHz: channels one after the other, tiled if that is shorter, else its middle.

    Trap: channels are not mixed, so 8 s of stereo are 16 s, of which the middle has both. Raises ValueError
    for no sound at all.
    """
    if sound.shape[-1] == 0:
        raise ValueError("no sound: CLAP takes at least one sample")
    wave = resample(sound, sample_rate, SAMPLE_RATE, HANN).reshape(-1)
    if len(wave) > NUM_SAMPLES:
        start = (len(wave) - NUM_SAMPLES) // 2
        return wave[start : start + NUM_SAMPLES]
    return wave.repeat(-(-NUM_SAMPLES // len(wave)))[:NUM_SAMPLES]


def gpt2_ids(tokens: ByteLevelTokens, texts: Sequence[str]) -> Int[Tensor, "B 77"]:
    """Words and the end of text, then 0, 77 ids a text; a text too long is cut and its last id is the end."""
    rows = torch.full((len(texts), NUM_TOKENS), PAD, dtype=torch.int64)
    for row, text in zip(rows, texts):
        ids = tokens.encode(text + END_OF_TEXT)
        ids = [*ids[: NUM_TOKENS - 1], ids[-1]] if len(ids) > NUM_TOKENS else ids
        row[: len(ids)] = torch.tensor(ids)
    return rows


class _Projection(nn.Module):
    """Two linear layers around a GELU, the second a residual, then LayerNorm."""

    def __init__(self, width: int, joint: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(width, joint, bias=False)
        self.linear2 = nn.Linear(joint, joint, bias=False)
        self.layer_norm = nn.LayerNorm(joint)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear1(x)
        return self.layer_norm(x + self.linear2(F.gelu(x)))


class _Towers(nn.Module):
    def __init__(self, audio: ClapAudioModel, text: GPT2Model, joint: int) -> None:
        super().__init__()
        self.audio, self.caption = audio, text
        self.audio_projection = _Projection(audio.config.hidden_size, joint)
        self.caption_projection = _Projection(text.config.n_embd, joint)


class MSClap(nn.Module):
    """Both towers and their projections, frozen. Embeddings are not of length 1; scores are their cosines."""

    def __init__(self, towers: _Towers) -> None:
        super().__init__()
        self.towers = towers
        self.mel = HtsatMel(MEL_RATE, HOP)

    def embed_audio(self, waves: Float[Tensor, "B 308700"]) -> Float[Tensor, "B E"]:
        """7 s at 44.1 kHz -> (B, E)."""
        pooled = self.towers.audio(input_features=self.mel(waves)).pooler_output
        return self.towers.audio_projection(pooled)

    def embed_text(self, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B E"]:
        """Padded ids -> (B, E), from the state of the last token.

        Trap: its place is counted by ids that are not 0, and "!" is 0: each one in a text moves it forward.
        """
        states = self.towers.caption(input_ids=ids).last_hidden_state  # (B, T, D), causal: padding unseen
        last = ids.ne(PAD).sum(1) - 1
        return self.towers.caption_projection(states[torch.arange(len(ids)), last])


class LoadedMSClap:
    """A model with its tokens on a device: sounds and texts in, embeddings out."""

    def __init__(self, model: MSClap, tokens: ByteLevelTokens, device: torch.device | str = "cpu") -> None:
        self.model, self.tokens, self.device = model.to(device), tokens, torch.device(device)

    def wave(self, sound: np.ndarray, sample_rate: int) -> Float[Tensor, " 308700"]:
        """Sound (C, N) as the model hears it."""
        return msclap_wave(torch.from_numpy(sound), sample_rate)

    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "B E"]:
        """Texts -> (B, E), on the CPU."""
        return self.model.embed_text(gpt2_ids(self.tokens, texts).to(self.device)).cpu()


def load_msclap(
    weights: str = "", folder: Path | str | None = None, device: torch.device | str = "cpu"
) -> LoadedMSClap:
    """The published file, or the file `weights`, with GPT-2's tokens. Raises ValueError."""
    tokens = load_tokens(GPT2, folder)
    state = load_published(weights_path(weights, NAME, folder) if weights else NAME, folder)
    return LoadedMSClap(build_msclap(state), tokens, device)


def build_msclap(state: Mapping[str, Tensor]) -> MSClap:
    """The model around an official state dict, frozen, its sizes read off the tensors.

    Raises ValueError when a weight is missing, unknown or of another shape.
    """
    renamed, unknown = to_transformers(state)
    words, places = (renamed.get(f"caption.{name}.weight") for name in ("wte", "wpe"))
    joint = renamed.get("audio_projection.linear1.weight")
    if words is None or places is None or joint is None:
        raise ValueError(f"not the weights of Microsoft's CLAP of 2023: no GPT-2 in it; give {NAME}")
    config = GPT2Config(
        vocab_size=words.shape[0],
        n_embd=words.shape[1],
        n_positions=places.shape[0],
        n_layer=len({name.split(".")[2] for name in renamed if name.startswith("caption.h.")}),
        n_head=words.shape[1] // HEAD_WIDTH,
        bos_token_id=None,
        eos_token_id=None,
    )
    with torch.device("meta"):
        audio = ClapAudioModel(htsat_config(below(renamed, "audio.")))
        towers = _Towers(audio, GPT2Model(config), joint.shape[0])
    return MSClap(fill(towers, renamed, unknown, "Microsoft's CLAP of 2023", f"give {NAME}")).eval()


def to_transformers(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """An official state dict under our names, and the names that were not understood."""
    tower, unknown = htsat_to_transformers(below(state, AUDIO))
    unknown = [AUDIO + name for name in unknown]
    renamed = {f"audio.{name}": value for name, value in tower.items()}
    for name, value in state.items():
        projection = PROJECTION.fullmatch(name)
        if projection:
            renamed[f"{projection['tower']}_projection.{projection['part']}"] = value
        elif UNUSED.fullmatch(name) or name.startswith(AUDIO):
            continue
        elif name.startswith(TEXT):
            renamed["caption." + name.removeprefix(TEXT)] = value
        else:
            unknown.append(name)
    return renamed, unknown
