"""The licence on the card of a model that was made with published weights.

If any of the weights forbid commercial use, so does the model, whether they were tuned or used as a judge: a
reward or pairs from a non-commercial judge derive from it. Licences that are not stated are listed as such.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from foleypref.published.registry import MODELS, WeightFile, files_for
from foleypref.settings.parts import names

OURS = "Apache-2.0"  # of the code, and of the world's weights
PERMISSIVE = ("Apache-2.0", "MIT", "BSD-3-Clause", "CC0-1.0", "CC-BY-4.0", "MS-PL")
NOT_KNOWN = "not known"
_NAMED_BY_HUBS = "CC-BY-NC-4.0"  # the only non-commercial licence here that hubs have an id for


@dataclass(frozen=True)
class WeightUse:
    """A file of weights that a model was made with, and its part in that."""

    weight: str
    used_for: str
    licence: str
    non_commercial: bool = False

    @property
    def spdx(self) -> str:
        """The licence's identifier, without remarks."""
        identifier = re.match(r"[\w.+-]+", self.licence)
        return identifier[0] if identifier else ""


class CardLicence(NamedTuple):
    """A hub's `license`, its `license_name` if that is "other", and one reason per file of weights."""

    license: str
    name: str
    reasons: tuple[str, ...]
    non_commercial: bool

    def head(self) -> dict[str, str]:
        """Return the entries of the card's YAML head."""
        return {"license": self.license, **({"license_name": self.name} if self.name else {})}


def registry_name(settings: Mapping[str, Any]) -> str:
    """Return the registry's name of a part with these settings, variant included: "mmaudio-small-16k"."""
    name, variant = str(settings["name"]), settings.get("variant")
    return f"{name}-{variant}" if f"{name}-{variant}" in MODELS else name


def model_weights(settings: Mapping[str, Any], used_for: str) -> list[WeightUse]:
    """List the weights that a model with these settings runs on: published ones, or the package's own."""
    name = registry_name(settings)
    if name in MODELS:
        return [_used(entry, used_for) for entry in files_for(name)]
    if name in names("models"):
        return [WeightUse(f"{name}, in the package", used_for, OURS)]
    return [WeightUse(name, used_for, f"{NOT_KNOWN}: a model of another package")]


def scorer_weights(scorers: Iterable[str], used_for: str) -> list[WeightUse]:
    """List the published weights behind scorers; scorers without weights, or with the package's, add none."""
    weights: list[WeightUse] = []
    for scorer in scorers:
        stem = scorer.partition("-")[0]
        name = next((n for n in (scorer, scorer.replace("-", "_"), stem) if n in MODELS), None)
        if name is not None:
            weights += [_used(entry, f"{scorer}, {used_for}") for entry in files_for(name)]
        elif stem not in names("scorers"):
            weights.append(WeightUse(scorer, used_for, f"{NOT_KNOWN}: a scorer of another package"))
    return weights


def card_licence(used: Sequence[WeightUse]) -> CardLicence:
    """Return the licence that the card of a model made with these weights must state."""
    limited = [file for file in used if file.non_commercial]
    unclear = [file for file in used if not file.non_commercial and file.spdx not in PERMISSIVE]
    reasons = tuple(dict.fromkeys(f"{file.weight}: {file.licence}" for file in (*limited, *unclear)))
    if limited and not unclear and {file.spdx for file in limited} == {_NAMED_BY_HUBS}:
        return CardLicence(_NAMED_BY_HUBS.lower(), "", reasons, True)
    if limited:
        return CardLicence("other", "non-commercial-see-card", reasons, True)
    if unclear:
        return CardLicence("other", "see-card", reasons, False)
    return CardLicence(OURS.lower(), "", (), False)


def _used(entry: WeightFile, used_for: str) -> WeightUse:
    return WeightUse(entry.name, used_for, entry.licence or "not stated", entry.non_commercial)
