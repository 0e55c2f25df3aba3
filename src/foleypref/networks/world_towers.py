"""Small encoders of the world's sounds, pictures and captions, of which its judges consist.

Letters: B batch, T frames, N samples, D embedding, W words, C classes.
"""

from __future__ import annotations

import zlib

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from foleypref.networks.spectral import LogMel

VOCABULARY = 512  # hash buckets
MAX_WORDS = 24
SCENE_STRIDE = 12  # every 12th frame is a scene token: 9 of 100

Wave = Float[Tensor, "B N"]
Frames = UInt8[Tensor, "B T 48 48 3"]
Embedding = Float[Tensor, "B D"]
Features = Float[Tensor, "B T D"]


def _conv(channels_in: int, channels_out: int, kernel: int, stride: int | tuple[int, int]) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2 if kernel % 2 else 0),
        nn.GroupNorm(8, channels_out),
        nn.SiLU(),
    )


class AudioTower(nn.Module):
    """Sound to one embedding: (B, N) -> (B, D)."""

    def __init__(self, dim: int = 96) -> None:
        super().__init__()
        self.mel = LogMel()
        self.body = nn.Sequential(
            _conv(1, 24, 5, (4, 2)), _conv(24, 48, 3, 2), _conv(48, 64, 3, 2), _conv(64, 96, 3, 2)
        )
        self.out = nn.Linear(2 * 96, dim)

    def forward(self, wave: Wave) -> Embedding:
        x = self.body(self.mel(wave)[:, None])  # (B, 96, t, f)
        return self.out(torch.cat([x.mean((2, 3)), x.amax((2, 3))], dim=1))


class SceneTower(nn.Module):
    """Appearance of every frame: (B, T, 48, 48, 3) uint8 -> tokens (B, T, D)."""

    def __init__(self, dim: int = 64) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _conv(3, 32, 3, 2), _conv(32, 48, 3, 2), _conv(48, 64, 3, 2), _conv(64, 96, 3, 2)
        )
        self.out = nn.Linear(96 * 9, dim)

    def forward(self, frames: Frames) -> Features:
        x = frames.flatten(0, 1).permute(0, 3, 1, 2).float() / 127.5 - 1  # (BT, 3, 48, 48)
        return self.out(self.body(x).flatten(1)).unflatten(0, frames.shape[:2])


class MotionTower(nn.Module):
    """Motion over time: (B, T, 48, 48, 3) uint8 -> features (B, T, D) at the frame rate."""

    def __init__(self, dim: int = 64) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv(9, 32, 4, 4), _conv(32, 48, 3, 2), _conv(48, 64, 3, 2))
        self.flat = nn.Linear(64 * 9, 96)
        self.time = nn.Sequential(
            nn.Conv1d(96, 96, 5, padding=2), nn.SiLU(), nn.Conv1d(96, 96, 5, padding=2), nn.SiLU()
        )
        self.out = nn.Linear(96, dim)

    def forward(self, frames: Frames) -> Features:
        x = frames.permute(0, 1, 4, 2, 3).float() / 127.5 - 1  # (B, T, 3, 48, 48)
        step = x - torch.cat([x[:, :1], x[:, :-1]], dim=1)
        later = torch.cat([step[:, 1:], torch.zeros_like(step[:, :1])], dim=1)
        x = torch.cat([x, 2 * step, 2 * later], dim=2)  # a strike is seen as motion in, motion out
        x = self.flat(self.body(x.flatten(0, 1)).flatten(1)).unflatten(0, frames.shape[:2])  # (B, T, 96)
        return self.out(x + self.time(x.transpose(1, 2)).transpose(1, 2))


class SoundEventTower(nn.Module):
    """Sound events over time: (B, N) -> features (B, N // 640, D), 25 Hz for 16 kHz sound."""

    def __init__(self, dim: int = 64) -> None:
        super().__init__()
        self.mel = LogMel()
        self.body = nn.Sequential(
            nn.Conv1d(64, 96, 5, padding=2), nn.SiLU(),
            nn.Conv1d(96, 96, 4, stride=4), nn.SiLU(),
            nn.Conv1d(96, 96, 3, padding=1), nn.SiLU(),
            nn.Conv1d(96, dim, 3, padding=1),
        )  # fmt: skip

    def forward(self, wave: Wave) -> Float[Tensor, "B N//640 D"]:
        return self.body(self.mel(wave).transpose(1, 2)).transpose(1, 2)


