"""What the operator of the rating tool decides: who rates what, how much twice, where the server listens."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from foleypref.settings.parts import Settings, build, part_field
from foleypref.workspace.records import digest

Kind = Literal["rate", "compare", "rank"]
Degradation = Literal["noise", "low_pass", "late"]

OPERATOR = "operator"
RATER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
MAX_TRACKS = 9  # keys 1 to 9


class AnnotateSettings(Settings):
    """Who rates which soundtracks, and where. Shares are of a rater's tasks, `overlap` is of the clips."""

    task: Kind = "rate"
    split: str = "align"
    host: str = "127.0.0.1"  # anything else is seen by others: read what is printed then
    port: int = Field(8321, ge=0, le=65535)  # 0 is any free one
    public_url: str = ""  # the address that people use, where a reverse proxy stands in front
    raters: tuple[str, ...] = ()  # new ones get an address each; without any there is one called "rater"
    renew: tuple[str, ...] = ()  # raters (or "operator") whose address is lost: a new one, the old one ends
    name: str = "main"  # of this round of rating; another name begins anew on the same clips
    num_clips: int | None = Field(None, ge=1)  # a random choice of so many
    num_tracks: int = Field(5, ge=2, le=MAX_TRACKS)  # soundtracks of a clip at most; two when comparing
    ground_truth: bool = False  # the clip's own sound among them
    weights: str | None = None  # fingerprint; None takes candidates of all weights of `model`
    versus: tuple[
        str, ...
    ] = ()  # two fingerprints: a task compares one candidate of each, from the same noise
    overlap: float = Field(0.1, ge=0, le=1)  # of the clips, rated by everybody; the others by one rater each
    repeats: float = Field(0.05, ge=0, le=0.5)  # tasks that come a second time, unsaid
    degraded: float = Field(0.05, ge=0, le=0.5)  # tasks with one soundtrack made worse on purpose
    degradations: tuple[Degradation, ...] = ("noise", "low_pass", "late")
    random_share: float = Field(0.2, ge=0, le=1)  # of clips taken at random, not by AudioScore's uncertainty
    audioscore: str = "audioscore"  # the fit whose uncertainty says what comes first, if it is there
    show_events: bool = False  # mark true event times, where clips have them; raters then judge by the marks
    require_listen_s: float = Field(2.0, ge=0)  # of a soundtrack, before it may be judged
    skip_reasons: tuple[str, ...] = ("does not play", "cannot tell", "nothing to see", "unpleasant", "other")
    database: str = ""  # postgresql://… of a book on a server; empty is annotate/book.sqlite
    seed: int = 0
    model: part_field("models") = build("models", "world")  # type: ignore[valid-type]
    device: str = "cpu"

    @field_validator("raters", "renew")
    @classmethod
    def _names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            check_name(name)
        return names

    @field_validator("public_url")
    @classmethod
    def _address(cls, url: str) -> str:
        if url and not re.fullmatch(r"https?://[^/\s?#]+/?", url):
            raise ValueError(f"public_url is like https://rate.example.org, with no path, found {url!r}")
        return url

    @field_validator("versus")
    @classmethod
    def _two(cls, weights: tuple[str, ...]) -> tuple[str, ...]:
        if weights and (len(weights) != 2 or weights[0] == weights[1]):
            raise ValueError(f"versus names two models by their fingerprints, found {weights}")
        return weights

    @field_validator("skip_reasons")
    @classmethod
    def _reasons(cls, reasons: tuple[str, ...]) -> tuple[str, ...]:
        if not 1 <= len(reasons) <= 9 or len(set(reasons)) < len(reasons):
            raise ValueError(f"skip_reasons are 1 to 9 different ones, as a digit picks; found {reasons}")
        return reasons

    @property
    def tracks(self) -> int:
        """Soundtracks of a task at most."""
        return 2 if self.task == "compare" else self.num_tracks

    @property
    def campaign(self) -> str:
        """Names what is rated and how: tasks of another campaign are kept, but not gone on with."""
        return digest(
            self.name, self.task, self.split, self.model.part_name(), self.weights or "",
            self.tracks, self.ground_truth, *self.versus, length=12,
        )  # fmt: skip


def check_name(name: str) -> str:
    """A rater's name if it can be one. Raises ValueError."""
    if not RATER_NAME.fullmatch(name):
        raise ValueError(
            f"a rater's name is up to 64 letters, digits, '.', '_', '@', '+' or '-', found {name!r}"
        )
    return name
