"""Settings of the rating tool: who rates which clips, how many twice, and where the server listens."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from foleypref.models.backbones import ModelPart
from foleypref.settings.parts import Settings
from foleypref.workspace.records import digest

Kind = Literal["rate", "compare", "rank"]
Degradation = Literal["noise", "low_pass", "late"]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
OPERATOR = "operator"
RATER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
MAX_TRACKS = 9  # keys 1 to 9


class AnnotateSettings(Settings):
    """Who rates which soundtracks, and where. Shares are of a rater's tasks, `overlap` is of the clips."""

    task: Kind = "rate"
    split: str = "align"
    host: str = "127.0.0.1"  # any other address is open to other machines; heed the warning
    port: int = Field(8321, ge=0, le=65535)  # 0 is any free one
    public_url: str = ""  # the address that raters use, if a reverse proxy stands in front
    raters: tuple[str, ...] = ()  # each new one gets an address; without any there is one called "rater"
    renew: tuple[str, ...] = ()  # raters (or "operator") who get a new address in place of the old one
    name: str = "main"  # of this round of rating; another name starts afresh on the same clips
    num_clips: int | None = Field(None, ge=1)  # choose that many at random
    num_tracks: int = Field(5, ge=2, le=MAX_TRACKS)  # at most, per clip; two when comparing
    ground_truth: bool = False  # include the clip's own sound
    weights: str | None = None  # fingerprint; None takes candidates of all weights of `model`
    versus: tuple[str, ...] = ()  # two fingerprints: compare one candidate of each, from the same noise
    overlap: float = Field(0.1, ge=0, le=1)  # of the clips, which every rater gets; others go to one rater
    repeats: float = Field(0.05, ge=0, le=0.5)  # tasks shown a second time, unannounced
    degraded: float = Field(0.05, ge=0, le=0.5)  # tasks with one soundtrack degraded on purpose
    degradations: tuple[Degradation, ...] = ("noise", "low_pass", "late")
    random_share: float = Field(0.2, ge=0, le=1)  # of clips in random order, not by AudioScore's uncertainty
    audioscore: str = "audioscore"  # the fit whose uncertainty orders the clips, if it exists
    show_events: bool = False  # mark true event times; raters then tend to judge by the marks
    require_listen_s: float = Field(2.0, ge=0)  # per soundtrack, before it may be judged
    skip_reasons: tuple[str, ...] = ("does not play", "cannot tell", "nothing to see", "unpleasant", "other")
    database: str = ""  # postgresql://… of an event log on a server; empty: annotate/book.sqlite
    seed: int = 0
    model: ModelPart = Field("world", validate_default=True)
    device: str = "cpu"

    @field_validator("raters", "renew")
    @classmethod
    def _names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(check_name(name) for name in names)

    @field_validator("public_url")
    @classmethod
    def _address(cls, url: str) -> str:
        if url and not re.fullmatch(r"https?://[^/\s?#]+/?", url):
            raise ValueError(f"public_url is an address like https://rate.example.org, found {url!r}")
        return url

    @field_validator("versus")
    @classmethod
    def _two(cls, weights: tuple[str, ...]) -> tuple[str, ...]:
        if weights and (len(weights) != 2 or weights[0] == weights[1]):
            raise ValueError(f"versus takes the fingerprints of two different models, found {weights}")
        return weights

    @field_validator("skip_reasons")
    @classmethod
    def _reasons(cls, reasons: tuple[str, ...]) -> tuple[str, ...]:
        if not 1 <= len(reasons) <= 9 or len(set(reasons)) < len(reasons):
            raise ValueError(f"skip_reasons takes 1 to 9 different reasons, one per digit; found {reasons}")
        return reasons

    @property
    def tracks(self) -> int:
        """The largest number of soundtracks per task."""
        return 2 if self.task == "compare" else self.num_tracks

    @property
    def campaign_id(self) -> str:
        """A hash of the settings that define the tasks; tasks with another id are kept, but not continued."""
        return digest(
            self.name, self.task, self.split, self.model.part_name(), self.weights or "",
            self.tracks, self.ground_truth, *self.versus, length=12,
        )  # fmt: skip


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    return host in LOOPBACK or host.startswith("127.")


def check_name(name: str) -> str:
    """Return a rater's name. Raises ValueError if it has other characters or is too long."""
    if not RATER_NAME.fullmatch(name):
        raise ValueError(
            f"a rater's name is up to 64 letters, digits, '.', '_', '@', '+' or '-', found {name!r}"
        )
    return name
