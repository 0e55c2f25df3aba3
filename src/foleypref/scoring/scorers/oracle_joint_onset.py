"""Oracle of a generated pair: does its own sound start when something is seen to start in its own picture?

A generated picture has no stored event times, so a small network finds them: trained on clean clips with the
true times, apart from every judge. Onsets of the sound are those of `oracle_onset`. Matching is one-to-one
within 60 ms; the error of an event is the distance to the nearest onset, at most 0.5 s. Unscored with a
reason: captions of a sound that starts softly (the truth's classes say so), pictures without an event, sounds
without an onset.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from foleypref.networks.world_towers import EventFinder
from foleypref.scoring.scorers import Judgement, ScoreItem, Unscored, is_silent
from foleypref.scoring.scorers._world import PICTURE, WorldScorer, pictures
from foleypref.scoring.scorers.onset import onset_times_s
from foleypref.scoring.scorers.oracle_onset import (
    OnsetAgreement,
    agreement,
    onset_judgement,
    starts_softly,
)
from foleypref.world import FPS

THRESHOLD = 0.5  # least probability at a peak
GAP = 2  # frames on either side of a peak without another


class OracleJointOnset(WorldScorer):
    """onset_f1 in [0, 1]; onset_error_s in [0, 0.5] seconds."""

    trained = "oracle_events"
    empty = EventFinder
    needs: ClassVar[frozenset[str]] = frozenset({"audio", "video", "truth"})
    higher_is_better: ClassVar[dict[str, bool]] = {"onset_f1": True, "onset_error_s": False}

    def judge(self, items: Sequence[ScoreItem]) -> Judgement:
        """Compare the onsets of each sound with the events found in its picture."""
        reasons = [_unscored(item) for item in items]
        events = iter(self._events([item for item, reason in zip(items, reasons) if not reason]))
        return onset_judgement(
            [
                Unscored(reason) if reason else _compare(item, next(events))
                for item, reason in zip(items, reasons)
            ]
        )

    @torch.inference_mode()
    def _events(self, items: list[ScoreItem]) -> list[np.ndarray]:
        """Return the event times of each picture, in seconds."""
        network = self.network(EventFinder)
        if not items:
            return []
        logits = torch.cat([network(pictures(items[i : i + 8], network)) for i in range(0, len(items), 8)])
        return [event_times_s(row) for row in logits.sigmoid().cpu()]


def event_times_s(probability: Tensor) -> np.ndarray:
    """Return the peaks of a probability per frame (T,), in seconds, at least 120 ms apart."""
    p = probability.numpy()
    around = np.lib.stride_tricks.sliding_window_view(np.pad(p, GAP), 2 * GAP + 1).max(1)
    peaks: list[int] = []
    for frame in np.flatnonzero((p >= around) & (p > THRESHOLD)):
        if not peaks or frame - peaks[-1] > GAP:
            peaks.append(int(frame))
    return np.asarray(peaks, np.float64) / FPS


def _compare(item: ScoreItem, events: np.ndarray) -> OnsetAgreement | Unscored:
    if not len(events):
        return Unscored("no event is seen")
    heard = onset_times_s(item.wave, item.sample_rate)
    return agreement(heard, events) if len(heard) else Unscored("no onset is heard")


def _unscored(item: ScoreItem) -> str:
    if starts_softly(item):
        return "a sound that starts softly"
    if not len(item.frames.get(PICTURE.key, ())):
        return "no video"
    return "silent" if is_silent(item.wave) else ""
