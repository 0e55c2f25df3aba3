"""Which sound belongs to which video, by file name, as av-benchmark has it (its commit 050a5cd).

A prediction's file stem is cleaned, by its length alone, to the name of a VGGSound clip: 11 characters of
YouTube id, an underscore, six digits of start second. It is then looked up among the stems of the ground
truth, which are taken as they are. What finds no partner on the other side is left out.
"""

from __future__ import annotations

BY_LENGTH = {
    30: slice(10, 28),  # "000000014_zxpo56cpUBU_000007-0": a running number before, a variant after
    20: slice(0, 18),  # "zxpo56cpUBU_000007-0"
    21: slice(1, 19),  # "Y---g-f_I2yQ_000001_0"
}


def clean_name(stem: str) -> str:
    """The name by which a prediction is looked up, from its file stem (without the suffix).

    Stems of 30, 20 and 21 characters lose what stands around the 18 of a clip's name; any other is its own
    name. Nothing but the length is looked at, so an unrelated name of 20 characters loses its last two, and a
    suffix that was not taken off (".wav" makes 22) turns the rule off.
    """
    return stem[BY_LENGTH.get(len(stem), slice(None))]
