"""The registry's entry of a published weight file; None stands for anything that is not certain."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from pathlib import PurePosixPath


@dataclass(frozen=True)
class WeightFile:
    """One published file; `name` identifies it in commands and is its path below the weights folder."""

    name: str
    role: str  # up to the first comma the result of `identify`; the rest cannot be seen in the content
    _: KW_ONLY
    repo: str | None = None  # on the Hugging Face hub
    path_in_repo: str | None = None
    url: str | None = None  # of the file itself, outside the hub
    bytes: int | None = None
    md5: str | None = None
    sha256: str | None = None
    licence: str | None = None  # of the weights, not of the code; None: not stated
    non_commercial: bool = False  # the licence is known to forbid commercial use
    notes: str = ""
    page: str | None = None  # where to download it by hand, if a program cannot
    other_repos: tuple[str, ...] = ()  # former or other names of `repo`
    other_stems: tuple[str, ...] = ()  # its names, without suffix, in third-party safetensors conversions

    @property
    def file(self) -> str:
        """The last part of `name`, without folders."""
        return PurePosixPath(self.name).name

    @property
    def source(self) -> str | None:
        """The URL to get it from, or None if it is not known."""
        if self.repo and self.path_in_repo:
            return f"https://huggingface.co/{self.repo}/resolve/main/{self.path_in_repo}"
        return self.url or self.page

    @property
    def terms(self) -> str:
        """The licence as a phrase for messages."""
        if self.licence is None:
            return "licence not stated by its authors: ask them before you pass it on"
        return f"licence {self.licence}" + (": non-commercial use only" if self.non_commercial else "")
