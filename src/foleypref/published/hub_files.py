"""Files of Hugging Face repositories that are on this disk: hub caches and folders, never the network.

A scorer's `weights` setting is "" (its published file), a path, or a repository such as
`laion/larger_clap_general`, of which a snapshot lies in the weights folder or in the hub's cache.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from foleypref.published.places import MissingWeights, hub_cache, locate, weights_folder

MODEL_FILES = ("model.safetensors", "pytorch_model.bin")
CONFIG = "config.json"
_REPO = re.compile(r"[\w.-]+/[\w.-]+")


def hub_file(repo: str, name: str, folder: Path | str | None = None) -> Path | None:
    """The file `name` of `repo` where a hub cache or the weights folder has it, else None.

    A folder called like the repository, with or without its owner, is taken as well.
    """
    return next((path for place in _places(repo, folder) if (path := place / name).is_file()), None)


def hub_folder(weights: str, folder: Path | str | None = None) -> Path:
    """The folder with the `config.json` of a model: `weights` is such a folder or a repository.

    Raises MissingWeights that says how to get it.
    """
    own = Path(weights).expanduser()
    if (own / CONFIG).is_file():
        return own
    found = hub_file(weights, CONFIG, folder) if _REPO.fullmatch(weights) else None
    if found is None:
        raise MissingWeights(_missing(weights, CONFIG, folder))
    return found.parent


def weights_path(weights: str, published: str, folder: Path | str | None = None) -> Path:
    """The file that a `weights` setting means; "" is the file that the registry calls `published`.

    Raises MissingWeights that says what is missing and how to get it, and ValueError for a path that is none.
    """
    if not weights:
        return locate(published, folder)
    own = Path(weights).expanduser()
    if own.is_file():
        return own
    for name in MODEL_FILES:
        if own.is_dir() and (own / name).is_file():
            return own / name
        if _REPO.fullmatch(weights) and (found := hub_file(weights, name, folder)):
            return found
    wanted = " or ".join(MODEL_FILES)
    if _REPO.fullmatch(weights) and not own.exists():
        raise MissingWeights(_missing(weights, wanted, folder))
    raise ValueError(f"{own} is no file, nor a folder with {wanted}; give the path of the weights")


def _missing(repo: str, wanted: str, folder: Path | str | None) -> str:
    return (
        f"{repo} is neither on this disk by that path nor a repository with {wanted} in "
        f"{weights_folder(folder)} or {hub_cache()}; `hf download {repo}` gets it"
    )


def _places(repo: str, folder: Path | str | None) -> Iterator[Path]:
    root = weights_folder(folder)
    yield root / repo
    yield root / repo.split("/")[-1]
    for cache in (root, root / "hub", hub_cache()):
        base = cache / f"models--{repo.replace('/', '--')}"
        main = base / "refs" / "main"
        if main.is_file():  # what was fetched last of the main branch, before other branches and times
            yield base / "snapshots" / main.read_text().strip()
        yield from sorted((base / "snapshots").glob("*"))
