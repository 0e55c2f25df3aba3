"""The rows of the event log as plain values: raters, tasks with their soundtracks, and events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple


class Rater(NamedTuple):
    """A rater, or the operator. Only the SHA-256 of the token in their address is stored."""

    name: str
    role: str  # "rater" | "operator"
    token_hash: str
    created_ms: int


class Track(NamedTuple):
    """One soundtrack of a task under the letter that the rater sees."""

    label: str
    candidate_id: str
    degraded: str = ""  # the degradation, if any; a degraded track never becomes a record


@dataclass(frozen=True, slots=True)
class Task:
    """One clip that one rater judges. It is written when it is assigned, so a restart continues with it."""

    task_id: str
    campaign: str
    rater: str
    number: int  # of this rater in this campaign, from 1
    kind: str  # rate | compare | rank
    clip_id: str
    tracks: tuple[Track, ...]
    repeat_of: str | None = None  # the task that this one repeats
    claim: str | None = None  # the clip, if only this rater gets it
    created_ms: int = 0

    @property
    def labels(self) -> tuple[str, ...]:
        """The letters of all soundtracks."""
        return tuple(track.label for track in self.tracks)

    @property
    def genuine(self) -> dict[str, str]:
        """Candidate ids by letter, without degraded soundtracks."""
        return {track.label: track.candidate_id for track in self.tracks if not track.degraded}

    @property
    def counts(self) -> bool:
        """Whether verdicts become records; those on a repeat are only a check."""
        return self.repeat_of is None

    @property
    def shows_clip(self) -> bool:
        """Whether the clip is judged: a repeat, or a task with one genuine soundtrack, is only a check."""
        return self.counts and len(self.genuine) >= 2


class NewEvent(NamedTuple):
    """An event that the server has accepted but not written yet."""

    rater: str
    client_id: str
    kind: str
    task_id: str  # "" for an undo
    body: str  # canonical JSON
    undoes: int | None = None  # the seq that an undo takes back


class StoredEvent(NamedTuple):
    """An event in the log. `seq` grows with every event, so a rater's last event has their largest."""

    seq: int
    rater: str
    client_id: str
    kind: str
    task_id: str
    body: dict[str, Any]
    undoes: int | None
    server_time_ms: int


class Appended(NamedTuple):
    """The place of an event in the log; `replayed` if it was there before."""

    seq: int
    replayed: bool
    server_time_ms: int
