# ruff: noqa: E501
# fmt: off
"""Deterministic weights and inputs behind the golden vectors in this folder.

The vectors were made by running the official implementations once, in float32 on a CPU, with weights that can be
rebuilt from only a tensor's checkpoint key and shape, so no fixture has to carry a network. Use these functions in tests
to fill a network under test, feed it the same input, and compare. README.md says which file used which rule.
"""

import math
import zlib

import numpy as np
import torch


def mmaudio_weight(key: str, shape) -> torch.Tensor:
    """Rule W1, for every `mmaudio_*` file. `key` is the checkpoint key; vocoders use the `weight_g` / `weight_v` spelling."""
    shape = tuple(int(n) for n in shape)
    x = np.asarray(np.random.RandomState(zlib.crc32(key.encode())).standard_normal(size=shape), dtype=np.float32)
    last = key.rsplit(".", 1)[-1]
    if last == "latent_std":
        x = 1 + np.float32(0.1) * x
    elif last == "weight_g":
        x = np.float32(0.5) + np.float32(0.05) * x
    elif last.endswith("weight") or last == "weight_v":
        x = x / np.float32(math.sqrt(float(np.prod(shape[1:])))) if len(shape) >= 2 else 1 + np.float32(0.1) * x
    else:
        x = np.float32(0.5 if len(shape) >= 2 else 0.1) * x
    return torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32)).reshape(shape)


def mmaudio_input(name: str, shape, scale: float = 1.0) -> torch.Tensor:
    """Rule I1, the inputs of the `mmaudio_*` files that name an input instead of storing it."""
    x = np.random.RandomState(zlib.crc32(("input:" + name).encode())).standard_normal(size=tuple(shape))
    return torch.from_numpy(x.astype(np.float32) * np.float32(scale))


def seeded_normal(key: str, shape) -> torch.Tensor:
    """Standard normal tensor (float32, CPU) that depends only on `key`; base of the Frieren and scorer rules."""
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(zlib.crc32(key.encode())))


def seeded_uniform(key: str, shape) -> torch.Tensor:
    """Uniform [0, 1) tensor (float32, CPU) that depends only on `key`."""
    return torch.rand(tuple(shape), generator=torch.Generator().manual_seed(zlib.crc32(key.encode())))


def frieren_weight(key: str, tensor: torch.Tensor, rule: str) -> torch.Tensor:
    """Rules "a" and "b" of the `frieren_*` files. `key` is the name inside the network's own state dict."""
    if key.endswith(".filter"):
        return tensor.clone()
    if key.endswith("num_batches_tracked"):
        return torch.zeros_like(tensor)
    r = seeded_normal(key, tensor.shape)
    if key.endswith("running_var"):
        return 1 + ((0.02 if rule == "a" else 0.1) * r).abs()
    if rule == "a":
        return 0.02 * r
    if tensor.ndim >= 2:
        return r / math.sqrt(int(np.prod(tensor.shape[1:])))
    return 1 + 0.1 * r if key.endswith(".weight") else 0.1 * r


_POSITIONS_AND_TOKENS = (
    "pos_embed", "pos_emb", "position_embeddings", "temp_embed", "cls_token", "dist_token", "distillation_token",
    "_tok", "bias_k", "bias_v",
)  # fmt: skip
_KEPT = ("spectrogram_extractor", "logmel_extractor", "log_logit_scale", ".mask")


def scorer_weights(state_dict: dict, rule: str, prefix: str = "") -> dict:
    """Rules "A" and "B" of the `scorers_*` files, for a whole state dict. Fixed transforms and masks are kept."""
    filled = {}
    for key, value in state_dict.items():
        if any(part in key for part in _KEPT) or not value.is_floating_point():
            filled[key] = value
            continue
        r = seeded_normal(prefix + key, value.shape)
        if rule == "A":
            weight = 1 + (0.02 * r).abs() if key.endswith("running_var") else 0.02 * r
        elif key.endswith("running_var"):
            weight = 1 + (0.1 * r).abs()
        elif key.endswith(_POSITIONS_AND_TOKENS):
            weight = 0.2 * r
        elif value.ndim >= 2:
            weight = r * (math.sqrt(2 if value.ndim == 4 else 1) / math.sqrt(max(1, value.numel() // value.shape[0])))
        else:
            weight = 1 + 0.1 * r if key.endswith("weight") else 0.1 * r
        filled[key] = weight.float()
    return filled


def wave(seconds: float, sample_rate: int, seed: int, f0: float = 220.0) -> torch.Tensor:
    """Test waveform (samples,), float32, |x| < 1: a tone, a chirp, 4 Hz bursts and noise."""
    n = int(seconds * sample_rate)
    t = np.arange(n, dtype=np.float64) / sample_rate
    x = 0.3 * np.sin(2 * np.pi * f0 * t) + 0.2 * np.sin(2 * np.pi * (300.0 * t + 200.0 * t * t))
    x = x * (0.6 + 0.4 * np.sign(np.sin(2 * np.pi * 4.0 * t)))
    return torch.from_numpy((x + 0.05 * np.random.RandomState(seed).randn(n)).astype(np.float32))


def video_u8(num_frames: int, height: int, width: int, seed: int = 7) -> torch.Tensor:
    """Test video (frames, 3, height, width), uint8: a smooth moving pattern plus noise."""
    t = np.arange(num_frames)[:, None, None, None]
    c = np.arange(3)[None, :, None, None]
    y = np.arange(height)[None, None, :, None] / height
    x = np.arange(width)[None, None, None, :] / width
    v = 127 + 80 * np.sin(2 * np.pi * (3 * x + 0.11 * t + 0.2 * c)) * np.cos(2 * np.pi * (2 * y - 0.07 * t))
    v = v + 20 * np.random.RandomState(seed).randn(num_frames, 3, height, width)
    return torch.from_numpy(np.clip(np.rint(v), 0, 255).astype(np.uint8))


def speechlike(num_samples: int, f0: float = 120.0, seed: int = 0, sample_rate: int = 16000) -> np.ndarray:
    """Test voice (num_samples,), float32: 29 harmonics of f0 gated at 2.5 Hz. Used by the PESQ cases."""
    t = np.arange(num_samples) / sample_rate
    r = np.random.RandomState(seed)
    x = sum(np.sin(2 * np.pi * f0 * k * t + r.rand() * 6.28) / k for k in range(1, 30))
    envelope = (np.sin(2 * np.pi * 2.5 * t) > 0).astype(float)
    window = np.hanning(800)
    envelope = np.convolve(envelope, window / window.sum(), "same")
    return (0.2 * x * envelope / np.abs(x).max()).astype(np.float32)
