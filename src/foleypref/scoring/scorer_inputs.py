"""Inputs of scorers: clips and latents are decoded once and become `ScoreItem`s.

The score stage, the rewards of online objectives and the benchmark share this code, so a sample is judged
alike whether it was stored first or has just left the policy. Letters: B batch, C channels, N samples of
sound, T frames.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch

from foleypref.flow.convention import Latents
from foleypref.media.clip import MediaError, read_channels
from foleypref.media.streams import FrameStream, frames_of, read_streams
from foleypref.models.backbones import Model
from foleypref.scoring.scorers import ScoreItem
from foleypref.workspace.paths import WorkspacePaths
from foleypref.workspace.records import Candidate, Clip
from foleypref.workspace.store import Workspace


class Sound(NamedTuple):
    """Samples (C, N), float32, and their rate in Hz."""

    samples: np.ndarray
    sample_rate: int


class RenderedCandidate(NamedTuple):
    """A candidate as media: its sound and, from a joint model, its picture."""

    sound: Sound
    frames: Mapping[str, np.ndarray] | None = None  # by stream; None: it goes with the clip's own picture


@dataclass(frozen=True)
class DecodedClip:
    """A clip's picture (frames by stream) and sound, which all its candidates share.

    `damage` says why one of the two is missing, if the file is damaged.
    """

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
        """Bytes of memory in its arrays."""
        sound = 0 if self.sound is None else 2 * self.sound.samples.nbytes
        return sound + sum(frames.nbytes for frames in self.frames.values())


def evaluated_seconds(clip: Clip, model: Model | None) -> float:
    """Return the seconds that are scored: the shorter of the clip and the model's output.

    Frieren, for example, makes 8.192 s of sound for a clip of 8 s.
    """
    return clip.duration_s if model is None else min(clip.duration_s, model.spec.clip_seconds)


def decode_clip(
    workspace: WorkspacePaths, clip: Clip, streams: Sequence[FrameStream], seconds: float
) -> DecodedClip:
    """Decode the first `seconds` of a clip's picture and sound, once for all its candidates.

    A damaged stream is left out and named in `damage`.
    """
    path = workspace.clip_file(clip)
    sound: Sound | None = None
    frames: dict[str, np.ndarray] = {}
    damage = []
    if clip.has_audio:
        try:
            sound = Sound(*read_channels(path, start_s=clip.start_s, duration_s=seconds, pad=True))
        except MediaError as error:
            damage.append(str(error))
    if clip.width:  # a benchmark's ground truth may have no picture
        try:
            frames = read_streams(path, streams, start_s=clip.start_s, duration_s=seconds)
        except MediaError as error:
            damage.append(str(error))
    return DecodedClip(clip, seconds, frames, sound, damage="; ".join(damage))


@torch.no_grad()
def decode_latents(
    model: Model, latents: Latents, streams: Sequence[FrameStream], seconds: Sequence[float]
) -> list[RenderedCandidate]:
    """Render B rows of latents: sounds and, from a joint model, the first `seconds` (B,) of pictures."""
    latents = {key: value.float() for key, value in latents.items()}
    waves = model.decode(latents).cpu().numpy()
    sounds = [Sound(wave[None], model.spec.sample_rate) for wave in waves]
    if model.spec.video is None:
        return [RenderedCandidate(sound) for sound in sounds]
    pictures, fps = model.decode_video(latents).cpu().numpy(), model.spec.video.fps
    return [
        RenderedCandidate(sound, frames_of(picture, fps, streams, duration_s=length))
        for sound, picture, length in zip(sounds, pictures, seconds, strict=True)
    ]


def decode_candidates(
    workspace: Workspace,
    model: Model | None,
    candidates: Sequence[Candidate],
    decoded: Callable[[Candidate], DecodedClip],
    streams: Sequence[FrameStream] = (),
) -> list[RenderedCandidate | None]:
    """Render candidates: from latents, from sound files that others made, or the ground truth's own sound.

    `decoded` gives a candidate's clip. An entry is None for the ground truth of a clip without sound.
    """
    rendered: dict[str, RenderedCandidate] = {}
    stored = [c for c in candidates if c.shard]
    if stored:
        assert model is not None, "latents are there, so a model was loaded"
        with torch.inference_mode():
            seconds = [decoded(c).seconds for c in stored]
            own = decode_latents(model, workspace.rows(stored), streams, seconds)
        rendered = {c.candidate_id: one for c, one in zip(stored, own)}
    for c in (c for c in candidates if not c.shard):
        sound = Sound(*read_channels(c.sound)) if c.sound else decoded(c).sound
        if sound is not None:
            rendered[c.candidate_id] = RenderedCandidate(sound)
    return [rendered.get(c.candidate_id) for c in candidates]


def make_score_item(candidate_id: str, clip: DecodedClip, candidate: RenderedCandidate | None) -> ScoreItem:
    """Return a candidate of a clip as scorers take it. Raises ValueError for a ground truth without sound."""
    if candidate is None:
        raise ValueError(clip.damage or f"clip {clip.clip.clip_id} has no sound of its own")
    sound, truth = candidate.sound, clip.sound
    wave = clip.reference if sound is truth else sound.samples.mean(0)
    assert wave is not None
    # Scorers look once at a picture that items of one clip_id share; an own picture has its own id.
    joint = candidate.frames is not None
    return ScoreItem(
        candidate_id=candidate_id,
        wave=wave,
        sample_rate=sound.sample_rate,
        prompt=clip.clip.prompt,
        frames=clip.frames if candidate.frames is None else candidate.frames,
        reference=clip.reference,
        reference_rate=0 if truth is None else truth.sample_rate,
        meta=clip.clip.meta,
        channels=sound.samples if len(sound.samples) > 1 else None,
        seconds=clip.seconds,
        clip_id=f"{clip.clip.clip_id}/{candidate_id}" if joint else clip.clip.clip_id,
    )
