"""Identify a checkpoint by the names and shapes of its tensors.

The result for a published network equals the `role` of its file in `registry.py`, up to the first comma; the
rest of a role cannot be seen in names and shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

VARIANTS = {
    (448, 20, 4, 8, False): "small-16k",
    (448, 40, 4, 8, False): "small-44k",
    (896, 40, 4, 8, False): "medium-44k",
    (896, 40, 7, 14, False): "large-44k",
    (896, 40, 7, 14, True): "large-44k-v2",
}
"""MMAudio: hidden width, latent channels, joint blocks, fused blocks, whether it is of version 2."""

VAES = {(80, 384): "16k", (128, 512): "44k"}
"""MMAudio's VAE: mel bins and hidden width."""

VOCODERS = {(1536, 80, 8): "16k", (1536, 128, 16): "44k"}
"""BigVGAN: first width, mel bins, kernel of the first upsampling."""

UNKNOWN = "unknown checkpoint"
_IDENTIFIABLE = ("MMAudio", "BigVGAN", "Synchformer", "CLIP ViT", "ImageBind", "PANNs", "PaSST", "VGGish")
"""Beginnings of roles that `identify` always recognises, because the names of all their tensors are known."""
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "vae.", "generator.")  # around a whole network
_UNIQUE_KEYS = {
    "modality_preprocessors.vision.cls_token": "ImageBind huge",
    "c1_embedder.mlp.0.weight": "Make-An-Audio 2",
    "c_embedder.mlp.3.weight": "Frieren",
    "video_project_head.weight": "CAVP",
    "freq_new_pos_embed": "PaSST",
    "wavlm_model.mask_emb": "Audiobox Aesthetics",
}
"""Ends of keys that only one network has."""

Shapes = Mapping[str, tuple[int, ...]]


def identify(state: Mapping[str, Tensor] | Path | str) -> str:
    """Return what a state dict, or a file with one, holds: `MMAudio 44k VAE`, `CLIP ViT-H/14-378`, …

    An unpublished size of a known network is described by its figures, an unknown network by its first
    tensors. Raises ValueError if a file does not read as a checkpoint.
    """
    if isinstance(state, Path | str):
        from foleypref.published.reading import read_state  # brings torch

        state = read_state(state)
    shapes = {key: tuple(tensor.shape) for key, tensor in without_wrapper(state).items()}
    for rule in _RULES:
        if role := rule(shapes):
            return role
    first = ", ".join(f"{key} {shape}" for key, shape in list(shapes.items())[:3])
    return f"{UNKNOWN}, {len(shapes)} tensors: {first or 'none'}"


