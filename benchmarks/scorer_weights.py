"""A weights folder of random scorers at real size: everything but the numbers is as with the published files.

    python benchmarks/scorer_weights.py OUT [imagebind synchformer panns passt vggish clap aesthetics]

Weights follow the rule of the golden files, vocabularies are made up. 5 GB in all.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from safetensors.torch import save_file
from tests.golden import check_aesthetics, check_clap, check_imagebind, check_synchformer, check_taggers
from torch import Tensor

from foleypref.networks.passt import PaSST
from foleypref.networks.vggish import VGGish
from foleypref.published.registry import files_for
from foleypref.published.text_tokens import ROBERTA, Vocabulary

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"


def aesthetics() -> dict[str, Tensor]:
    """Return random weights under the official list of keys."""
    shapes = json.loads((GOLDEN / "scorers_audiobox.json").read_text())["shapes"]
    return check_aesthetics.official_state(shapes)


STATES: dict[str, Callable[[], dict[str, Tensor]]] = {
    "imagebind": lambda: dict(check_imagebind.network("B").state_dict()),
    "synchformer": lambda: dict(check_synchformer.network("B").state_dict()),
    "panns": lambda: check_taggers.panns_state("16k", "B"),
    "passt": lambda: check_taggers.filled(PaSST, "B"),
    "vggish": lambda: check_taggers.filled(VGGish, "B"),
    "clap": lambda: check_clap.official_state(*check_clap.SIZES["base"], vocabulary=ROBERTA.size),
    "aesthetics": aesthetics,
}


def vocabulary(folder: Path, wanted: Vocabulary) -> None:
    """Return a vocabulary of the right size: bytes, special tokens, and words that never occur."""
    from tokenizers import pre_tokenizers

    tokens = [*wanted.special, *pre_tokenizers.ByteLevel.alphabet()]
    tokens += [f"<made up {i}>" for i in range(wanted.size - len(tokens))]
    place = folder / wanted.name
    place.mkdir(parents=True, exist_ok=True)
    (place / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (place / "merges.txt").write_text("#version: 0.2\n")


def main() -> None:
    """Write the folder of weights; existing files are kept."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("scorers", nargs="*", default=list(STATES))
    args = parser.parse_args()
    vocabulary(args.folder, ROBERTA)
    for scorer in args.scorers:
        path = (args.folder / files_for(scorer)[0].name).with_suffix(".safetensors")
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({key: value.contiguous() for key, value in STATES[scorer]().items()}, path)
        if scorer == "aesthetics":
            path.with_name("config.json").write_text(json.dumps(check_aesthetics.UNSCALED))
        print(f"{path} {path.stat().st_size / 1e9:.2f} GB", flush=True)


if __name__ == "__main__":
    main()
