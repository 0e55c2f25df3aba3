"""Synchformer's front ends, its weights, and DeSync: seconds by which sound and picture differ.

Picture and sound are cut into segments of 0.64 s, one each 0.32 s, that cover the same time: segment s begins
at frame 8·s of 25 a second and at sample 5120·s of 16 kHz. DeSync looks at the first and the last 14 of them,
as av-benchmark does.

Letters: B clips, N samples, S segments, M mel bands (128), T mel frames (66), D width, W windows (2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from foleypref.networks.resample import HANN, resample
from foleypref.networks.synchformer import HEAD_SEGMENTS, Synchformer, offset_grid
from foleypref.networks.synchformer_audio import MEL_FRAMES, MELS
from foleypref.networks.synchformer_visual import SEGMENT_FRAMES, num_segments, sync_pixels
from foleypref.networks.synchformer_visual import SEGMENT_STEP as VISUAL_STEP
from foleypref.published.filling import fill
from foleypref.published.weights import load_published

NAME = "synchformer_state_dict.pth"
FPS, SAMPLE_RATE = 25, 16000  # Hz
SEGMENT_SAMPLES, SEGMENT_STEP = 10240, 5120
N_FFT, WINDOW, HOP = 1024, 400, 160
MEL_MEAN, MEL_STD = -4.2677393, 4.5689974  # of AudioSet's log-mels
FLOOR = 1e-6


def num_frames(seconds: float) -> int:
    """Frames that `seconds` of picture must have."""
    return int(FPS * seconds)


def num_samples(seconds: float) -> int:
    """Samples at 16 kHz that `seconds` of sound must have."""
    return int(SAMPLE_RATE * seconds)


def num_audio_segments(samples: int) -> int:
    """Segments that fit into `samples` at 16 kHz; 0 below 10240."""
    return max(0, (samples - SEGMENT_SAMPLES) // SEGMENT_STEP + 1)


def window_segments(seconds: float) -> list[int]:
    """The segments that DeSync looks at, in order: the first 14 and the last 14 of a clip, which may overlap.

    Raises ValueError under 4.8 s, where 14 segments do not fit.
    """
    # 25·18.56 is a little less than 464 in binary: one more segment of sound than of picture.
    count = min(num_segments(num_frames(seconds)), num_audio_segments(num_samples(seconds)))
    if count < HEAD_SEGMENTS:
        raise ValueError(
            f"DeSync compares {HEAD_SEGMENTS} segments, which are 4.8 s; {seconds:g} s have {count}"
        )
    return sorted({*range(HEAD_SEGMENTS), *range(count - HEAD_SEGMENTS, count)})


def check_length(frames: int, samples: int, sample_rate: int, seconds: float) -> None:
    """ValueError where `seconds` are too short for DeSync, or picture or sound do not last that long.

    av-benchmark crashes on the first, drops the second and scores another file in place of the third.
    """
    window_segments(seconds)
    if frames < num_frames(seconds):
        raise ValueError(f"the picture lasts {frames / FPS:g} s, {seconds:g} s are evaluated")
    if -(-samples * SAMPLE_RATE // sample_rate) < num_samples(seconds):  # as many as resampling gives
        raise ValueError(f"the sound lasts {samples / sample_rate:g} s, {seconds:g} s are evaluated")


def sync_wave(sound: Float[Tensor, "C N"], sample_rate: int, seconds: float) -> Float[Tensor, " N2"]:
    """Sound of any number of channels, no shorter than `seconds`, -> mono, int(16000·seconds) samples."""
    return resample(sound.mean(0), sample_rate, SAMPLE_RATE, HANN)[: num_samples(seconds)]


def audio_segments(wave: Float[Tensor, "... N"]) -> Tensor:
    """Sound at 16 kHz (..., N) -> (..., S, 10240), S = (N - 10240) // 5120 + 1; a rest is left out."""
    return wave.unfold(-1, SEGMENT_SAMPLES, SEGMENT_STEP)


