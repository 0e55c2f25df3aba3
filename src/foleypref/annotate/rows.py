"""What the book holds, as plain values: raters, tasks with their soundtracks, and events in order."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NamedTuple


class Rater(NamedTuple):
    """Somebody with an address. Of the token in it only the SHA-256 is kept."""

    name: str
    role: str  # "rater" | "operator"
    token_hash: str
    created_ms: int


class Track(NamedTuple):
    """One soundtrack of a task under the letter that the rater sees."""

    label: str
    candidate_id: str
    degraded: str = ""  # how it was made worse on purpose; such a track never becomes a record


@dataclass(frozen=True, slots=True)
class Task:
    """One clip put before one rater: written when it is assigned, so a restart goes on exactly there."""

    task_id: str
    campaign: str
    rater: str
    number: int  # of this rater in this campaign, from 1
    kind: str  # rate | compare | rank
    clip_id: str
    tracks: tuple[Track, ...]
    repeat_of: str | None = None  # the task that this one repeats
    claim: str | None = None  # the clip, where it was dealt to this rater alone
    created_ms: int = 0

    @property
    def labels(self) -> tuple[str, ...]:
        """The letters of its soundtracks."""
        return tuple(track.label for track in self.tracks)

    @property
    def genuine(self) -> dict[str, str]:
        """Candidate by letter, without what was degraded."""
        return {track.label: track.candidate_id for track in self.tracks if not track.degraded}

    @property
    def counts(self) -> bool:
        """Whether verdicts on it become records; those on a repeat are for checking alone."""
        return self.repeat_of is None

    @property
    def shows_clip(self) -> bool:
        """Whether it judges its clip; with one genuine soundtrack, or as a repeat, it is a check alone."""
        return self.counts and len(self.genuine) >= 2

    def packed(self) -> str:
        """The soundtracks as text."""
        return json.dumps(self.tracks)

    @staticmethod
    def unpacked(text: str) -> tuple[Track, ...]:
        """What `packed` made."""
        return tuple(Track(*row) for row in json.loads(text))


class NewEvent(NamedTuple):
    """An event that the server has accepted and not written yet."""

    rater: str
    client_id: str
    kind: str
    task_id: str  # "" for an undo
    body: str  # canonical JSON
    undoes: int | None = None  # the seq that an undo takes back


class StoredEvent(NamedTuple):
    """An event in the book; `seq` grows, and what a rater said last has the largest."""

    seq: int
    rater: str
    client_id: str
    kind: str
    task_id: str
    body: dict[str, Any]
    undoes: int | None
    server_time_ms: int


class Appended(NamedTuple):
    """Where an event lies; `replayed` if it was there before."""

    seq: int
    replayed: bool
    server_time_ms: int
