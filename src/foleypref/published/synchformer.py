"""Synchformer's front ends and weights, and DeSync: the seconds by which sound and picture are apart.

Picture and sound are cut into segments of 0.64 s, one every 0.32 s, that cover the same time: segment s
begins at frame 8·s (25 per second) and at sample 5120·s (16 kHz). DeSync uses the first and the last 14 of
them, as av-benchmark does.

Letters: B clips, N samples, S segments, M mel bands (128), T mel frames (66), D width, W windows (2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from foleypref.networks.mel_basis import htk_basis_float32
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
    """Return the number of frames that `seconds` of picture must have."""
    return int(FPS * seconds)


def num_samples(seconds: float) -> int:
    """Return the number of samples at 16 kHz that `seconds` of sound must have."""
    return int(SAMPLE_RATE * seconds)


def num_audio_segments(samples: int) -> int:
    """Return the number of segments that fit into `samples` at 16 kHz; 0 below 10240."""
    return max(0, (samples - SEGMENT_SAMPLES) // SEGMENT_STEP + 1)


def window_segments(seconds: float) -> list[int]:
    """Return the segments that DeSync uses, in order: a clip's first 14 and last 14, which may overlap.

    Raises ValueError under 4.8 s, where 14 segments do not fit.
    """
    # The smaller count: 25·18.56 is just under 464 in binary, which gives the picture one segment less.
    count = min(num_segments(num_frames(seconds)), num_audio_segments(num_samples(seconds)))
    if count < HEAD_SEGMENTS:
        raise ValueError(
            f"DeSync compares {HEAD_SEGMENTS} segments, which are 4.8 s; {seconds:g} s have {count}"
        )
    return sorted({*range(HEAD_SEGMENTS), *range(count - HEAD_SEGMENTS, count)})


def check_length(frames: int, samples: int, sample_rate: int, seconds: float) -> None:
    """Raise ValueError if `seconds` are too short for DeSync, or if picture or sound are shorter.

    av-benchmark crashes on too few seconds, drops a short picture, and for a short sound scores another file.
    """
    window_segments(seconds)
    if frames < num_frames(seconds):
        raise ValueError(f"the picture lasts {frames / FPS:g} s, {seconds:g} s are evaluated")
    if -(-samples * SAMPLE_RATE // sample_rate) < num_samples(seconds):  # as many as resampling gives
        raise ValueError(f"the sound lasts {samples / sample_rate:g} s, {seconds:g} s are evaluated")


def sync_wave(sound: Float[Tensor, "C N"], sample_rate: int, seconds: float) -> Float[Tensor, " N2"]:
    """Mix sound that is at least `seconds` long to mono at 16 kHz, int(16000·seconds) samples."""
    return resample(sound.mean(0), sample_rate, SAMPLE_RATE, HANN)[: num_samples(seconds)]


def audio_segments(wave: Float[Tensor, "... N"]) -> Tensor:
    """Cut sound (..., N) at 16 kHz into (..., S, 10240), S = (N - 10240) // 5120 + 1, dropping the rest."""
    return wave.unfold(-1, SEGMENT_SAMPLES, SEGMENT_STEP)


class SyncMel(nn.Module):
    """Normalised log-mel pictures of segments, each framed on its own (torchaudio's MelSpectrogram)."""

    basis: Tensor
    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("basis", htk_basis_float32(SAMPLE_RATE, N_FFT, MELS), persistent=False)
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)  # periodic

    def forward(self, segments: Float[Tensor, "*B N"]) -> Float[Tensor, "*B M T"]:
        """Return (..., 128, 66) for segments (..., 10240); a segment has 65 frames, the last is padding."""
        flat = segments.reshape(-1, segments.shape[-1])  # frames are centred, and reflected at the ends
        spectrum = torch.stft(flat, N_FFT, HOP, WINDOW, window=self.window, return_complex=True)
        power = spectrum.real.square() + spectrum.imag.square()
        mel = (self.basis @ power + FLOOR).log()
        # Trap: the last frame is 0 in log-mel before normalisation, as if it were as loud as e^0 = 1.
        mel = F.pad(mel, (0, MEL_FRAMES - mel.shape[-1]))
        return ((mel - MEL_MEAN) / (2 * MEL_STD)).unflatten(0, segments.shape[:-1])


def offsets_s(logits: Float[Tensor, "... C"]) -> Tensor:
    """Return the most likely offset in seconds; if positive, the sound is early by that much."""
    return offset_grid().to(logits.device)[logits.argmax(-1)]


def desync_s(offsets: Float[Tensor, "B W"]) -> Float[Tensor, " B"]:
    """Return DeSync of each clip, the mean |offset| of its windows, in [0, 2] s."""
    return offsets.abs().mean(1)


class DeSync:
    """Synchformer as a judge: it embeds a picture and sounds as tokens and finds the offsets between them."""

    def __init__(self, network: Synchformer, device: torch.device | str = "cpu") -> None:
        self.network, self.mel, self.device = network.to(device), SyncMel().to(device), torch.device(device)
        cpu = self.device.type == "cpu"  # temporaries above 32 MB would be mapped anew by every operation
        self._seen_at_once, self._heard_at_once, self._pairs_at_once = (2, 24, 8) if cpu else (32, 512, 128)

    @torch.inference_mode()
    def see(self, frames: np.ndarray, seconds: float) -> Tensor:
        """Return tokens (S, 8, D) of `window_segments` of frames (T, 224, 224, 3) uint8, 25 per second."""
        check_length(len(frames), num_samples(seconds), SAMPLE_RATE, seconds)
        starts = [VISUAL_STEP * s for s in window_segments(seconds)]
        cuts = torch.from_numpy(np.stack([frames[start : start + SEGMENT_FRAMES] for start in starts]))
        parts = (sync_pixels(part.to(self.device)) for part in cuts.split(self._seen_at_once))
        return torch.cat([self.network.vfeat_extractor.segment(part) for part in parts])

    @torch.inference_mode()
    def hear(self, sounds: Sequence[tuple[np.ndarray, int]], seconds: float) -> Tensor:
        """Return tokens (B, S, 6, D) of `window_segments` of B sounds (C, N) float32 with rates in Hz."""
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
        """Return logits (B, 2, 21) over offsets of the first 14 and the last 14 segments."""
        pairs = [
            torch.cat([tokens[:, :HEAD_SEGMENTS], tokens[:, -HEAD_SEGMENTS:]]).split(self._pairs_at_once)
            for tokens in (visual, audio)
        ]
        logits = torch.cat([self.network.compare(*pair) for pair in zip(*pairs)])
        return logits.unflatten(0, (2, -1)).transpose(0, 1)


def build_synchformer(state: Mapping[str, Tensor]) -> Synchformer:
    """Build the frozen network from a state dict. Raises ValueError unless exactly its weights are there."""
    return fill(Synchformer, state, role="Synchformer", advice=f"give {NAME}")


def load_synchformer(folder: Path | str | None = None) -> Synchformer:
    """Load the published network. Raises ValueError, which says what is missing and how to get it."""
    return build_synchformer(load_published(NAME, folder))
