"""The CLIP towers that condition MMAudio: frame vectors and prompt tokens, from an OpenCLIP state dict.

The towers are `transformers`' own; the weights are named as in `open_clip_pytorch_model.bin` of
apple/DFN5B-CLIP-ViT-H-14-384 (which the hub now calls -378).

Letters: N frames, B prompts, T tokens (77), D width of the text tower, E width of the joint space.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

from foleypref.published.filling import Renamed, fill, prefixed, rename, rule

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
_BLOCK_NAMES = (  # below `transformer.` to below `encoder.`
    rule(r"resblocks\.(\d+)\.ln_([12])\.(weight|bias)", r"layers.\1.layer_norm\2.\3"),
    rule(r"resblocks\.(\d+)\.mlp\.c_fc\.(weight|bias)", r"layers.\1.mlp.fc1.\2"),
    rule(r"resblocks\.(\d+)\.mlp\.c_proj\.(weight|bias)", r"layers.\1.mlp.fc2.\2"),
    rule(r"resblocks\.(\d+)\.attn\.out_proj\.(weight|bias)", r"layers.\1.self_attn.out_proj.\2"),
    rule(
        r"resblocks\.(\d+)\.attn\.in_proj_(\w+)", *(rf"layers.\1.self_attn.{part}_proj.\2" for part in "qkv")
    ),
)
_TEXT_NAMES = (
    rule(r"(token_embedding\.weight)", r"embeddings.\1"),
    rule(r"positional_embedding", r"embeddings.position_embedding.weight"),
    rule(r"ln_final\.(weight|bias)", r"final_layer_norm.\1"),
)
_IMAGE_NAMES = (
    rule(r"(class_embedding)", r"embeddings.\1"),
    rule(r"positional_embedding", r"embeddings.position_embedding.weight"),
    rule(r"conv1\.weight", r"embeddings.patch_embedding.weight"),
    rule(r"ln_pre\.(weight|bias)", r"pre_layrnorm.\1"),
    rule(r"ln_post\.(weight|bias)", r"post_layernorm.\1"),
)
PROJECTION = "image.visual_projection.weight"
NAMES = (  # OpenCLIP's names to those of `ClipEncoders`
    *prefixed(_TEXT_NAMES, "", "text."),
    *prefixed(_BLOCK_NAMES, "transformer.", "text.encoder."),
    *prefixed(_IMAGE_NAMES, "visual.", "image.vision_model."),
    *prefixed(_BLOCK_NAMES, "visual.transformer.", "image.vision_model.encoder."),
    rule(r"visual\.proj", PROJECTION),
    rule(r"text_projection|logit_scale"),  # of the contrastive loss: in the file, no part of a condition
)


@dataclasses.dataclass(frozen=True)
class ClipSizes:
    """Sizes of both towers, which OpenCLIP weights do not state; the defaults are DFN5B ViT-H/14-378's."""

    image_size: int = 378
    patch_size: int = 14
    image_width: int = 1280
    image_depth: int = 32
    image_heads: int = 16
    text_width: int = 1024
    text_depth: int = 24
    text_heads: int = 16
    embed_dim: int = 1024
    num_tokens: int = 77
    vocab_size: int = 49408


def clip_pixels(frames: Tensor) -> Tensor:
    """Convert frames (N, 384, 384, 3) uint8 to the image tower's input (N, 3, 384, 384)."""
    mean, std = (torch.tensor(x, device=frames.device)[:, None, None] for x in (MEAN, STD))
    return (frames.movedim(-1, -3) / 255 - mean) / std


class ClipEncoders(nn.Module):
    """Both towers, frozen: `encode_text` and `encode_image` compute the conditions of MMAudio."""

    def __init__(self, sizes: ClipSizes) -> None:
        super().__init__()
        self.sizes = sizes
        shared: dict[str, Any] = {"projection_dim": sizes.embed_dim, "hidden_act": "quick_gelu"}
        self.text = CLIPTextModel(
            CLIPTextConfig(
                hidden_size=sizes.text_width,
                intermediate_size=4 * sizes.text_width,
                num_hidden_layers=sizes.text_depth,
                num_attention_heads=sizes.text_heads,
                max_position_embeddings=sizes.num_tokens,
                vocab_size=sizes.vocab_size,
                bos_token_id=sizes.vocab_size - 2,
                eos_token_id=sizes.vocab_size - 1,
                **shared,
            )
        )
        self.image = CLIPVisionModelWithProjection(
            CLIPVisionConfig(
                hidden_size=sizes.image_width,
                intermediate_size=4 * sizes.image_width,
                num_hidden_layers=sizes.image_depth,
                num_attention_heads=sizes.image_heads,
                image_size=sizes.image_size,
                patch_size=sizes.patch_size,
                **shared,
            )
        )

    def encode_text(self, ids: Tensor, normalize: bool = True) -> Tensor:
        """Return all states after the last LayerNorm, (B, 77, D), each of length 1, of zero-padded token ids.

        No attention mask: MMAudio reads the padding's states too, and a mask or another padding changes them.
        """
        states = self.text(input_ids=ids).last_hidden_state
        return F.normalize(states, dim=-1) if normalize else states

    def encode_image(self, frames: Tensor, normalize: bool = True) -> Tensor:
        """Embed normalised frames (N, 3, H, W) as (N, E), each of length 1.

        H and W are the tower's or a bit larger: frames of 384 lose their last 6 rows and columns, because
        patches of 14 pixels end at 378, in OpenCLIP too. Raises ValueError if H or W holds another number of
        patches than the tower has positions for.
        """
        side, patch = self.sizes.image_size, self.sizes.patch_size
        height, width = frames.shape[-2:]
        if height // patch != side // patch or width // patch != side // patch:
            raise ValueError(
                f"frames are {height}x{width}; the image tower takes {side} pixels a side and at most "
                f"{patch - 1} more, which it leaves out; resize them (MMAudio: to 384x384)"
            )
        vectors = self.image(pixel_values=frames[..., :side, :side]).image_embeds
        return F.normalize(vectors, dim=-1) if normalize else vectors


def load_clip(state: Mapping[str, Tensor], sizes: ClipSizes | None = None) -> ClipEncoders:
    """Build both frozen towers from an OpenCLIP state dict. Raises ValueError as `fill` does."""
    renamed, unknown = to_transformers(state)
    advice = "give open_clip_pytorch_model.bin of apple/DFN5B-CLIP-ViT-H-14-384"
    encoders = fill(
        lambda: ClipEncoders(sizes or ClipSizes()), renamed, unknown=unknown, role="this CLIP", advice=advice
    )
    for module in encoders.modules():
        positions = getattr(module, "position_ids", None)
        if isinstance(positions, Tensor):  # not a weight, so still on the meta device
            module.position_ids = torch.arange(positions.shape[-1])[None]
    return encoders


def to_transformers(state: Mapping[str, Tensor]) -> Renamed:
    """Rename an OpenCLIP state dict to the names of `ClipEncoders`."""
    renamed = rename(state, NAMES)
    if PROJECTION in renamed.state:
        renamed.state[PROJECTION] = renamed.state[PROJECTION].T.contiguous()  # x @ proj there, Linear here
    return renamed
