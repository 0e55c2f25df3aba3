"""Sets of scorers by one name, wherever names of scorers are asked for."""

from __future__ import annotations

from collections.abc import Iterable

SCORER_SETS: dict[str, tuple[str, ...]] = {
    # the five judges of V2A-DPO (arXiv 2603.11089, 2.1)
    "v2a_dpo": ("imagebind", "clap", "synchformer", "panns", "pesq"),
    # what the tables of the field are made of
    "av_benchmark": ("imagebind", "synchformer", "panns", "passt", "vggish", "clap"),
    # weights and code that allow commercial use: no ImageBind, Synchformer or PESQ
    "commercial": ("pe_av", "clap", "msclap", "panns", "passt", "vggish", "aesthetics", "av_align", "onset"),
}


def expand_sets(names: Iterable[str]) -> tuple[str, ...]:
    """Names with every preset replaced by its scorers, each once, in order."""
    scorers = (scorer for name in names for scorer in SCORER_SETS.get(name, (name,)))
    return tuple(dict.fromkeys(scorers))
