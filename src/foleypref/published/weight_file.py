"""What is known of a published weight file; None stands where nothing is known for certain."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath


@dataclass(frozen=True)
class WeightFile:
    """One published file; `name` is what commands take and where it lies below the weights folder."""

    name: str
    role: str  # what `identify` says of its content; what follows a comma is not told by the content
    repo: str | None  # on the Hugging Face hub
    path_in_repo: str | None
    url: str | None  # of the file itself, elsewhere
    bytes: int | None
    md5: str | None
    sha256: str | None
    licence: str | None  # of the weights, not of the code; None: not stated
    non_commercial: bool  # known to forbid commercial use
    notes: str = ""
    page: str | None = None  # where a person gets it, if no program can
    other_repos: tuple[str, ...] = ()  # former or other names of `repo`
    other_stems: tuple[str, ...] = ()  # names that third-party safetensors conversions give it

    @property
    def file(self) -> str:
        """The file's own name, without folders."""
        return PurePosixPath(self.name).name

    @property
    def source(self) -> str | None:
        """Where to get it: a URL, or None if nobody knows."""
        if self.repo and self.path_in_repo:
            return f"https://huggingface.co/{self.repo}/resolve/main/{self.path_in_repo}"
        return self.url or self.page

    @property
    def terms(self) -> str:
        """Its licence in words."""
        if self.licence is None:
            return "licence not stated by its authors: ask them before you pass it on"
        return f"licence {self.licence}" + (": non-commercial use only" if self.non_commercial else "")