def htk_basis() -> Tensor:
    """Triangles over Hz between 128 + 2 edges on the mel scale 2595 log10(1 + f / 700), peak 1: (128, 513).

    In float32 throughout, as torchaudio makes it: an edge is rounded by up to 1e-5 of a band's width, which
    shows in the log-mel of a pure tone on a band's flank.
    """
    top = 2595 * math.log10(1 + SAMPLE_RATE / 2 / 700)
    edges = 700 * (10 ** (torch.linspace(0, top, MELS + 2) / 2595) - 1)[:, None]
    bins = torch.linspace(0, SAMPLE_RATE / 2, N_FFT // 2 + 1)
    rise = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return torch.minimum(rise, fall).clamp(min=0)


class SyncMel(nn.Module):
    """Normalised log-mel pictures of segments, each framed on its own (torchaudio's MelSpectrogram)."""

    basis: Tensor
    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("basis", htk_basis(), persistent=False)
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)  # periodic

    def forward(self, segments: Float[Tensor, "*B N"]) -> Float[Tensor, "*B M T"]:
        """Segments (..., 10240) -> (..., 128, 66); a segment has 65 frames."""
        spectrum = torch.stft(
            segments.reshape(-1, segments.shape[-1]),
            N_FFT,
            HOP,
            WINDOW,
            self.window,
            center=True,
            pad_mode="reflect",
            return_complex=True,
        )
        power = spectrum.real.square() + spectrum.imag.square()
        mel = (self.basis @ power + FLOOR).log()
        # Trap: the last frame is 0 in log-mel before normalisation, as if it were as loud as e^0 = 1.
        mel = F.pad(mel, (0, MEL_FRAMES - mel.shape[-1]))
        return ((mel - MEL_MEAN) / (2 * MEL_STD)).unflatten(0, segments.shape[:-1])


def offsets_s(logits: Float[Tensor, "... C"]) -> Tensor:
    """The most likely offset in seconds; positive: the sound is early by that much."""
    return offset_grid().to(logits.device)[logits.argmax(-1)]


def desync_s(offsets: Float[Tensor, "B W"]) -> Float[Tensor, " B"]:
    """DeSync of each clip: the mean |offset| of its windows, which weigh the same, in [0, 2] s."""
    return offsets.abs().mean(1)


class DeSync:
    """A Synchformer that compares clips: tokens of the picture, tokens of a sound, two offsets of both."""

    def __init__(self, network: Synchformer, device: torch.device | str = "cpu") -> None:
        self.network, self.mel, self.device = network.to(device), SyncMel().to(device), torch.device(device)
        cpu = self.device.type == "cpu"  # larger temporaries than 32 MB are mapped anew by every operation
        self._seen_at_once, self._heard_at_once, self._pairs_at_once = (2, 24, 8) if cpu else (32, 512, 128)

    @torch.inference_mode()
    def see(self, frames: np.ndarray, seconds: float) -> Tensor:
        """Frames (T, 224, 224, 3) uint8, 25 a second -> tokens (S, 8, D) of `window_segments`."""
        check_length(len(frames), num_samples(seconds), SAMPLE_RATE, seconds)
        starts = [VISUAL_STEP * s for s in window_segments(seconds)]
        cuts = torch.from_numpy(np.stack([frames[start : start + SEGMENT_FRAMES] for start in starts]))
        parts = (sync_pixels(part.to(self.device)) for part in cuts.split(self._seen_at_once))
        return torch.cat([self.network.vfeat_extractor.segment(part) for part in parts])

    @torch.inference_mode()
    def hear(self, sounds: Sequence[tuple[np.ndarray, int]], seconds: float) -> Tensor:
        """B sounds (C, N) float32, each with its rate in Hz -> tokens (B, S, 6, D) of `window_segments`."""
        waves = []
        for sound, sample_rate in sounds:
            check_length(num_frames(seconds), sound.shape[-1], sample_rate, seconds)
            waves.append(sync_wave(torch.from_numpy(sound), sample_rate, seconds).to(self.device))
        cuts = audio_segments(torch.stack(waves))[:, window_segments(seconds)]
        return self.network.afeat_extractor.segments(self.mel(cuts), self._heard_at_once)

    @torch.inference_mode()
    def logits(
        self, visual: Float[Tensor, "B S F D"], audio: Float[Tensor, "B S K D"]
    ) -> Float[Tensor, "B W C"]:
        """Logits of the first and the last 14 of at least 14 segments, (B, 2, 21)."""
        pairs = [
            torch.cat([tokens[:, :HEAD_SEGMENTS], tokens[:, -HEAD_SEGMENTS:]]).split(self._pairs_at_once)
            for tokens in (visual, audio)
        ]
        found = torch.cat([self.network.compare(*pair) for pair in zip(*pairs)])
        return found.unflatten(0, (2, -1)).transpose(0, 1)


def build_synchformer(state: Mapping[str, Tensor]) -> Synchformer:
    """The network around a state dict's tensors, in eval mode without gradients.

    Raises ValueError when a weight is missing, unknown or of another shape.
    """
    with torch.device("meta"):
        network = Synchformer()
    return fill(network, state, (), "Synchformer", f"give {NAME}")


def load_synchformer(folder: Path | str | None = None) -> Synchformer:
    """The published network; ValueError says what is missing and how to get it."""
    return build_synchformer(load_published(NAME, folder))
