"""Locate weight files: in the weights folder, in the layouts of other projects, and in the hub's cache.

A file is found by its name anywhere below the weights folder, so upstream's `weights/` and `ext_weights/` and
the hub's `models--owner--name/snapshots/…` need no change; the hub's own cache is searched too.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath

from foleypref.published.registry import WeightFile, find

VARIABLE = "FOLEYPREF_WEIGHTS"
CONVERTED = ".foleypref.safetensors"  # ends the names of our conversions: see `conversion.py`
EARLIER = "foleytune"  # the project's earlier name: folders and files written under it still open
CONVERTED_EARLIER = f".{EARLIER}.safetensors"
MAX_DEPTH = 6  # folders below the weights folder; a hub cache inside it needs five
MAX_FOLDERS = 20_000  # searched at most: a whole disk is not a weights folder
_SKIPPED = {"blobs", "refs", ".git", ".venv", "node_modules", "__pycache__", ".locks", ".no_exist"}
_GENERIC = {  # file names that many models share
    "checkpoint.pt",
    "open_clip_pytorch_model.bin",
    "model.safetensors",
    "config.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "model_index.json",
}
_CONVERSION = r"(?:[._-](?:fp16|fp32|bf16|half))?\.safetensors"


class MissingWeights(ValueError):
    """A published file is not on this disk; the message says where we looked and how to get it."""


def weights_folder(folder: Path | str | None = None) -> Path:
    """Return the folder of weights: the argument, else $FOLEYPREF_WEIGHTS, else ~/.cache/foleypref/weights.

    The variable and the cache folder of the project's earlier name count where the new ones are absent.
    """
    variables = (VARIABLE, f"{EARLIER.upper()}_WEIGHTS")
    named = next((os.environ[name] for name in variables if os.environ.get(name)), None)
    own, earlier = cache_folder() / "weights", cache_folder().with_name(EARLIER) / "weights"
    default = earlier if earlier.is_dir() and not own.is_dir() else own
    return Path(folder or named or default).expanduser()


def cache_folder() -> Path:
    """Return the folder for files that foleypref can make again."""
    return Path("~/.cache/foleypref").expanduser()


def hub_cache() -> Path:
    """Return the Hugging Face hub's cache on this machine, by the hub's own variables."""
    home = os.environ.get("HF_HOME") or "~/.cache/huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or f"{home}/hub").expanduser()


def locate(name: str, folder: Path | str | None = None) -> Path:
    """Return the path of the published file `name`. Raises MissingWeights, which says how to get it."""
    entry = find(name)
    root = weights_folder(folder)
    for place in _usual_places(entry, root):
        if place.is_file() and _right_size(place, entry):
            return place
    ranked = [(rank, len(path.parts), str(path)) for path in _files(root) if (rank := _rank(path, entry))]
    if not ranked:
        raise MissingWeights(_missing(entry, root))
    return Path(min(ranked)[2])


def is_conversion(path: Path, entry: WeightFile) -> bool:
    """Return whether a file located for `entry` is a safetensors conversion, not the published file."""
    return path.suffix == ".safetensors" and path.name != entry.file


def companions(path: Path, name: str) -> list[Path]:
    """Return where a file derived from `path` may lie: beside it, or in our cache if that folder is not ours.

    Nothing is written into a snapshot of the hub; other folders may turn out to be read-only.
    """
    digest = hashlib.sha256(str(path.resolve().parent).encode()).hexdigest()[:12]
    cached = cache_folder() / "derived" / digest / name
    return [cached] if "snapshots" in path.parts else [path.with_name(name), cached]


def write_to_first(places: Iterable[Path], write: Callable[[Path], object]) -> Path | None:
    """Return the first place that `write` succeeds at; None if all folders are read-only or disks full."""
    for place in places:
        with contextlib.suppress(OSError):
            write(place)
            return place
    return None


def _usual_places(entry: WeightFile, root: Path) -> Iterator[Path]:
    yield root / entry.name
    for below in ("weights", "ext_weights"):
        yield root / below / entry.name
    repos = [repo for repo in (entry.repo, *entry.other_repos) if repo]
    for repo in repos:
        for cache in (root, root / "hub", hub_cache()):
            snapshots = cache / f"models--{repo.replace('/', '--')}" / "snapshots"
            yield from sorted(snapshots.glob(f"*/{entry.path_in_repo}"))


def _rank(path: Path, entry: WeightFile) -> int:
    """Rank how well a file fits an entry by name and size: 1 is best, 0 does not fit."""
    if path.name == entry.file:
        if entry.file in _GENERIC and not _belongs(path, entry):
            return 0
        # A wrong size beats a conversion: damage is reported, not worked around.
        return (1 if _belongs(path, entry) else 2) if _right_size(path, entry) else 3
    own_name = entry.file not in _GENERIC or _belongs(path, entry)
    if own_name and path.name in (entry.file + CONVERTED, entry.file + CONVERTED_EARLIER):
        return 4
    stems = [*entry.other_stems, *([PurePosixPath(entry.file).stem] if own_name else [])]
    return 5 if any(re.fullmatch(re.escape(stem) + _CONVERSION, path.name) for stem in stems) else 0


def _belongs(path: Path, entry: WeightFile) -> bool:
    """Return whether the file's folders show that it is this entry's, where its name could be any model's."""
    folders = path.parts[:-1]
    own = PurePosixPath(entry.name).parts[:-1]
    repos = [repo.split("/")[1] for repo in (entry.repo, *entry.other_repos) if repo]
    in_repo = any(folder.endswith(repo) for folder in folders for repo in repos)
    return in_repo or folders[len(folders) - len(own) :] == own


def _right_size(path: Path, entry: WeightFile) -> bool:
    return entry.bytes is None or path.stat().st_size == entry.bytes


def _files(root: Path) -> Iterator[Path]:
    """Yield the files below `root`, shallow folders first, up to MAX_DEPTH and MAX_FOLDERS."""
    waiting = deque([(root, 0)])
    for _ in range(MAX_FOLDERS):
        if not waiting:
            return
        folder, depth = waiting.popleft()
        try:
            paths = sorted(folder.iterdir())
            files = [path for path in paths if path.is_file()]
        except OSError:  # no such folder, or not ours to read
            continue
        yield from files
        if depth < MAX_DEPTH:
            waiting += [(path, depth + 1) for path in paths if path.name not in _SKIPPED and path.is_dir()]


def _missing(entry: WeightFile, root: Path) -> str:
    extent = f"{MAX_DEPTH} folders deep" if root.is_dir() else "no such folder"
    looked = f"looked in {root} ({extent})" + (f" and {hub_cache()}" if entry.repo else "")
    size = f", {entry.bytes:,} bytes" if entry.bytes else ""
    if entry.page:
        how = f"get it by hand from {entry.page} and save it as {root / entry.name}"
    else:
        how = f"`foleypref weights fetch {entry.name}` gets it from {entry.source}"
    return f"{entry.name} ({entry.role}{size}) is missing: {looked}; {how}; {entry.terms}"