def without_wrapper(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict without the prefixes that DDP, torch.compile or a pipeline put before all names."""
    state = dict(state)
    for prefix in _PREFIXES * 2:  # twice: they nest
        if state and all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def could_be(identified: str, role: str) -> bool:
    """Return whether a checkpoint identified as `identified` may have `role`, as far as tensors can tell.

    An unknown checkpoint may be any network that `identify` does not always recognise.
    """
    if identified.startswith(UNKNOWN):
        return not role.startswith(_IDENTIFIABLE)
    return identified.split(",")[0] == role.split(",")[0]


def _adapter(shapes: Shapes) -> str | None:
    is_adapter = any("lora_A." in key or ".lora_down." in key for key in shapes)
    return "LoRA adapter, no whole network" if is_adapter else None


def _mmaudio(shapes: Shapes) -> str | None:
    first, time = shapes.get("audio_input_proj.0.weight"), shapes.get("t_embed.mlp.0.weight")
    if first is None or len(first) != 3 or time is None:
        return None
    joint, fused = (_count(shapes, prefix) for prefix in ("joint_blocks.", "fused_blocks."))
    is_v2 = "clip_input_proj.2.w1.weight" in shapes
    variant = VARIANTS.get((first[0], first[1], joint, fused, is_v2))
    if variant:
        return f"MMAudio {variant} network"
    version = "version 2" if is_v2 else "version 1"
    return (
        f"MMAudio network of an unpublished size, width {first[0]}, {first[1]} latent channels, "
        f"{joint} joint and {fused} fused blocks, {version}"
    )


def _vae(shapes: Shapes) -> str | None:
    if "encoder.learnable_gain" not in shapes and "decoder.learnable_gain" not in shapes:
        return None
    width, bins = (shapes.get("encoder.conv_in.weight") or (0, 0, 0))[:2]
    rate, other = VAES.get((bins, width)), f"of an unpublished size, {bins} mel bins, width {width}"
    return f"MMAudio {rate} VAE" if rate else f"MMAudio VAE {other}"


def _vocoder(shapes: Shapes) -> str | None:
    first, up = _weight(shapes, "conv_pre"), _weight(shapes, "ups.0.0")
    if first is None or up is None or len(first) != 3 or len(up) != 3:
        return None
    rate = VOCODERS.get((first[0], first[1], up[2]))
    if rate:
        return f"BigVGAN {rate} vocoder"
    return f"BigVGAN vocoder of another size, {first[1]} mel bins, width {first[0]}, first kernel {up[2]}"


def _synchformer(shapes: Shapes) -> str | None:
    if "vfeat_extractor.patch_embed_3d.proj.weight" not in shapes:
        return None
    width = shapes["vfeat_extractor.patch_embed_3d.proj.weight"][0]
    if width != 768:
        return f"Synchformer of an unpublished size, width {width}"
    whole = any(key.startswith("afeat_extractor.") for key in shapes)
    return "Synchformer" if whole else "Synchformer, visual half only"


def _clip(shapes: Shapes) -> str | None:
    if any(key.startswith(("vision_model.encoder.", "text_model.encoder.")) for key in shapes):
        return "CLIP in the key names of transformers"
    places, patch = shapes.get("visual.positional_embedding"), shapes.get("visual.conv1.weight")
    if places is None or patch is None or "visual.class_embedding" not in shapes:
        return None
    if places == (730, 1280) and patch == (1280, 3, 14, 14):
        return "CLIP ViT-H/14-378"
    side = round((places[0] - 1) ** 0.5) * patch[-1]
    return f"CLIP of another size, width {patch[0]}, patch {patch[-1]}, {side} pixels"


def _by_one_key(shapes: Shapes) -> str | None:
    for end, role in _UNIQUE_KEYS.items():
        if any(key == end or key.endswith(f".{end}") for key in shapes):
            return role
    is_vae = "quant_conv.weight" in shapes and shapes.get("encoder.conv_in.weight") == (384, 80, 5)
    return "Frieren VAE" if is_vae else None


def _audio_tagger(shapes: Shapes) -> str | None:
    if "fc_audioset.weight" in shapes and "conv_block6.conv1.weight" in shapes:
        fft_bins = (shapes.get("logmel_extractor.melW") or (0,))[0]
        return {257: "PANNs Cnn14 16k", 513: "PANNs Cnn14 32k"}.get(fft_bins, "PANNs Cnn14 of another rate")
    if shapes.get("embeddings.0.weight") == (4096, 12288):
        return "VGGish"
    htsat = any(key.endswith("attn.relative_position_bias_table") for key in shapes)
    return "CLAP" if htsat and any(key.endswith("logmel_extractor.melW") for key in shapes) else None


def _features(shapes: Shapes) -> str | None:
    is_features = 0 < len(shapes) <= 4 and all(shape[-2:] == (77, 1024) for shape in shapes.values())
    return "CLIP features of the empty string" if is_features else None


def _count(shapes: Shapes, prefix: str) -> int:
    """Count the numbered blocks under `prefix`."""
    return len({key.removeprefix(prefix).split(".")[0] for key in shapes if key.startswith(prefix)})


def _weight(shapes: Shapes, layer: str) -> tuple[int, ...] | None:
    """Return the shape of a layer's weight, folded or in either spelling of weight norm."""
    for name in ("weight", "weight_v", "parametrizations.weight.original1"):
        if f"{layer}.{name}" in shapes:
            return shapes[f"{layer}.{name}"]
    return None


_RULES = (_adapter, _mmaudio, _vae, _vocoder, _synchformer, _clip, _by_one_key, _audio_tagger, _features)
