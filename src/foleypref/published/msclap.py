"""Microsoft's CLAP of 2023: how well a sound fits a text, from `CLAP_weights_2023.pth`.

HTSAT-tiny and GPT-2 are `transformers`' own; weights are named as in the official file. The front end is
that of the `msclap` package, quirks included, with one difference: from sound beyond 7 s it takes the middle.
The package takes another random part each time, so that its scores of 8 s clips never repeat.

Letters: B sounds or texts, C channels, N samples, T tokens (77), D GPT-2's width, E the joint space (1024).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import ClapAudioModel, GPT2Config, GPT2Model

from foleypref.networks.resample import HANN, resample
from foleypref.published.filling import below, fill, prefixed, rename, rule
from foleypref.published.htsat import TOWER_NAMES, HtsatMel, LoadedClap, htsat_config
from foleypref.published.hub_files import load_weights
from foleypref.published.text_tokens import GPT2, ByteLevelTokens, id_rows, load_tokens

NAME = "CLAP_weights_2023.pth"
SAMPLE_RATE = 44100
NUM_SAMPLES = 7 * SAMPLE_RATE
MEL_RATE, HOP = 32000, 320  # Trap: the filters are HTSAT's own for 32 kHz, although the sound has 44.1
NUM_TOKENS = 77
PAD = 0  # Trap: also the id of "!"
END_OF_TEXT = " <|endoftext|>"  # the space before it is a token of its own
HEAD_WIDTH = 64  # of every GPT-2

AUDIO, TEXT = "audio_encoder.base.htsat.", "caption_encoder.base."
NAMES = (  # official names to those of `_Towers`
    *prefixed(TOWER_NAMES, AUDIO, "audio.audio_encoder."),
    rule(r"(audio|caption)_encoder\.projection\.(.+)", r"\1_projection.\2"),
    rule(r"logit_scale|caption_encoder\.base\.h\.\d+\.attn\.(bias|masked_bias)"),  # causal masks
    *prefixed([rule(r"(.+)", r"\1")], TEXT, "caption."),
)


def msclap_wave(sound: Float[Tensor, "C N"], sample_rate: int) -> Float[Tensor, " 308700"]:
    """Return exactly 7 s at 44.1 kHz of all channels one after the other: repeated, or cut to the middle.

    Trap: channels are not mixed, so 8 s of stereo are 16 s, and the middle has some of both. Raises
    ValueError for no sound at all.
    """
    if sound.shape[-1] == 0:
        raise ValueError("no sound: CLAP takes at least one sample")
    wave = resample(sound, sample_rate, SAMPLE_RATE, HANN).reshape(-1)
    if len(wave) > NUM_SAMPLES:
        start = (len(wave) - NUM_SAMPLES) // 2
        return wave[start : start + NUM_SAMPLES]
    return wave.repeat(-(-NUM_SAMPLES // len(wave)))[:NUM_SAMPLES]


def gpt2_ids(tokens: ByteLevelTokens, texts: Sequence[str]) -> Int[Tensor, "B 77"]:
    """Return 77 ids per text: words, end of text, then 0; a text too long is cut before its end."""
    encoded = [tokens.encode(text + END_OF_TEXT) for text in texts]
    cut = [[*ids[: NUM_TOKENS - 1], ids[-1]] if len(ids) > NUM_TOKENS else ids for ids in encoded]
    return id_rows(cut, NUM_TOKENS, PAD)


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
    """Both towers and their projections, frozen. Embeddings have any length; scores are their cosines."""

    def __init__(self, towers: _Towers) -> None:
        super().__init__()
        self.towers = towers
        self.mel = HtsatMel(MEL_RATE, HOP)

    def embed_audio(self, waves: Float[Tensor, "B 308700"]) -> Float[Tensor, "B E"]:
        """Embed 7 s of sound at 44.1 kHz."""
        pooled = self.towers.audio(input_features=self.mel(waves)).pooler_output
        return self.towers.audio_projection(pooled)

    def embed_text(self, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B E"]:
        """Embed texts, given as padded ids, by the state of the last token.

        Trap: its position is the number of ids that are not 0, and "!" is 0: each "!" moves it forward.
        """
        states = self.towers.caption(input_ids=ids).last_hidden_state  # (B, T, D), causal: padding unseen
        last = ids.ne(PAD).sum(1) - 1
        return self.towers.caption_projection(states[torch.arange(len(ids)), last])


def load_msclap(
    weights: str = "", folder: Path | str | None = None, device: torch.device | str = "cpu"
) -> LoadedClap:
    """Load the published file, or the file `weights`, with GPT-2's tokens. Raises ValueError on failure."""
    tokens = load_tokens(GPT2, folder)
    network = build_msclap(load_weights(weights, NAME, folder)).to(device)
    return LoadedClap(
        network,
        torch.device(device),
        read=lambda sound, rate, _: msclap_wave(torch.from_numpy(sound), rate),
        encode=lambda texts: gpt2_ids(tokens, texts),
    )


def build_msclap(state: Mapping[str, Tensor]) -> MSClap:
    """Build the frozen model, of any size, from an official state dict. Raises ValueError as `fill` does."""
    renamed, unknown = rename(state, NAMES)
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
    audio, width, role = htsat_config(below(renamed, "audio.")), joint.shape[0], "Microsoft's CLAP of 2023"
    towers = fill(
        lambda: _Towers(ClapAudioModel(audio), GPT2Model(config), width),
        renamed, unknown=unknown, role=role, advice=f"give {NAME}",
    )  # fmt: skip
    return MSClap(towers).eval()
