"""A folder of LTX-2 in diffusers' layout with a few thousand random weights, read by the real loading code.

Every part is of the released one's class; what is small are the numbers. Latents have means and deviations
of their own, so that a forgotten normalisation shows.
"""

from __future__ import annotations

import atexit
import shutil
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import torch
from torch import nn

from foleypref.flow.convention import generator_of
from foleypref.models.backbones.ltx2 import LTX2

LATENT_CHANNELS, AUDIO_CHANNELS, MEL_BINS = 8, 4, 16
TEXT_WIDTH, TEXT_LAYERS = 16, 2
SETTINGS: dict[str, Any] = {
    "height": 32, "width": 64, "num_frames": 9, "fps": 8.0, "text_tokens": 32,
    "dtype": "float32", "feature_dtype": "float32",
}  # fmt: skip
"""What the tiny parts can do: 9 frames at 8 a second, 5 latent frames of 4 × 8 and 28 of sound."""


def transformer(newer: bool = False) -> nn.Module:
    """Two blocks, video 32 wide, sound 16; `newer` as LTX-2.3: gates, and prompts modulated by time."""
    from diffusers import LTX2VideoTransformer3DModel

    extra = {
        "gated_attn": True, "audio_gated_attn": True, "cross_attn_mod": True, "audio_cross_attn_mod": True,
        "use_prompt_embeddings": False,
    }  # fmt: skip
    return LTX2VideoTransformer3DModel(
        **(extra if newer else {}),
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_attention_heads=2,
        attention_head_dim=16,
        cross_attention_dim=32,
        vae_scale_factors=(2, 8, 8),
        audio_in_channels=AUDIO_CHANNELS * MEL_BINS // 4,
        audio_out_channels=AUDIO_CHANNELS * MEL_BINS // 4,
        audio_num_attention_heads=2,
        audio_attention_head_dim=8,
        audio_cross_attention_dim=16,
        num_layers=2,
        caption_channels=TEXT_WIDTH,
        rope_type="split",
    )


def video_vae() -> nn.Module:
    """8 × 8 pixels and 2 frames to a latent."""
    from diffusers import AutoencoderKLLTX2Video

    return AutoencoderKLLTX2Video(
        latent_channels=LATENT_CHANNELS,
        block_out_channels=(8,),
        down_block_types=("LTX2VideoDownBlock3D",),
        decoder_block_out_channels=(8,),
        layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        spatio_temporal_scaling=(True,),
        decoder_spatio_temporal_scaling=(True,),
        decoder_inject_noise=(False, False),
        downsample_type=("spatiotemporal",),
        upsample_type=("spatiotemporal",),
        upsample_residual=(True,),
        upsample_factor=(1,),
        decoder_causal=False,
        spatial_compression_ratio=8,
        temporal_compression_ratio=2,
    )


def audio_vae() -> nn.Module:
    """Stereo, 16 mel bins; base_channels is the number of a packed latent's features, as released."""
    from diffusers import AutoencoderKLLTX2Audio

    return AutoencoderKLLTX2Audio(
        base_channels=AUDIO_CHANNELS * MEL_BINS // 4,
        ch_mult=(1, 1, 1),
        num_res_blocks=1,
        latent_channels=AUDIO_CHANNELS,
        mel_bins=MEL_BINS,
    )


def vocoder(newer: bool = False) -> nn.Module:
    """24 kHz, 240 samples a mel frame; `newer` makes 16 kHz and widens them to 48."""
    from diffusers.pipelines.ltx2 import LTX2Vocoder, LTX2VocoderWithBWE

    if newer:
        narrow = {"hidden_channels": 8, "upsample_kernel_sizes": [20, 16], "upsample_factors": [10, 16]}
        wide = {"hidden_channels": 8, "upsample_kernel_sizes": [24, 20], "upsample_factors": [12, 20]}
        small = {"resnet_kernel_sizes": [3], "resnet_dilations": [[1, 3, 5]], "in_channels": 2 * MEL_BINS}
        return LTX2VocoderWithBWE(
            **narrow, **small, **{f"bwe_{k}": v for k, v in (wide | small).items()}, num_mel_channels=MEL_BINS
        )
    return LTX2Vocoder(
        in_channels=2 * MEL_BINS,
        hidden_channels=16,
        upsample_kernel_sizes=[24, 20],
        upsample_factors=[12, 20],
        resnet_kernel_sizes=[3],
        resnet_dilations=[[1, 3, 5]],
    )


