"""The events a browser may send: one class per kind, no unknown fields, bounded lengths and numbers."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

Label = Annotated[str, Field(pattern="^[A-Z]$")]
Seconds = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]
TaskId = Annotated[str, Field(min_length=1, max_length=64, pattern="^[0-9a-f]+$")]


class Event(BaseModel):
    """The fields of every event. `client_id` makes a repeated post count once."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    client_id: UUID
    client_time_ms: int = Field(ge=0, le=2**53)
    kind: str


class TaskEvent(Event):
    """An event about one task. `heard`: seconds heard so far, by letter; the largest number counts."""

    task_id: TaskId
    heard: dict[Label, Seconds] = Field(default_factory=dict, max_length=26)


class Listen(TaskEvent):
    """The seconds of one soundtrack heard in this task so far."""

    kind: Literal["listen"]
    label: Label
    seconds: Seconds


class Rate(TaskEvent):
    """A soundtrack is bad (0), medium (1) or good (2); `seconds` is the time the rater took."""

    kind: Literal["rate"]
    label: Label
    value: int = Field(ge=0, le=2)  # no Literal: that takes true for 1
    seconds: Seconds = 0.0


class Compare(TaskEvent):
    """The first soundtrack is better (1), worse (-1) or neither (0)."""

    kind: Literal["compare"]
    first: Label
    second: Label
    value: int = Field(ge=-1, le=1)
    seconds: Seconds = 0.0

    @model_validator(mode="after")
    def _two(self) -> Compare:
        if self.first == self.second:
            raise ValueError("first and second are the same soundtrack")
        return self


class Rank(TaskEvent):
    """All soundtracks of a task from best to worst; those in one group tie."""

    kind: Literal["rank"]
    order: list[Annotated[list[Label], Field(min_length=1, max_length=26)]] = Field(
        min_length=1, max_length=26
    )
    seconds: Seconds = 0.0

    @model_validator(mode="after")
    def _once(self) -> Rank:
        if len(self.labels()) != len(set(self.labels())):
            raise ValueError("a soundtrack is ranked twice")
        return self

    def labels(self) -> list[str]:
        """Return all letters in the order."""
        return [label for group in self.order for label in group]


class Skip(TaskEvent):
    """The rater cannot or does not want to judge the task."""

    kind: Literal["skip"]
    reason: str = Field(min_length=1, max_length=100)
    note: str = Field("", max_length=500)


class Undo(Event):
    """Take back the rater's last rating, comparison, ranking or skip."""

    kind: Literal["undo"]


AnyEvent = Annotated[Listen | Rate | Compare | Rank | Skip | Undo, Field(discriminator="kind")]
VERDICTS = ("rate", "compare", "rank", "skip")
_ADAPTER: TypeAdapter[Any] = TypeAdapter(AnyEvent)


def parse_event(body: bytes) -> Event:
    """Parse a request's body into an event. Raises ValueError with one line about the first mistake."""
    try:
        return _ADAPTER.validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{place or 'event'}: {first['msg']}"[:300]) from None
