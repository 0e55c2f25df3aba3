"""Find files of Hugging Face repositories on this disk, in hub caches and folders, never over the network.

A scorer's `weights` setting is "" (its published file), a path, or a repository such as
`laion/larger_clap_general`, of which a snapshot lies in the weights folder or in the hub's cache.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from foleypref.published.places import MissingWeights, hub_cache, locate, weights_folder
from foleypref.published.weights import load_published

MODEL_FILES = ("model.safetensors", "pytorch_model.bin")
CONFIG = "config.json"
_REPO = re.compile(r"[\w.-]+/[\w.-]+")


def hub_file(repo: str, name: str, folder: Path | str | None = None) -> Path | None:
    """Return the file `name` of `repo` from a hub cache or the weights folder, or None.

    A folder with the repository's name, with or without its owner, counts too.
    """
    return next((path for place in _snapshots(repo, folder) if (path := place / name).is_file()), None)


def hub_folder(weights: str, folder: Path | str | None = None) -> Path:
    """Return the folder with a model's `config.json`, given it or its repository. Raises MissingWeights."""
    own = Path(weights).expanduser()
    if (own / CONFIG).is_file():
        return own
    config = hub_file(weights, CONFIG, folder) if _REPO.fullmatch(weights) else None
    if config is None:
        raise MissingWeights(_missing(weights, CONFIG, folder))
    return config.parent


def weights_path(weights: str, published: str, folder: Path | str | None = None) -> Path:
    """Return the file that a `weights` setting means; "" is the registry's file `published`.

    Raises MissingWeights, which says what is missing and how to get it, and ValueError for a path that is
    neither a file nor a folder with weights.
    """
    if not weights:
        return locate(published, folder)
    own = Path(weights).expanduser()
    if own.is_file():
        return own
    for name in MODEL_FILES:
        if own.is_dir() and (own / name).is_file():
            return own / name
        if _REPO.fullmatch(weights) and (in_repo := hub_file(weights, name, folder)):
            return in_repo
    names = " or ".join(MODEL_FILES)
    if _REPO.fullmatch(weights) and not own.exists():
        raise MissingWeights(_missing(weights, names, folder))
    raise ValueError(f"{own} is no file, nor a folder with {names}; give the path of the weights")


def load_weights(weights: str, published: str, folder: Path | str | None = None) -> dict[str, Tensor]:
    """Load the tensors that a `weights` setting means; raises as `weights_path` and `load_published` do."""
    return load_published(weights_path(weights, published, folder) if weights else published, folder)


def _missing(repo: str, names: str, folder: Path | str | None) -> str:
    return (
        f"{repo} is neither on this disk by that path nor a repository with {names} in "
        f"{weights_folder(folder)} or {hub_cache()}; `hf download {repo}` gets it"
    )


def _snapshots(repo: str, folder: Path | str | None) -> Iterator[Path]:
    """Yield the folders that may hold the repository's files, best first."""
    root = weights_folder(folder)
    yield root / repo
    yield root / repo.split("/")[-1]
    for cache in (root, root / "hub", hub_cache()):
        base = cache / f"models--{repo.replace('/', '--')}"
        main = base / "refs" / "main"
        if main.is_file():  # the main branch's last snapshot comes before other branches and times
            yield base / "snapshots" / main.read_text().strip()
        yield from sorted((base / "snapshots").glob("*"))