class TextTower(nn.Module):
    """Caption to one embedding: word ids (B, W), 0 is padding, -> (B, D)."""

    def __init__(self, dim: int = 64) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, 64, padding_idx=0)
        self.body = nn.Sequential(nn.Linear(64, 128), nn.SiLU(), nn.Linear(128, dim))

    def forward(self, ids: Int64[Tensor, "B W"]) -> Embedding:
        mask = (ids != 0).float()
        total = (self.words(ids) * mask[..., None]).sum(1)
        return self.body(total / mask.sum(1, keepdim=True).clamp(min=1).sqrt())


def word_ids(captions: list[str]) -> Int64[Tensor, "B W"]:
    """Hash words to ids, padded with 0: (B, MAX_WORDS); the same on every computer."""
    rows = torch.zeros(len(captions), MAX_WORDS, dtype=torch.long)
    for row, caption in zip(rows, captions):
        words = "".join(c if c.isalnum() else " " for c in caption.lower()).split()[:MAX_WORDS]
        for column, word in enumerate(words):
            row[column] = 1 + zlib.crc32(word.encode()) % (VOCABULARY - 1)
    return rows


class WorldFeatures(nn.Module):
    """The condition towers, each output standardised with stored statistics, so that zeros mean "nothing"."""

    text_mean: Tensor
    text_std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.scene, self.motion, self.text = SceneTower(), MotionTower(), TextTower()
        for name in ("scene", "motion", "text"):
            self.register_buffer(f"{name}_mean", torch.zeros(64))
            self.register_buffer(f"{name}_std", torch.ones(64))

    def forward(self, frames: Tensor, captions: list[str]) -> dict[str, Tensor]:
        """frames (B, 100, 48, 48, 3) uint8 -> scene (B, 9, 64), motion (B, 100, 64), text (B, 64)."""
        raw = {"scene": self.scene(frames[:, ::SCENE_STRIDE]), "motion": self.motion(frames)}
        features = {k: (v - getattr(self, f"{k}_mean")) / getattr(self, f"{k}_std") for k, v in raw.items()}
        return {**features, "text": self.captions(captions)}

    def captions(self, captions: list[str]) -> Tensor:
        """Embed only captions: (B, 64)."""
        raw = self.text(word_ids(captions).to(self.text_mean.device))
        return (raw - self.text_mean) / self.text_std


class AudioVideoJudge(nn.Module):
    """Semantic similarity of sound and picture (the role of ImageBind): cosine of two embeddings."""

    def __init__(self, dim: int = 64) -> None:
        super().__init__()
        self.audio = AudioTower(dim)
        self.scene = SceneTower(dim)
        self.video = nn.Sequential(nn.SiLU(), nn.Linear(2 * dim, dim))
        self.log_scale = nn.Parameter(torch.tensor(2.3))

    def embed_video(self, frames: Frames) -> Embedding:
        """(B, T, 48, 48, 3) -> unit vectors (B, D)."""
        tokens = self.scene(frames)
        return F.normalize(self.video(torch.cat([tokens.mean(1), tokens.amax(1)], dim=-1)), dim=-1)

    def embed_audio(self, wave: Wave) -> Embedding:
        """(B, N) -> unit vectors (B, D)."""
        return F.normalize(self.audio(wave), dim=-1)


class AudioTextJudge(nn.Module):
    """Semantic similarity of sound and caption (the role of CLAP): cosine of two embeddings."""

    def __init__(self, dim: int = 64) -> None:
        super().__init__()
        self.audio = AudioTower(dim)
        self.text = TextTower(dim)
        self.log_scale = nn.Parameter(torch.tensor(2.3))

    def embed_text(self, captions: list[str]) -> Embedding:
        """Captions -> unit vectors (B, D)."""
        return F.normalize(self.text(word_ids(captions).to(self.log_scale.device)), dim=-1)

    def embed_audio(self, wave: Wave) -> Embedding:
        """(B, N) -> unit vectors (B, D)."""
        return F.normalize(self.audio(wave), dim=-1)


