"""What may be done with a model that was made with other people's weights: the licence of its card.

Weights that allow no commercial use make a model that allows none, whether they are what was tuned or what
judged: a reward or pairs of a non-commercial judge are its work. What is not stated is said to be so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from foleypref.published.registry import MODELS, files_for
from foleypref.published.weight_file import WeightFile
from foleypref.settings.parts import names

OURS = "Apache-2.0"  # of the code, and of the world's weights
PERMISSIVE = ("Apache-2.0", "MIT", "BSD-3-Clause", "CC0-1.0", "CC-BY-4.0", "MS-PL")
NOT_KNOWN = "not known"
_NAMED_BY_HUBS = "CC-BY-NC-4.0"  # the one non-commercial licence here that hubs have an id for


@dataclass(frozen=True)
class Used:
    """One file of weights that a model was made with."""

    weight: str
    used_for: str
    licence: str
    non_commercial: bool = False

    @property
    def spdx(self) -> str:
        """The licence's name without remarks."""
        found = re.match(r"[\w.+-]+", self.licence)
        return found[0] if found else ""


class CardLicence(NamedTuple):
    """A hub's `license`, its `license_name` where that is "other", and why, one reason a weight."""

    license: str
    name: str
    reasons: tuple[str, ...]
    non_commercial: bool

    def head(self) -> dict[str, str]:
        """For the card's YAML head."""
        return {"license": self.license, **({"license_name": self.name} if self.name else {})}


def registry_name(settings: Mapping[str, Any]) -> str:
    """What the registry calls a part with these settings: "mmaudio-small-16k" where variants have files."""
    name, variant = str(settings["name"]), settings.get("variant")
    return f"{name}-{variant}" if f"{name}-{variant}" in MODELS else name


def model_weights(settings: Mapping[str, Any], used_for: str) -> list[Used]:
    """The weights that a model runs on, by its settings: published ones, or the package's own."""
    name = registry_name(settings)
    if name in MODELS:
        return [_used(entry, used_for) for entry in files_for(name)]
    if name in names("models"):
        return [Used(f"{name}, in the package", used_for, OURS)]
    return [Used(name, used_for, f"{NOT_KNOWN}: a model of another package")]


def scorer_weights(scorers: Iterable[str], used_for: str) -> list[Used]:
    """The published weights behind scorers; those that need none, or the package's own, add nothing."""
    found: list[Used] = []
    for scorer in scorers:
        stem = scorer.partition("-")[0]
        name = next((n for n in (scorer, scorer.replace("-", "_"), stem) if n in MODELS), None)
        if name is not None:
            found += [_used(entry, f"{scorer}, {used_for}") for entry in files_for(name)]
        elif stem not in names("scorers"):
            found.append(Used(scorer, used_for, f"{NOT_KNOWN}: a scorer of another package"))
    return found


def card_licence(used: Sequence[Used]) -> CardLicence:
    """The licence that a card has to state for a model made with these weights."""
    limited = [one for one in used if one.non_commercial]
    unclear = [one for one in used if not one.non_commercial and one.spdx not in PERMISSIVE]
    reasons = tuple(dict.fromkeys(f"{one.weight}: {one.licence}" for one in (*limited, *unclear)))
    if limited and not unclear and {one.spdx for one in limited} == {_NAMED_BY_HUBS}:
        return CardLicence(_NAMED_BY_HUBS.lower(), "", reasons, True)
    if limited:
        return CardLicence("other", "non-commercial-see-card", reasons, True)
    if unclear:
        return CardLicence("other", "see-card", reasons, False)
    return CardLicence(OURS.lower(), "", (), False)


def _used(entry: WeightFile, used_for: str) -> Used:
    return Used(entry.name, used_for, entry.licence or "not stated", entry.non_commercial)