def connectors(newer: bool = False) -> nn.Module:
    """One block a stream, 8 registers; `newer` gives each stream its own width."""
    from diffusers.pipelines.ltx2 import LTX2TextConnectors

    widths = {"video": 32 if newer else TEXT_WIDTH, "audio": TEXT_WIDTH}
    sizes = {
        f"{stream}_connector_{name}": value
        for stream, width in widths.items()
        for name, value in (
            ("num_attention_heads", 2),
            ("attention_head_dim", width // 2),
            ("num_layers", 1),
            ("num_learnable_registers", 8),
        )
    }
    return LTX2TextConnectors(
        caption_channels=TEXT_WIDTH,
        text_proj_in_factor=TEXT_LAYERS + 1,
        rope_type="split",
        per_modality_projections=newer,
        video_hidden_dim=widths["video"],
        audio_hidden_dim=widths["audio"],
        **sizes,
    )


def text_encoder() -> nn.Module:
    """Gemma 3 with two layers and an eye that nothing uses."""
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    text = {
        "vocab_size": 160, "hidden_size": TEXT_WIDTH, "intermediate_size": 32,
        "num_hidden_layers": TEXT_LAYERS, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8,
        "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2,
    }  # fmt: skip
    eye = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "image_size": 28, "patch_size": 14,
    }  # fmt: skip
    return Gemma3ForConditionalGeneration(
        Gemma3Config(text_config=text, vision_config=eye, mm_tokens_per_image=4)
    )


def tokenizer() -> Any:
    """Gemma's, whose words are single characters."""
    from transformers import GemmaTokenizer

    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    characters = ["▁", *(chr(code) for code in range(33, 127))]
    return GemmaTokenizer(vocab={token: index for index, token in enumerate([*special, *characters])})


def write_folder(folder: Path, *, newer: bool = False) -> Path:
    """All parts in `folder`, seeded: of LTX-2's architecture, or `newer` of LTX-2.3's."""
    from diffusers import FlowMatchEulerDiscreteScheduler, LTX2Pipeline

    parts = {
        "transformer": transformer(newer), "vae": video_vae(), "audio_vae": audio_vae(),
        "vocoder": vocoder(newer), "connectors": connectors(newer), "text_encoder": text_encoder(),
    }  # fmt: skip
    for name, part in parts.items():
        _fill(part, name)
    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, shift_terminal=0.1,
        base_image_seq_len=1024, max_image_seq_len=4096,
    )  # fmt: skip
    pipeline = LTX2Pipeline(scheduler=scheduler, tokenizer=tokenizer(), **parts)
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


@torch.no_grad()
def _fill(part: nn.Module, name: str) -> None:
    """Weights of a size at which everything in a network moves everything behind it."""
    generator = generator_of("tiny LTX-2", name)
    for parameter in part.parameters():
        fan = parameter[0].numel() if parameter.ndim > 1 else 16
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.copy_(noise / fan**0.5 + (1.0 if parameter.ndim == 1 else 0.0))
    for key, parameter in part.named_parameters():
        if key.endswith("timestep_embedder.linear_1.weight"):  # deaf to all but time's slow waves, as trained
            parameter[:, :64], parameter[:, 128:192] = 0.0, 0.0
    for key, buffer in part.named_buffers():
        if key == "latents_mean":
            buffer.copy_(0.5 * torch.randn(buffer.shape, generator=generator))
        if key == "latents_std":
            buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))


@cache
def tiny_folder(newer: bool = False) -> Path:
    """The folder, made once a test run; nothing in it may be changed."""
    root = Path(mkdtemp(prefix="foleypref-ltx2-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    return write_folder(root / "LTX-2", newer=newer)


def tiny_ltx2(**settings: Any) -> LTX2:
    """A loaded LTX-2 of tiny parts."""
    return LTX2(**{"weights_folder": str(tiny_folder()), **SETTINGS, **settings}).load()


def patch_ltx2(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every LTX-2 that is loaded from here on and names no folder is tiny."""
    monkeypatch.setenv("FOLEYPREF_WEIGHTS", str(tiny_folder().parent))