class SyncJudge(nn.Module):
    """Offset of sound against picture on a grid of lags (the role of Synchformer).

    Correlates motion and sound features at every lag; class k is lag k − num_lags frames of 1/25 s, positive
    when the sound is early. (B, 2·num_lags + 1) logits.
    """

    def __init__(self, dim: int = 64, num_lags: int = 20) -> None:
        super().__init__()
        self.num_lags = num_lags
        self.motion = MotionTower(dim)
        self.sound = SoundEventTower(dim)
        self.mix = nn.Sequential(nn.Conv1d(dim, 64, 3, padding=1), nn.SiLU(), nn.Conv1d(64, 1, 3, padding=1))

    def correlate(self, motion: Features, sound: Features) -> Float[Tensor, "B D 2*{self.num_lags}+1"]:
        """Average motion(t) · sound(t − lag) over time, for every lag: (B, D, 2·num_lags + 1)."""
        k, length = self.num_lags, motion.shape[1]
        padded = F.pad(sound, (0, 0, k, k))  # (B, T + 2k, D)
        lags = [(motion * padded[:, k - lag : k - lag + length]).mean(1) for lag in range(-k, k + 1)]
        return torch.stack(lags, dim=2)

    def forward(self, frames: Frames, wave: Wave) -> Float[Tensor, "B 2*{self.num_lags}+1"]:
        return self.mix(4 * self.correlate(self.motion(frames), self.sound(wave)))[:, 0]


class Tagger(nn.Module):
    """Class of the sound (the role of PANNs): logits over classes and the features before them."""

    def __init__(self, num_classes: int, dim: int = 96) -> None:
        super().__init__()
        self.audio = AudioTower(dim)
        self.head = nn.Linear(dim, num_classes)

    def forward(self, wave: Wave) -> tuple[Float[Tensor, "B C"], Embedding]:
        """(B, N) -> logits (B, C), features (B, D)."""
        features = F.silu(self.audio(wave))
        return self.head(features), features


class SecondTagger(nn.Module):
    """A tagger built differently from `Tagger`, so that it makes other mistakes; only for oracles."""

    def __init__(self, num_classes: int, width: int = 96) -> None:
        super().__init__()
        self.mel = LogMel(n_fft=1024, hop=320, num_mels=80)
        self.body = nn.Sequential(
            nn.Conv1d(80, width, 3, padding=1), nn.GELU(), nn.GroupNorm(8, width),
            nn.Conv1d(width, width, 5, stride=2, padding=2), nn.GELU(), nn.GroupNorm(8, width),
            nn.Conv1d(width, width, 5, stride=2, padding=2), nn.GELU(), nn.GroupNorm(8, width),
        )  # fmt: skip
        self.attention = nn.Conv1d(width, num_classes, 1)
        self.head = nn.Conv1d(width, num_classes, 1)

    def forward(self, wave: Wave) -> Float[Tensor, "B C"]:
        """(B, N) -> logits (B, C), pooled over time by a learned attention for each class."""
        x = self.body(self.mel(wave).transpose(1, 2))
        return (self.attention(x).softmax(2) * self.head(x)).sum(2)


def _conv3d(channels_in: int, channels_out: int) -> nn.Sequential:
    """Convolve over space and time; the picture's sides are halved."""
    return nn.Sequential(
        nn.Conv3d(channels_in, channels_out, 3, (1, 2, 2), padding=1),
        nn.GroupNorm(8, channels_out),
        nn.GELU(),
    )


class EventFinder(nn.Module):
    """One logit per frame: does a sound start here? Built differently from the sync judge, for an oracle."""

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv3d(3, 24), _conv3d(24, 32), _conv3d(32, 48))
        self.flat = nn.Linear(48 * 9, width)
        self.time = nn.GRU(width, width // 2, batch_first=True, bidirectional=True)
        self.out = nn.Linear(2 * width, 1)

    def forward(self, frames: UInt8[Tensor, "B T 48 48 3"]) -> Float[Tensor, "B T"]:
        x = F.avg_pool3d(frames.permute(0, 4, 1, 2, 3).float() / 127.5 - 1, (1, 2, 2))  # (B, 3, T, 24, 24)
        x = self.body(x).permute(0, 2, 1, 3, 4).flatten(2)  # (B, T, 432)
        x = F.gelu(self.flat(x))
        return self.out(torch.cat([x, self.time(x)[0]], dim=-1))[..., 0]
