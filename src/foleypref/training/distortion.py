"""The rejected side of pairs made by rule: latents distorted directly, or media distorted and then encoded.

Latents are quick and every model has them. Media are exact, because a codec's latents overlap in time, and
give "shift" the sound that follows the window in its file, but cost decoding and encoding at every step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from foleypref.flow.convention import generator_of
from foleypref.media.clip import MediaError, held
from foleypref.models.backbones import Media, Model
from foleypref.models.features import DECODERS
from foleypref.models.tools import read_clip_media
from foleypref.training.negatives import Modality, Negative, Stream
from foleypref.workspace.paths import WorkspacePaths
from foleypref.workspace.records import Clip, Pair, digest

MIN_AFTER_S = 0.1  # if less follows a window, a second decode is not worth it


@dataclass(frozen=True)
class RuleRow:
    """A pair that a rule will make: everything except its latents."""

    clip: Clip
    rule: Negative
    modality: Modality
    severity: float
    seed: int
    other: Clip | None = None  # whose media "replace" takes

    @property
    def pair(self) -> Pair:
        """The pair as a record. Its severity serves as complexity (1 easy, 0 hard)."""
        rejected_id = digest("negative", self.rule.settings(), self.modality, self.severity, self.seed)
        clip, source = self.clip, self.rule.part_name()
        chosen, rejected = f"truth-{clip.clip_id}", f"{source}-{rejected_id}"
        scores = 1.0, 1.0 - self.severity
        return Pair.make(clip, (chosen, rejected), source, scores, complexity=self.severity)

    def groups(self, *, held_out: bool) -> list[str]:
        """Return the groups whose logs its margins also enter, besides those of every pair."""
        names = [f"modality/{self.modality}"]
        if held_out:
            severity = f"severity/{self.severity:g}"
            names += [severity, f"source/{self.rule.part_name()}/{severity}"]
        return names

    def distort(self, stream: Stream) -> Tensor:
        """Apply the rule to a stream, with the randomness of the row's seed."""
        return self.rule.distort(stream, self.severity, generator_of(self.seed, "distort"))


def distort_latents(
    rows: Sequence[RuleRow],
    own: Mapping[str, Tensor],
    others: Mapping[int, Mapping[str, Tensor]],
    silence: Tensor | None,
    seconds: float,
) -> list[Tensor]:
    """Return the distorted latents (L, ...) of each row's modality.

    `own` holds the clips' latents (B, L, ...) of `seconds`; `others` the other clips', by row.
    """
    distorted = []
    for index, row in enumerate(rows):
        x = own[row.modality][index]
        stream = Stream(
            x,
            rate=len(x) / seconds,
            kind="latents",
            modality=row.modality,
            silence=silence if row.modality == "audio" else None,
            other=others[index][row.modality] if index in others else None,
        )
        distorted.append(row.distort(stream))
    return distorted


@torch.no_grad()
def distort_media(workspace: WorkspacePaths, rows: Sequence[RuleRow], model: Model) -> list[Tensor]:
    """Return the latents (L, ...) of each row's modality after its media were distorted and encoded."""
    with ThreadPoolExecutor(DECODERS) as pool:
        media = list(pool.map(lambda row: distorted_media(workspace, row, model), rows))
    device = next(model.network.parameters()).device.type
    encoded: dict[int, Tensor] = {}
    for modality in sorted({row.modality for row in rows}):
        indices = [index for index, row in enumerate(rows) if row.modality == modality]
        some = [media[index] for index in indices]
        with torch.autocast(device, enabled=False):  # the chosen side was encoded without autocast too
            if modality == "audio":  # without its picture, which costs far more
                waves = [m.wave for m in some if m.wave is not None]  # all of them, as `zip` checks
                latents = model.encode(torch.from_numpy(np.stack(waves)))
            else:
                latents = model.encode_media(some)
        encoded.update(zip(indices, latents[modality].float().cpu(), strict=True))
    return [encoded[index] for index in range(len(rows))]


@torch.no_grad()
def silent_latents(workspace: WorkspacePaths, clip: Clip, model: Model) -> Tensor:
    """Return latents (L, ...) of silence under the clip's picture, rounded to float16 like stored ones."""
    media = read_clip_media(workspace, clip, model)
    samples = round(model.spec.clip_seconds * model.spec.sample_rate)
    quiet = replace(media, wave=np.zeros(samples, np.float32))
    return model.encode_media([quiet])["audio"][0].half().float().cpu()


def distorted_media(workspace: WorkspacePaths, row: RuleRow, model: Model) -> Media:
    """Return a clip's media with one modality distorted, all its frame streams alike. Raises MediaError."""
    own = read_clip_media(workspace, row.clip, model)
    other = read_clip_media(workspace, row.other, model) if row.other is not None else None
    # seconds of the trim that follow the window
    extra_s = min(row.clip.duration_s - model.spec.clip_seconds, model.spec.clip_seconds)
    after = _after(workspace, row, model, extra_s)
    if row.modality == "audio":
        assert own.wave is not None, "a clip without sound was encoded"
        stream = Stream(
            torch.from_numpy(own.wave),
            rate=float(model.spec.sample_rate),
            kind="wave",
            other=None if other is None or other.wave is None else torch.from_numpy(other.wave),
        )
        stream = _with_after(stream, after.wave if after else None, extra_s)
        return replace(own, wave=row.distort(stream).numpy())
    frames = {}
    for name, pictures in own.frames.items():
        stream = Stream(
            torch.from_numpy(pictures),
            rate=len(pictures) / (own.seconds or model.spec.clip_seconds),
            kind="frames",
            modality="video",
            other=None if other is None else torch.from_numpy(held(other.frames[name], len(pictures))),
        )
        stream = _with_after(stream, after.frames.get(name) if after else None, extra_s)
        frames[name] = row.distort(stream).numpy()
    return replace(own, frames=frames)


def _after(workspace: WorkspacePaths, row: RuleRow, model: Model, extra_s: float) -> Media | None:
    """Read the window that begins `extra_s` later, if the rule can use it and it is worth a second decode."""
    if "after" not in row.rule.needs or extra_s < MIN_AFTER_S:
        return None
    try:
        return read_clip_media(workspace, replace(row.clip, start_s=row.clip.start_s + extra_s), model)
    except MediaError:
        return None  # the file ends earlier than its header says, so nothing follows


def _with_after(stream: Stream, later: np.ndarray | None, extra_s: float) -> Stream:
    """Return the stream with the last `extra_s` seconds of a later window, if that has as many steps."""
    num = int(extra_s * stream.rate)
    if later is None or len(later) != len(stream) or not num:
        return stream
    return replace(stream, after=torch.from_numpy(later[-num:]))
