"""Oracle of a generated pair: does its own sound start when something is seen to start in its own picture?

A generated picture has no stored event times, so a small network finds them: trained on clean clips with the
true times, apart from every judge. Onsets of the sound are those of `oracle_onset`. Matching is one-to-one
within 60 ms; the error of an event is the distance to the nearest onset, at most 0.5 s. Unscored with a
reason: captions of a sound that starts softly (the truth's classes say so), pictures without an event, sounds
without an onset.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np
import torch
from pydantic import PrivateAttr
from torch import Tensor

from foleypref.media.streams import FrameStream
from foleypref.networks.world_events import EventFinder
from foleypref.scoring.scorers import PlainScorer, ScoreItem, is_silent
from foleypref.scoring.scorers._world import PICTURE, judge_version, load_judge, pictures
from foleypref.scoring.scorers.onset import onset_times_s
from foleypref.scoring.scorers.oracle_onset import SOFT, agreement
from foleypref.workspace.records import Score
from foleypref.world import FAMILIES, FPS

NAME = "oracle_joint_onset"
THRESHOLD = 0.5  # probability a frame, at a peak
GAP = 2  # frames that an event has to itself on either side


class OracleJointOnset(PlainScorer):
    """onset_f1 in [0, 1]; onset_error_s in [0, 0.5] seconds."""

    needs: ClassVar[frozenset[str]] = frozenset({"audio", "video", "truth"})
    dimensions: ClassVar[tuple[str, ...]] = ("onset_f1", "onset_error_s")
    higher_is_better: ClassVar[dict[str, bool]] = {"onset_f1": True, "onset_error_s": False}

    _network: EventFinder | None = PrivateAttr(default=None)
    _device: torch.device = PrivateAttr(default=torch.device("cpu"))

    @property
    def streams(self) -> tuple[FrameStream, ...]:
        """25 frames a second, 48 pixels a side."""
        return (PICTURE,)

    @property
    def version(self) -> str:
        """Hash of the weights."""
        return judge_version("oracle_events")

    def load(self, device: str | torch.device = "cpu") -> Self:
        """Read the weights."""
        self._device = torch.device(device)
        self._network, _ = load_judge("oracle_events", lambda _: EventFinder(), device)
        return self

    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        """Two scores an item."""
        reasons = [_unscored(item) for item in items]
        usable = [item for item, reason in zip(items, reasons) if not reason]
        seen = iter(self._events(usable))
        scores = []
        for item, reason in zip(items, reasons):
            f1, error = None, None
            if not reason:
                events, heard = next(seen), onset_times_s(item.wave, item.sample_rate)
                reason = "no event is seen" if not len(events) else "" if len(heard) else "no onset is heard"
                f1, error = (None, None) if reason else agreement(heard, events)
            for dimension, value in (("onset_f1", f1), ("onset_error_s", error)):
                scores.append(Score.make(item.candidate_id, NAME, self.version, dimension, value, reason))
        return scores

    @torch.inference_mode()
    def _events(self, items: list[ScoreItem]) -> list[np.ndarray]:
        """Event times in seconds, an array a picture."""
        assert self._network is not None, "call load() first"
        if not items:
            return []
        logits = torch.cat([self._network(part.to(self._device)) for part in pictures(items).split(8)])
        return [event_times_s(row) for row in logits.sigmoid().cpu()]


def event_times_s(probability: Tensor) -> np.ndarray:
    """Peaks of a probability a frame (T,), in seconds: 120 ms apart at least."""
    p = probability.numpy()
    around = np.lib.stride_tricks.sliding_window_view(np.pad(p, GAP), 2 * GAP + 1).max(1)
    found: list[int] = []
    for frame in np.flatnonzero((p >= around) & (p > THRESHOLD)):
        if not found or frame - found[-1] > GAP:
            found.append(int(frame))
    return np.asarray(found, np.float64) / FPS


def _unscored(item: ScoreItem) -> str:
    if any(FAMILIES.get(name) in SOFT for name in item.meta.get("labels", ())):
        return "a sound that starts softly"
    if not len(item.frames.get(PICTURE.key, ())):
        return "no video"
    return "silent" if is_silent(item.wave) else ""
