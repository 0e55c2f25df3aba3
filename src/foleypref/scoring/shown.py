"""What scorers are shown: clips and latents decoded once, and the items made of them.

The score stage, the rewards of online objectives and the benchmark look through the same code, so a sample is
judged alike whether it was stored first or has just left the policy. Letters: B batch, C channels, N samples
of sound, T frames.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from foleypref.flow.convention import Latents
from foleypref.media.clip import MediaError, read_channels
from foleypref.media.streams import FrameStream, frames_of, read_streams
from foleypref.models.backbones import Model
from foleypref.scoring.scorers import ScoreItem
from foleypref.workspace.records import Candidate, Clip
from foleypref.workspace.store import Workspace


class Sound(NamedTuple):
    """Samples (C, N), float32, and their rate in Hz."""

    samples: np.ndarray
    sample_rate: int


class Made(NamedTuple):
    """What a candidate is: its sound, and of a joint model its picture (frames by stream)."""

    sound: Sound
    frames: Mapping[str, np.ndarray] | None = None  # None: it belongs to the clip's own picture


@dataclass(frozen=True)
class ShownClip:
    """What candidates of one clip share: frames by stream, and the clip's own sound; why one is missing."""

    clip: Clip
    seconds: float
    frames: Mapping[str, np.ndarray]
    sound: Sound | None
    damage: str = ""

    @cached_property
    def reference(self) -> np.ndarray | None:
        """The clip's own sound, mono."""
        return None if self.sound is None else self.sound.samples.mean(0)

    @property
    def num_bytes(self) -> int:
        """Memory that it holds."""
        sound = 0 if self.sound is None else 2 * self.sound.samples.nbytes
        return sound + sum(frames.nbytes for frames in self.frames.values())


def judged_seconds(clip: Clip, model: Model | None) -> float:
    """How much of a clip is judged.

    Frieren sounds 8.192 s of which 8 were seen: what is judged is what both have.
    """
    return clip.duration_s if model is None else min(clip.duration_s, model.spec.clip_seconds)


def show_clip(root: Path, clip: Clip, streams: Sequence[FrameStream], seconds: float) -> ShownClip:
    """Decode a clip's picture and sound, once for all its candidates. What is damaged is said and left out.

    `root` is the workspace's, against which relative paths are read.
    """
    path = root / clip.path
    sound: Sound | None = None
    frames: dict[str, np.ndarray] = {}
    damage = []
    if clip.has_audio:
        try:
            sound = Sound(*read_channels(path, start_s=clip.start_s, duration_s=seconds, pad=True))
        except MediaError as error:
            damage.append(str(error))
    if clip.width:  # a benchmark's ground truth may be sound alone
        try:
            frames = read_streams(path, streams, start_s=clip.start_s, duration_s=seconds)
        except MediaError as error:
            damage.append(str(error))
    return ShownClip(clip, seconds, frames, sound, "; ".join(damage))


@torch.no_grad()
def decode_latents(
    model: Model, latents: Latents, streams: Sequence[FrameStream], seconds: Sequence[float]
) -> list[Made]:
    """Sounds, and of a joint model pictures, of B rows of latents; `seconds` (B,) of each are looked at."""
    latents = {key: value.float() for key, value in latents.items()}
    waves = model.decode(latents).cpu().numpy()
    sounds = [Sound(wave[None], model.spec.sample_rate) for wave in waves]
    if model.spec.video is None:
        return [Made(sound) for sound in sounds]
    pictures, fps = model.decode_video(latents).cpu().numpy(), model.spec.video.fps
    return [
        Made(sound, frames_of(picture, fps, streams, duration_s=length))
        for sound, picture, length in zip(sounds, pictures, seconds, strict=True)
    ]


def decode_candidates(
    workspace: Workspace,
    model: Model | None,
    candidates: Sequence[Candidate],
    shown: Callable[[Candidate], ShownClip],
    streams: Sequence[FrameStream] = (),
) -> list[Made | None]:
    """What candidates are: decoded latents, files that others made, and the clip's own for the ground truth.

    None is a ground truth without sound.
    """
    found: dict[str, Made] = {}
    made = [c for c in candidates if c.shard]
    if made:
        assert model is not None, "latents are there, so a model was loaded"
        with torch.inference_mode():
            seconds = [shown(c).seconds for c in made]
            decoded = decode_latents(model, workspace.latents(made), streams, seconds)
        found = {c.candidate_id: one for c, one in zip(made, decoded)}
    found |= {c.candidate_id: Made(Sound(*read_channels(c.sound))) for c in candidates if c.sound}
    truths = [c for c in candidates if c.candidate_id not in found]
    found |= {c.candidate_id: Made(sound) for c in truths if (sound := shown(c).sound) is not None}
    return [found.get(c.candidate_id) for c in candidates]


def score_item(candidate_id: str, shown: ShownClip, made: Made | None) -> ScoreItem:
    """A candidate of a clip as the scorers want it. Raises ValueError for a ground truth without sound."""
    if made is None:
        raise ValueError(shown.damage or f"clip {shown.clip.clip_id} has no sound of its own")
    samples, truth = made.sound.samples, shown.sound
    wave = shown.reference if made.sound is truth else samples.mean(0)
    assert wave is not None
    # scorers look once at a picture that items of one clip_id share; a picture of its own has its own name
    own = made.frames is not None
    return ScoreItem(
        candidate_id,
        wave,
        made.sound.sample_rate,
        shown.clip.prompt,
        shown.frames if made.frames is None else made.frames,
        shown.reference,
        0 if truth is None else truth.sample_rate,
        shown.clip.meta,
        samples if len(samples) > 1 else None,
        shown.seconds,
        f"{shown.clip.clip_id}/{candidate_id}" if own else shown.clip.clip_id,
    )
