"""The benchmarks' sound taggers with their official weights: PANNs Cnn14, PaSST and VGGish.

`benchmark_wave` reads sound as av-benchmark does for them and for CLAP; ImageBind, Synchformer and MS-CLAP
read it in other ways.

Letters: C channels, N samples as read, M samples at the network's rate, B sounds, K classes, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from foleypref.networks.panns import SIZES, Cnn14, Sizes, Tags, Variant
from foleypref.networks.passt import PaSST
from foleypref.networks.resample import HANN, resample
from foleypref.networks.vggish import VGGish, vggish_patches
from foleypref.published.filling import N, fill
from foleypref.published.places import locate
from foleypref.published.registry import find
from foleypref.published.weights import load_published

PANNS: dict[Variant, str] = {"16k": "Cnn14_16k_mAP=0.438.pth", "32k": "Cnn14_mAP=0.431.pth"}
PASST = "passt-s-f128-p16-s10-ap.476-swa.pt"
VGGISH = "vggish-10086976.pth"

_STFT = "spectrogram_extractor.stft.conv_{}.weight"
WINDOW_TOLERANCE = 1e-3


def benchmark_wave(
    channels: Float[np.ndarray, "C N"] | Float[Tensor, "C N"],
    sample_rate: int,
    target_rate: int,
    seconds: float | None = None,
) -> Float[Tensor, " M"]:
    """Mix to mono, subtract the file's mean, resample to `target_rate` and cut to int(target_rate·seconds).

    The file's mean is taken over all samples, before resampling and cutting. Shorter sound is not padded.
    Raises ValueError for rates and samples that cannot be resampled.
    """
    wave = torch.as_tensor(channels).mean(0)
    wave = resample(wave - wave.mean(), sample_rate, target_rate, HANN) if len(wave) else wave
    return wave if seconds is None else wave[: int(target_rate * seconds)]


@torch.inference_mode()
def tag(network: Cnn14 | PaSST, waves: Sequence[Tensor], at_once: int = 16) -> Tags:
    """Tag mono sounds of any lengths: logits and features, a row per sound, on the CPU; NaN if too short.

    Only sounds of equal length share a batch, because Cnn14 would read padding as sound.
    """
    device = next(network.parameters()).device
    logits = torch.full((len(waves), network.num_classes), torch.nan)
    features = torch.full((len(waves), network.num_features), torch.nan)
    for length in sorted({len(wave) for wave in waves if len(wave) >= network.min_samples}):
        rows = torch.tensor([row for row, wave in enumerate(waves) if len(wave) == length])
        for chunk in rows.split(at_once):
            tags = network(torch.stack([waves[row] for row in chunk]).to(device))
            logits[chunk], features[chunk] = tags.logits.cpu(), tags.features.cpu()
    return Tags(logits, features)


@torch.inference_mode()
def embed_patches(network: VGGish, waves: Sequence[Tensor], at_once: int = 64) -> list[Tensor]:
    """Embed the 0.96 s patches of mono sounds at 16 kHz: (P, 128) per sound, on the CPU; P may be 0."""
    device = next(network.parameters()).device
    patches = [vggish_patches(wave.to(device)) for wave in waves]
    chunks = torch.cat(patches).split(at_once) if patches else ()
    embedded = [network(chunk).cpu() for chunk in chunks if len(chunk)]
    rows = torch.cat(embedded) if embedded else torch.zeros(0, network.num_features)
    return list(rows.split([len(part) for part in patches]))


def load_panns(variant: Variant = "16k", folder: Path | str | None = None, weights: str = "") -> Cnn14:
    """Load Cnn14 at 16 or 32 kHz from its published file or the file `weights`. Raises ValueError."""
    return build_panns(_load_state(PANNS[variant], folder, weights), variant)


def load_passt(folder: Path | str | None = None, weights: str = "") -> PaSST:
    """Load PaSST from its published file or the file `weights`. Raises ValueError."""
    return build_passt(_load_state(PASST, folder, weights))


def load_vggish(folder: Path | str | None = None, weights: str = "") -> VGGish:
    """Load VGGish from its published file or the file `weights`. Raises ValueError."""
    return build_vggish(_load_state(VGGISH, folder, weights))


def build_panns(state: Mapping[str, Tensor], variant: Variant = "16k") -> Cnn14:
    """Build a frozen Cnn14 from a state dict, whose mel filters it takes over.

    Raises ValueError if a weight is missing, unknown or of another shape, or if the file's STFT kernels have
    another window than the network's own front end.
    """
    _check_window(state, SIZES[variant], PANNS[variant])
    kernels = {_STFT.format(part) for part in ("real", "imag")}
    rest = {name: value for name, value in state.items() if name not in kernels}
    return _fill(lambda: Cnn14(variant), rest, PANNS[variant])


def build_passt(state: Mapping[str, Tensor]) -> PaSST:
    """Build a frozen PaSST from a state dict. Raises ValueError if it does not fit."""
    return _fill(PaSST, state, PASST)


def build_vggish(state: Mapping[str, Tensor]) -> VGGish:
    """Build a frozen VGGish from a state dict. Raises ValueError if it does not fit."""
    return _fill(VGGish, state, VGGISH)


def tagger_file(name: str, folder: str, weights: str) -> Path:
    """Return the path `weights`, or that of the published file `name`. Raises MissingWeights."""
    return Path(weights).expanduser() if weights else locate(name, folder or None)


def _load_state(name: str, folder: Path | str | None, weights: str) -> dict[str, Tensor]:
    if weights:
        return load_published(Path(weights), role=find(name).role)
    return load_published(name, folder or None)


def _fill(build: Callable[[], N], state: Mapping[str, Tensor], name: str) -> N:
    return fill(build, state, role=find(name).role, advice=f"give {name}")


def _check_window(state: Mapping[str, Tensor], sizes: Sizes, name: str) -> None:
    """Raise ValueError unless the network was trained with our window, which is the kernel of frequency 0."""
    kernel = state.get(_STFT.format("real"))
    if kernel is None:  # a conversion may have left it out
        return
    trained, own = kernel[0].flatten().float(), torch.hann_window(sizes.n_fft)
    if trained.shape != own.shape or not torch.allclose(trained, own, atol=WINDOW_TOLERANCE):
        raise ValueError(
            f"not the weights of {find(name).role}: its STFT is not under a periodic Hann window of "
            f"{sizes.n_fft} samples, found {len(trained)} samples with sum {float(trained.sum()):g}; "
            f"give {name}"
        )
