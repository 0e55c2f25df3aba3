"""The CLIP towers that condition MMAudio: frame vectors and prompt tokens, from an OpenCLIP state dict.

The towers are those of `transformers`; the weights are named as in `open_clip_pytorch_model.bin` of
apple/DFN5B-CLIP-ViT-H-14-384 (which the hub now calls -378).

Letters: N frames, B prompts, T tokens (77), D width of the text tower, E width of the joint space.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

from foleypref.published.filling import fill

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
UNUSED = ("text_projection", "logit_scale")  # of the contrastive loss: in the file, no part of a condition

BLOCK = re.compile(r"transformer\.resblocks\.(?P<index>\d+)\.(?P<part>.+)")
BLOCK_NAMES = {  # the part's name
    "ln_1.weight": "layer_norm1.weight",
    "ln_1.bias": "layer_norm1.bias",
    "attn.out_proj.weight": "self_attn.out_proj.weight",
    "attn.out_proj.bias": "self_attn.out_proj.bias",
    "ln_2.weight": "layer_norm2.weight",
    "ln_2.bias": "layer_norm2.bias",
    "mlp.c_fc.weight": "mlp.fc1.weight",
    "mlp.c_fc.bias": "mlp.fc1.bias",
    "mlp.c_proj.weight": "mlp.fc2.weight",
    "mlp.c_proj.bias": "mlp.fc2.bias",
}
TEXT_NAMES = {
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
IMAGE_NAMES = {  # below `visual.`
    "class_embedding": "embeddings.class_embedding",
    "positional_embedding": "embeddings.position_embedding.weight",
    "conv1.weight": "embeddings.patch_embedding.weight",
    "ln_pre.weight": "pre_layrnorm.weight",
    "ln_pre.bias": "pre_layrnorm.bias",
    "ln_post.weight": "post_layernorm.weight",
    "ln_post.bias": "post_layernorm.bias",
}


@dataclasses.dataclass(frozen=True)
class ClipSizes:
    """Sizes of both towers, which OpenCLIP weights do not state; the defaults are DFN5B ViT-H/14-378."""

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
    """Frames as read, (N, 384, 384, 3) uint8, to the image tower's input (N, 3, 384, 384)."""
    mean, std = (torch.tensor(x, device=frames.device)[:, None, None] for x in (MEAN, STD))
    return (frames.movedim(-1, -3) / 255 - mean) / std


class ClipEncoders(nn.Module):
    """Both towers, frozen: `encode_text` and `encode_image` give what MMAudio is conditioned on."""

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
        """Zero-padded token ids (B, 77) -> all states after the last LayerNorm, (B, 77, D), each of length 1.

        No attention mask: MMAudio reads the padding's states too, and a mask or another padding changes them.
        """
        states = self.text(input_ids=ids).last_hidden_state
        return F.normalize(states, dim=-1) if normalize else states

    def encode_image(self, frames: Tensor, normalize: bool = True) -> Tensor:
        """Normalised frames (N, 3, H, W) -> (N, E), each of length 1; H and W the tower's or a bit larger.

        Frames of 384 lose their last 6 rows and columns: patches of 14 pixels end at 378, there as here.
        Raises ValueError when H or W holds another number of patches than the tower has positions for.
        """
        side, patch = self.sizes.image_size, self.sizes.patch_size
        height, width = frames.shape[-2:]
        if height // patch != side // patch or width // patch != side // patch:
            raise ValueError(
                f"frames are {height}x{width}, the image tower takes {side} pixels a side and at most "
                f"{patch - 1} more, which it leaves out; resize them (MMAudio: to 384x384)"
            )
        vectors = self.image(pixel_values=frames[..., :side, :side]).image_embeds
        return F.normalize(vectors, dim=-1) if normalize else vectors


def load_clip(state: Mapping[str, Tensor], sizes: ClipSizes | None = None) -> ClipEncoders:
    """Both towers from an OpenCLIP state dict, in eval mode, without gradients; float32 is used in place.

    Raises ValueError when a weight is missing, unknown or of another shape.
    """
    with torch.device("meta"):
        encoders = ClipEncoders(sizes or ClipSizes())
    renamed, unknown = to_transformers(state)
    advice = "give open_clip_pytorch_model.bin of apple/DFN5B-CLIP-ViT-H-14-384"
    fill(encoders, renamed, unknown, "this CLIP", advice)
    for module in encoders.modules():
        positions = getattr(module, "position_ids", None)
        if isinstance(positions, Tensor):  # no weight, so still without memory
            module.position_ids = torch.arange(positions.shape[-1])[None]
    return encoders


def to_transformers(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """An OpenCLIP state dict under the names of `ClipEncoders`, and the names that were not understood."""
    renamed: dict[str, Tensor] = {}
    unknown = []
    for name, value in state.items():
        inner = name.removeprefix("visual.")
        tower, names = ("text.", TEXT_NAMES) if inner == name else ("image.vision_model.", IMAGE_NAMES)
        block = BLOCK.fullmatch(inner)
        if name == "visual.proj":
            renamed["image.visual_projection.weight"] = value.T.contiguous()  # x @ proj there, Linear here
        elif inner in names:
            renamed[tower + names[inner]] = value
        elif block and block["part"] in BLOCK_NAMES:
            renamed[f"{tower}encoder.layers.{block['index']}.{BLOCK_NAMES[block['part']]}"] = value
        elif block and block["part"].startswith("attn.in_proj_") and len(value) % 3 == 0:
            kind = block["part"].removeprefix("attn.in_proj_")
            for letter, third in zip("qkv", value.chunk(3)):
                renamed[f"{tower}encoder.layers.{block['index']}.self_attn.{letter}_proj.{kind}"] = third
        elif name not in UNUSED:
            unknown.append(name)
    return renamed, unknown
