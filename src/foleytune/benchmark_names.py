"""Which sound belongs to which video, by file name, as av-benchmark has it (its commit 050a5cd).

A prediction's file stem is cleaned, by its length alone, to the name of a VGGSound clip: 11 characters of
YouTube id, an underscore, six digits of start second. It is then looked up among the stems of the ground
truth, which are taken as they are. What finds no partner on the other side is left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

BY_LENGTH = {
    30: slice(10, 28),  # "000000014_zxpo56cpUBU_000007-0": a running number before, a variant after
    20: slice(0, 18),  # "zxpo56cpUBU_000007-0"
    21: slice(1, 19),  # "Y---g-f_I2yQ_000001_0"
}


class Pairing(NamedTuple):
    """Pairs of (prediction's stem, ground truth's stem), and the names without a partner, sorted."""

    pairs: tuple[tuple[str, str], ...]
    unpaired: tuple[str, ...]


def clean_name(stem: str) -> str:
    """The name by which a prediction is looked up, from its file stem (without the suffix).

    Stems of 30, 20 and 21 characters lose what stands around the 18 of a clip's name; any other is its own
    name. Nothing but the length is looked at, so an unrelated name of 20 characters loses its last two, and a
    suffix that was not taken off (".wav" makes 22) turns the rule off.
    """
    return stem[BY_LENGTH.get(len(stem), slice(None))]


def pair_names(truth: Iterable[str], predicted: Iterable[str], *, clean: bool = True) -> Pairing:
    """Pair stems of predictions with those of the ground truth, in the order of the predictions.

    Two predictions that clean to one name are two pairs with the same ground truth. A ground truth is never
    cleaned, so one called "zxpo56cpUBU_000007-0" has no partner, not even a prediction of the very same stem.
    With `clean=False` stems are compared raw: av-benchmark's way for the KL of PANNs, and for that alone.
    """
    truths = set(truth)
    names = {stem: clean_name(stem) if clean else stem for stem in predicted}
    pairs = tuple((stem, name) for stem, name in names.items() if name in truths)
    return Pairing(pairs, tuple(sorted(truths ^ set(names.values()))))
