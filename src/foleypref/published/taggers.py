"""Sound taggers of the benchmarks, from their official weights: PANNs Cnn14, PaSST and VGGish.

`benchmark_wave` is how av-benchmark reads sound for them and for CLAP; ImageBind, Synchformer and MS-CLAP
read it in other ways.

Letters: C channels, N samples as read, M samples at the network's rate, B sounds, K classes, D features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from foleypref.networks.panns import SIZES, Cnn14, Sizes, Tags, Variant
from foleypref.networks.passt import PaSST
from foleypref.networks.resample import HANN, resample
from foleypref.networks.vggish import VGGish, vggish_patches
from foleypref.published.filling import fill
from foleypref.published.registry import find
from foleypref.published.weights import load_published, locate

PANNS: dict[Variant, str] = {"16k": "Cnn14_16k_mAP=0.438.pth", "32k": "Cnn14_mAP=0.431.pth"}
PASST = "passt-s-f128-p16-s10-ap.476-swa.pt"
VGGISH = "vggish-10086976.pth"

_STFT = "spectrogram_extractor.stft.conv_{}.weight"
WINDOW_TOLERANCE = 1e-3

N = TypeVar("N", bound=nn.Module)


def benchmark_wave(
    channels: Float[np.ndarray, "C N"] | Float[Tensor, "C N"],
    sample_rate: int,
    target_rate: int,
    seconds: float | None = None,
) -> Float[Tensor, " M"]:
    """Mean of all channels, less the mean of the file, at `target_rate`, cut to int(target_rate·seconds).

    The file's mean is that of all samples, before they are resampled and cut. Shorter sound stays short:
    nothing is padded. Raises ValueError for rates and samples that cannot be resampled.
    """
    wave = torch.as_tensor(channels).mean(0)
    wave = resample(wave - wave.mean(), sample_rate, target_rate, HANN) if len(wave) else wave
    return wave if seconds is None else wave[: int(target_rate * seconds)]


# -- running ---------------------------------------------------------------------------------------------


@torch.inference_mode()
def tag(network: Cnn14 | PaSST, waves: Sequence[Tensor], at_once: int = 16) -> Tags:
    """Logits and features of mono sounds of any lengths, a row each, on the CPU; NaN where one is too short.

    Equal lengths go through together, as Cnn14 would read padding as sound.
    """
    device = next(network.parameters()).device
    logits = torch.full((len(waves), network.num_classes), torch.nan)
    features = torch.full((len(waves), network.num_features), torch.nan)
    for length in sorted({len(wave) for wave in waves if len(wave) >= network.min_samples}):
        rows = torch.tensor([row for row, wave in enumerate(waves) if len(wave) == length])
        for chunk in rows.split(at_once):
            found = network(torch.stack([waves[row] for row in chunk]).to(device))
            logits[chunk], features[chunk] = found.logits.cpu(), found.features.cpu()
    return Tags(logits, features)


@torch.inference_mode()
def embed_patches(network: VGGish, waves: Sequence[Tensor], at_once: int = 64) -> list[Tensor]:
    """Embeddings of the 0.96 s patches of mono sounds at 16 kHz, (P, 128) each, on the CPU; P may be 0."""
    device = next(network.parameters()).device
    patches = [vggish_patches(wave.to(device)) for wave in waves]
    chunks = torch.cat(patches).split(at_once) if patches else ()
    found = [network(chunk).cpu() for chunk in chunks if len(chunk)]
    rows = torch.cat(found) if found else torch.zeros(0, network.num_features)
    return list(rows.split([len(part) for part in patches]))


# -- weights ---------------------------------------------------------------------------------------------


def load_panns(variant: Variant = "16k", folder: Path | str | None = None, weights: str = "") -> Cnn14:
    """Cnn14 at 16 or 32 kHz: the published file in `folder`, or the file `weights`. Raises ValueError."""
    return build_panns(_read(PANNS[variant], folder, weights), variant)


def load_passt(folder: Path | str | None = None, weights: str = "") -> PaSST:
    """PaSST: the published file in `folder`, or the file `weights`. Raises ValueError."""
    return build_passt(_read(PASST, folder, weights))


def load_vggish(folder: Path | str | None = None, weights: str = "") -> VGGish:
    """VGGish: the published file in `folder`, or the file `weights`. Raises ValueError."""
    return build_vggish(_read(VGGISH, folder, weights))


def build_panns(state: Mapping[str, Tensor], variant: Variant = "16k") -> Cnn14:
    """Cnn14 around a state dict's tensors, in eval mode without gradients; its mel filters are the file's.

    Raises ValueError when a weight is missing, unknown or of another shape, or when the file's STFT kernels
    are of another window than the one that the network's own front end has.
    """
    _check_window(state, SIZES[variant], PANNS[variant])
    kernels = {_STFT.format(part) for part in ("real", "imag")}
    with torch.device("meta"):
        network = Cnn14(variant)
    return _fill(network, {k: v for k, v in state.items() if k not in kernels}, PANNS[variant])


def build_passt(state: Mapping[str, Tensor]) -> PaSST:
    """PaSST around a state dict's tensors, in eval mode without gradients; ValueError if they do not fit."""
    with torch.device("meta"):
        network = PaSST()
    return _fill(network, state, PASST)


def build_vggish(state: Mapping[str, Tensor]) -> VGGish:
    """VGGish around a state dict's tensors, in eval mode without gradients; ValueError if they do not fit."""
    with torch.device("meta"):
        network = VGGish()
    return _fill(network, state, VGGISH)


def tagger_file(name: str, folder: str, weights: str) -> Path:
    """The file `weights`, or the published one of that name in `folder`. Raises MissingWeights."""
    return Path(weights).expanduser() if weights else locate(name, folder or None)


def _read(name: str, folder: Path | str | None, weights: str) -> dict[str, Tensor]:
    if weights:
        return load_published(Path(weights), role=find(name).role)
    return load_published(name, folder or None)


def _fill(network: N, state: Mapping[str, Tensor], name: str) -> N:
    return fill(network, state, (), find(name).role, f"give {name}")


def _check_window(state: Mapping[str, Tensor], sizes: Sizes, name: str) -> None:
    """The real kernel of frequency 0 is the window itself: was the network trained behind ours?"""
    kernel = state.get(_STFT.format("real"))
    if kernel is None:  # a conversion may have left it out
        return
    found, window = kernel[0].flatten().float(), torch.hann_window(sizes.n_fft)
    if found.shape != window.shape or not torch.allclose(found, window, atol=WINDOW_TOLERANCE):
        raise ValueError(
            f"not the weights of {find(name).role}: its STFT is not under a periodic Hann window of "
            f"{sizes.n_fft} samples, found {len(found)} samples with sum {float(found.sum()):g}; give {name}"
        )
