"""ImageBind's front ends as av-benchmark has them, its weights, and the IB-score of a video and a sound.

The sound is embedded as three clips of 2 s, the picture as pairs of frames 2 s apart in three crops.
ImageBind's own loader samples the picture differently; the numbers in published tables come from this one.

Letters: C channels, N samples, T frames, K crops (3), M mel bands (128), F mel frames (204), S clips, E width
of the embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from foleypref.networks.imagebind import (
    FRAMES,
    IMAGE,
    MEL_FRAMES,
    MELS,
    ImageBind,
    ImageBindSizes,
    without_other_halves,
)
from foleypref.networks.mel import FRAME_S, kaldi_fbank
from foleypref.networks.resample import HANN_FLOAT32, resample
from foleypref.published.filling import fill
from foleypref.published.weights import load_published

NAME = "imagebind_huge.pth"
FPS, SAMPLE_RATE = 0.5, 16000  # frames per second, Hz
AUDIO_CLIPS, CLIP_S = 3, 2
CROPS = 3  # begin, middle and end of the long side
F_MIN, F_MAX = 20.0, 8000.0  # Hz
MEL_MEAN, MEL_STD = -4.268, 9.138
PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)
LEAST_SAMPLES = int(FRAME_S * SAMPLE_RATE)


def num_frames(seconds: float) -> int:
    """Return how many frames of `seconds` of picture are used."""
    return int(FPS * seconds)


def check_length(frames: int, samples: int, sample_rate: int, seconds: float) -> None:
    """Raise ValueError if the picture is shorter than `seconds` or two frames, or the sound is too short."""
    needed = num_frames(seconds)
    if needed < FRAMES:
        raise ValueError(f"ImageBind looks at pairs of frames, 4 s at least; {seconds:g} s are evaluated")
    if frames < needed:
        raise ValueError(f"the picture lasts for {frames} frames of 2 s, {seconds:g} s are evaluated")
    if -(-samples * SAMPLE_RATE // sample_rate) < LEAST_SAMPLES:  # as many as resampling gives
        raise ValueError(f"the sound lasts {samples / sample_rate:g} s, {FRAME_S:g} s are the least")


def clip_times(seconds: float) -> list[tuple[Fraction, Fraction]]:
    """Return begin and end (seconds) of the clips, spread evenly from the sound's start to its end.

    PyPI's pytorchvideo spreads them differently (0, 2, 4 s of 8 s instead of 0, 3, 6 s); av-benchmark uses
    the version in git. They are exact fractions of the rounded length: with a float product some clips would
    begin a sample later. In sound under 2 s they end beyond it.
    """
    last = Fraction(max(seconds - CLIP_S, 0.0))
    starts = [last * index / (AUDIO_CLIPS - 1) for index in range(AUDIO_CLIPS)]
    return [(start, start + CLIP_S) for start in starts]


def imagebind_mels(sound: Float[Tensor, "C N"]) -> Float[Tensor, "3 1 M F"]:
    """Return normalised log-mel pictures of three clips of sound (C, N) at 16 kHz: (3, 1, 128, 204)."""
    sound = sound.clone()
    pictures = []
    for begin, end in clip_times(sound.shape[-1] / SAMPLE_RATE):
        clip = sound[:, int(begin * SAMPLE_RATE) : int(end * SAMPLE_RATE)]
        # Trap: the mean is over all channels, and in place: where clips overlap, the next one is changed too.
        clip -= clip.mean()
        mel = kaldi_fbank(clip[0], SAMPLE_RATE, MELS, F_MIN, F_MAX)  # Trap: the first channel, not a mix
        mel = F.pad(mel, (0, MEL_FRAMES - mel.shape[-1]))  # Trap: 0 before normalisation; negative pads cut
        pictures.append((mel - MEL_MEAN) / MEL_STD)
    return torch.stack(pictures)[:, None]


def crops(frames: UInt8[Tensor, "T H W 3"]) -> Float[Tensor, "K T 3 side side"]:
    """Return normalised square crops at the long side's beginning, middle (rounded up) and end."""
    mean, std = (torch.tensor(x, device=frames.device)[:, None, None] for x in (PIXEL_MEAN, PIXEL_STD))
    pixels = (frames.movedim(-1, -3) / 255 - mean) / std  # (T, 3, H, W)
    height, width = pixels.shape[-2:]
    side, spare = min(height, width), abs(height - width)
    long = -1 if width >= height else -2
    return torch.stack([pixels.narrow(long, at, side) for at in (0, (spare + 1) // 2, spare)])


def imagebind_clips(frames: UInt8[Tensor, "T H W 3"]) -> Float[Tensor, "S 3 2 side side"]:
    """Pair neighbours among frames 2 s apart, with a short side of 224, in every crop: S = 3·(T - 1)."""
    pairs = crops(frames).unfold(1, FRAMES, 1)  # (K, T - 1, 3, side, side, 2)
    return pairs.flatten(0, 1).movedim(-1, 2)


class IBScore:
    """ImageBind as a judge: it embeds a picture and sounds, which `similarity` compares."""

    def __init__(self, network: ImageBind, device: torch.device | str = "cpu") -> None:
        self.network, self.device = network.to(device), torch.device(device)
        cpu = self.device.type == "cpu"
        self._seen_at_once, self._heard_at_once = (3, 12) if cpu else (16, 96)

    @property
    def embed_dim(self) -> int:
        """The width E of an embedding."""
        return self.network.embed_dim

    @torch.inference_mode()
    def see(self, frames: np.ndarray, seconds: float) -> Tensor:
        """Embed frames (T, H, W, 3) uint8, one per 2 s and 224 pixels on the short side, as (E,)."""
        check_length(len(frames), LEAST_SAMPLES, SAMPLE_RATE, seconds)
        if min(frames.shape[1:3]) != IMAGE:
            raise ValueError(
                f"frames are {frames.shape[1]}x{frames.shape[2]}, the short side must be {IMAGE}"
            )
        clips = imagebind_clips(torch.from_numpy(frames[: num_frames(seconds)]).to(self.device))
        if frames.shape[1] == frames.shape[2]:  # all three crops of a square are the same
            clips = clips[: len(clips) // CROPS]
        return self.network.embed_video(clips[None], self._seen_at_once)[0]

    @torch.inference_mode()
    def hear(self, sounds: Sequence[tuple[np.ndarray, int]]) -> Tensor:
        """Embed B whole sounds (C, N) float32 with their rates in Hz, as (B, E)."""
        # Mels are computed on the CPU, because devices round differently in quiet bands.
        # Trap: the resampler's taps are float32, or the log-mel is off by 1.6e-5 of its range.
        mels = [
            imagebind_mels(resample(torch.from_numpy(sound), sample_rate, SAMPLE_RATE, HANN_FLOAT32))
            for sound, sample_rate in sounds
        ]
        return self.network.embed_audio(torch.stack(mels).to(self.device), self._heard_at_once)


def similarity(video: Float[Tensor, "*B E"], audio: Float[Tensor, "*B E"]) -> Float[Tensor, "*B"]:
    """Return the IB-score of each pair, in [-1, 1]; tables show it times 100."""
    return F.cosine_similarity(video, audio, dim=-1)


def build_imagebind(state: Mapping[str, Tensor], sizes: ImageBindSizes | None = None) -> ImageBind:
    """Build the frozen halves for picture and sound from a state dict. Raises ValueError as `fill` does."""
    halves = without_other_halves(state)
    return fill(lambda: ImageBind(sizes), halves, role="ImageBind huge", advice=f"give {NAME}")


def load_imagebind(folder: Path | str | None = None) -> ImageBind:
    """Load the published network. Raises ValueError, which says what is missing and how to get it."""
    return build_imagebind(load_published(NAME, folder))
