"""The rejected side of pairs made by rule: latents distorted as they are, or media distorted and encoded.

Latents are quick and every model has them; media are exact (a codec's latents overlap in time) and give
"shift" what follows the window in its file, at the price of decoding and encoding at every step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from foleypref.flow.convention import generator_of
from foleypref.media.clip import MediaError, held
from foleypref.models.backbones import Media, Model
from foleypref.models.features import DECODERS
from foleypref.models.tools import read_clip_media
from foleypref.settings.parts import Part
from foleypref.training.negatives import Modality, Negative, Stream
from foleypref.workspace.records import Clip, Pair, digest

MIN_AFTER_S = 0.1  # less of what follows a window is not worth a second decode


def distort_latents(
    rows: Sequence[RuleRow],
    own: Mapping[str, Tensor],
    others: Mapping[int, Mapping[str, Tensor]],
    silence: Tensor | None,
    seconds: float,
) -> list[Tensor]:
    """The distorted latents (L, ...) of each row's modality, of `own` (B, L, ...); `others` by row."""
    found = []
    for index, row in enumerate(rows):
        x = own[row.modality][index]
        stream = Stream(
            x,
            len(x) / seconds,
            "latents",
            cast(Modality, row.modality),
            silence=silence if row.modality == "audio" else None,
            other=others[index][row.modality] if index in others else None,
        )
        found.append(_distort(row, stream))
    return found


@torch.no_grad()
def distort_media(root: Path, rows: Sequence[RuleRow], model: Model) -> list[Tensor]:
    """The same through media: every row decoded, distorted and encoded; `root` is the workspace's."""
    with ThreadPoolExecutor(DECODERS) as pool:
        media = list(pool.map(lambda row: distorted(root, row, model), rows))
    device = next(model.network.parameters()).device.type
    with torch.autocast(device, enabled=False):  # as the chosen side was encoded
        return _encoded(media, rows, model)


def _encoded(media: Sequence[Media], rows: Sequence[RuleRow], model: Model) -> list[Tensor]:
    """The latents (L, ...) of what was distorted; sound without its picture, which costs far more."""
    found: dict[int, Tensor] = {}
    for modality in sorted({row.modality for row in rows}):
        which = [index for index, row in enumerate(rows) if row.modality == modality]
        some = [media[index] for index in which]
        if modality == "audio":
            latents = model.encode(torch.from_numpy(np.stack([cast(np.ndarray, m.wave) for m in some])))
        else:
            latents = model.encode_media(some)
        found.update(zip(which, latents[modality].float().cpu(), strict=True))
    return [found[index] for index in range(len(rows))]


@torch.no_grad()
def silent_latents(root: Path, clip: Clip, model: Model) -> Tensor:
    """Latents (L, ...) of silence, through float16 as stored ones are; `clip` lends its picture."""
    media = read_clip_media(root, clip, model)
    samples = round(model.spec.clip_seconds * model.spec.sample_rate)
    quiet = replace(media, wave=np.zeros(samples, np.float32))
    return model.encode_media([quiet])["audio"][0].half().float().cpu()


def distorted(root: Path, row: RuleRow, model: Model) -> Media:
    """A clip's media with one modality distorted; every stream of frames alike. Raises MediaError."""
    own = read_clip_media(root, row.clip, model)
    other = read_clip_media(root, row.other, model) if row.other is not None else None
    after = _after(root, row, model)
    if row.modality == "audio":
        assert own.wave is not None, "a clip without sound was encoded"
        rate, wave = float(model.spec.sample_rate), torch.from_numpy(own.wave)
        stream = Stream(
            wave,
            rate,
            "wave",
            other=None if other is None or other.wave is None else torch.from_numpy(other.wave),
            after=None if after is None else _tail(after.wave, len(wave), _extra(row, model) * rate),
        )
        return replace(own, wave=_distort(row, stream).numpy())
    frames = {}
    for name, pictures in own.frames.items():
        rate = len(pictures) / (own.seconds or model.spec.clip_seconds)
        stream = Stream(
            torch.from_numpy(pictures),
            rate,
            "frames",
            "video",
            other=None if other is None else torch.from_numpy(held(other.frames[name], len(pictures))),
            after=None
            if after is None
            else _tail(after.frames.get(name), len(pictures), _extra(row, model) * rate),
        )
        frames[name] = _distort(row, stream).numpy()
    return replace(own, frames=frames)


def _distort(row: RuleRow, stream: Stream) -> Tensor:
    return cast(Negative, row.rule).distort(stream, row.severity, generator_of(row.seed, "distort"))


def _extra(row: RuleRow, model: Model) -> float:
    """Seconds of the trim after the window, at most the window's length."""
    seconds = model.spec.clip_seconds
    return min(row.clip.duration_s - seconds, seconds)


def _after(root: Path, row: RuleRow, model: Model) -> Media | None:
    """The window that ends with the trim, where the rule has use for it and the trim is longer."""
    extra, clip = _extra(row, model), row.clip
    if "after" not in cast(Negative, row.rule).needs or extra < MIN_AFTER_S:
        return None
    try:
        return read_clip_media(root, replace(clip, start_s=clip.start_s + extra), model)
    except MediaError:
        return None  # the file ends earlier than its header says: there is nothing to be had


def _tail(x: Any, whole: int, steps: float) -> Tensor | None:
    """The last `steps` of a later window, if it is whole."""
    num = int(steps)
    return torch.from_numpy(x[-num:]) if x is not None and len(x) == whole and num else None


@dataclass(frozen=True)
class RuleRow:
    """One pair to be made: everything but its latents."""

    clip: Clip
    rule: Part
    modality: str
    severity: float
    seed: int
    other: Clip | None = None

    @property
    def pair(self) -> Pair:
        """The pair as a record; complexity is the severity, as 1 is easy and 0 is hard there."""
        made = digest("negative", self.rule.settings(), self.modality, self.severity, self.seed)
        clip, source = self.clip, self.rule.part_name()
        chosen, rejected = f"truth-{clip.clip_id}", f"{source}-{made}"
        pair_id = Pair.make_id(clip.clip_id, chosen, rejected, source)
        scores = 1.0, 1.0 - self.severity, self.severity
        return Pair(pair_id, clip.clip_id, clip.prompt, chosen, rejected, *scores, source)

    def groups(self, *, held_out: bool) -> list[str]:
        """Names its margins are also logged under, beside those of every pair."""
        names = [f"modality/{self.modality}"]
        if held_out:
            at = f"severity/{self.severity:g}"
            names += [at, f"source/{self.rule.part_name()}/{at}"]
        return names
