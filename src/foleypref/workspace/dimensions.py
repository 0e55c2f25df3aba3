"""Names of what scorers give: "scorer/name" of a dimension or an embedding, "scorer@version" of its maker.

Settings, metrics and files on disk hold the text; code that needs a half of it parses it here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Dimension:
    """One number (or embedding) of one scorer. `str` gives "scorer/name"."""

    scorer: str
    name: str

    def __str__(self) -> str:
        return f"{self.scorer}/{self.name}"

    @classmethod
    def parse(cls, text: str) -> Dimension:
        """Return the dimension that `text` names. Raises ValueError if it is not "scorer/name"."""
        scorer, _, name = text.rpartition("/")
        if not scorer or not name:
            raise ValueError(f'a score\'s dimension is written "scorer/name", found {text!r}')
        return cls(scorer, name)


def embeddings_key(scorer: str, version: str) -> str:
    """Return the key that the embeddings of a scorer in one version are stored under."""
    return f"{scorer}@{version}"


def scorer_and_version(key: str) -> tuple[str, str]:
    """Return the scorer and version in an embedding's key; any other feature's key gives scorer ""."""
    scorer, _, version = key.rpartition("@")
    return scorer, version


def scorers_of(dimensions: Iterable[str]) -> tuple[str, ...]:
    """Return the scorers behind "scorer/name" texts, each once, in order of first appearance."""
    return tuple(dict.fromkeys(Dimension.parse(text).scorer for text in dimensions))
