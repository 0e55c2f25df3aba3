"""Synchformer: how early or late is the sound? 21 offsets from 14 segments of picture and sound.

Both branches and the head that compares them, with the weight names of `synchformer_state_dict.pth`
(arXiv 2401.16423). The head has a learned position for each of 14 segments' tokens and none for any other.

Letters: B pairs, S segments (14 in the head), F visual tokens of a segment (8), K audio tokens of a segment
(6), L tokens in the head (198), D width, H heads, C classes (21).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from foleypref.networks.synchformer_audio import STEPS, SynchformerAudio
from foleypref.networks.synchformer_visual import FRAMES, SynchformerVisual

HEAD_SEGMENTS = 14
CLASSES, STEPS_A_SECOND = 21, 5  # offsets of -2 to 2 s
TOKENS = 2 + HEAD_SEGMENTS * (FRAMES + STEPS)  # 198


def offset_grid() -> Tensor:
    """Return the classes' offsets in seconds (21,): -2 to 2 in steps of 0.2; positive: the sound is early."""
    return (torch.arange(CLASSES) - CLASSES // 2) / STEPS_A_SECOND  # linspace has no exact 0 in its middle


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.key, self.query, self.value, self.proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor, first: int | None = None) -> Tensor:
        """x (B, L, D) -> same shape, or only its `first` tokens."""
        parts = (self.query(x[:, :first]), self.key(x), self.value(x))
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = _Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, first: int | None = None) -> Tensor:
        x = x[:, :first] + self.attn(self.ln1(x), first)
        return x + self.mlp(self.ln2(x))


class SynchformerHead(nn.Module):
    """[OFF] 14·8 visual tokens [MOD] 14·6 audio tokens through pre-norm blocks; [OFF] is classified."""

    def __init__(self, width: int = 768, depth: int = 3, heads: int = 8) -> None:
        super().__init__()
        self.OFF_tok = nn.Parameter(torch.zeros(1, 1, width))
        self.MOD_tok = nn.Parameter(torch.zeros(1, 1, width))
        self.vis_in_lnorm, self.aud_in_lnorm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.pos_emb_cfg = nn.ParameterDict({"pos_emb": torch.zeros(1, TOKENS, width)})
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(depth))
        self.ln_f = nn.LayerNorm(width)
        self.off_head = nn.Linear(width, CLASSES)

    def forward(self, visual: Tensor, audio: Tensor) -> Tensor:
        """Projected tokens (B, 14·8, D) and (B, 14·6, D) -> logits (B, 21)."""
        off, mod = (token.expand(len(visual), -1, -1) for token in (self.OFF_tok, self.MOD_tok))
        x = torch.cat([off, self.vis_in_lnorm(visual), mod, self.aud_in_lnorm(audio)], dim=1)
        x = x + self.pos_emb_cfg["pos_emb"]  # (B, L, D)
        *before, last = self.blocks
        for block in before:
            x = block(x)
        return self.off_head(self.ln_f(last(x, 1)[:, 0]))  # only [OFF] is read


class Synchformer(nn.Module):
    """Both branches and the head. Widths and depths other than the defaults are for tests."""

    def __init__(
        self, width: int = 768, depth: int = 12, heads: int = 12, head_depth: int = 3, head_heads: int = 8
    ) -> None:
        super().__init__()
        self.vfeat_extractor = SynchformerVisual(width, depth, heads)
        self.afeat_extractor = SynchformerAudio(width, depth, heads)
        self.vproj, self.aproj = nn.Linear(width, width), nn.Linear(width, width)
        self.transformer = SynchformerHead(width, head_depth, head_heads)

    def compare(
        self, visual: Float[Tensor, "B S F D"], audio: Float[Tensor, "B S K D"]
    ) -> Float[Tensor, "B C"]:
        """Tokens of 14 segments of each branch -> logits over `offset_grid()`.

        Raises ValueError for another number of segments: the learned positions are not interpolated.
        """
        if visual.shape[1] != HEAD_SEGMENTS or audio.shape[1] != HEAD_SEGMENTS:
            raise ValueError(
                f"the head compares exactly {HEAD_SEGMENTS} segments (4.8 s), got {visual.shape[1]} of "
                f"picture and {audio.shape[1]} of sound; give it a window of that many"
            )
        return self.transformer(self.vproj(visual.flatten(1, 2)), self.aproj(audio.flatten(1, 2)))
