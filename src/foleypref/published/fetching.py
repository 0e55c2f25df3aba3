"""Fetch published weight files from the Hugging Face hub or by URL, and check each before it gets its name.

A file is downloaded under another name and renamed when its size and hash are right, so a file with its name
is whole. Without a network, fetching fails within seconds with a message of one line.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from foleypref.published import hashes
from foleypref.published.downloads import TIMEOUT_S, Unreachable, download, reach, say
from foleypref.published.places import locate, weights_folder
from foleypref.published.registry import WeightFile, find
from foleypref.published.sniff import check_format


def fetch(name: str, folder: Path | str | None = None, *, quiet: bool = False) -> Path:
    """Download the published file `name` into the weights folder unless it is there; return its path.

    The licence is printed first. An interrupted download is resumed. Raises ValueError, with a message of one
    line, if there is no network, no room or no such file, if the hub requires a log-in, or if the downloaded
    file is not the published one.
    """
    entry = find(name)
    root = weights_folder(folder)
    if present := _present(entry, root):
        say(f"{entry.name}: already there, {present}", quiet)
        return present
    place = root / entry.name
    if entry.page:
        raise ValueError(
            f"{entry.name} ({entry.role}) cannot be fetched by a program: get it by hand from {entry.page} "
            f"and save it as {place} ({entry.notes or 'no more is known about it'}); {entry.terms}"
        )
    say(f"{entry.name}: {entry.role}, from {entry.source}; {entry.terms}", quiet)
    try:
        part = _from_hub(entry, place, quiet) if entry.repo else _from_url(entry, place, quiet)
    except Unreachable as error:
        raise ValueError(
            f"{entry.name}: {error}; with a network try again, or get {entry.source} on another machine and "
            f"copy it to {place}"
        ) from error
    return _accept(entry, part, place, quiet)


def _present(entry: WeightFile, root: Path) -> Path | None:
    """Return the file's path if it is there and right; None if it is missing or damaged."""
    try:
        path = locate(entry.name, root)
        check_format(path)
    except ValueError:
        return None
    return path if path.name == entry.file and hashes.mismatch(path, entry) is None else None


def _accept(entry: WeightFile, part: Path, place: Path, quiet: bool) -> Path:
    """Give a finished download its name if it is the published file; else delete it and raise ValueError."""
    try:
        difference = hashes.mismatch(part, entry)
        if difference is None:
            check_format(part)
    except ValueError as error:  # no hash is known, but this is not a checkpoint
        difference = str(error)
    if difference is not None:
        hashes.remove(part)
        raise ValueError(
            f"what {entry.source} sent is not the published {entry.name}: {difference}; it was deleted. "
            "Try again; if it happens again, the file has been replaced where it is published"
        )
    _move_aside(place, quiet)
    hashes.rename(part, place)
    shutil.rmtree(_staging(place), ignore_errors=True)
    check = "size and hash are right" if entry.sha256 or entry.md5 else "no hash of it is published"
    say(f"{entry.name}: {place}, {check}; sha256 {hashes.file_hashes(place).sha256}", quiet)
    return place


def _move_aside(place: Path, quiet: bool) -> None:
    """Rename a whole checkpoint that has the published file's name: it may be the user's tuned one."""
    try:
        check_format(place)
    except ValueError:  # absent or torn
        return
    aside = next(
        path
        for number in range(1, 1000)
        if not (path := place.with_name(f"{place.name}.old-{number}")).exists()
    )
    os.replace(place, aside)
    say(f"{place} was another file; it is now {aside}", quiet)


def _from_url(entry: WeightFile, place: Path, quiet: bool) -> Path:
    assert entry.url is not None
    part = place.with_name(f"{place.name}.part")
    download(entry.url, part, entry.name, quiet=quiet)
    return part


def _from_hub(entry: WeightFile, place: Path, quiet: bool) -> Path:
    """Download by huggingface_hub into a folder beside the place, where that library can resume."""
    try:
        from huggingface_hub import constants, hf_hub_download
        from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError
        from huggingface_hub.utils import disable_progress_bars
    except ModuleNotFoundError:
        if entry.url:
            return _from_url(entry, place, quiet)
        raise ValueError(
            f"{entry.name} needs the package 'huggingface_hub'; install it with "
            f"`pip install 'foleypref[mmaudio]'`, or get {entry.source} by hand and save it as {place}"
        ) from None
    assert entry.repo is not None
    assert entry.path_in_repo is not None
    if constants.HF_HUB_OFFLINE:
        raise Unreachable("the hub is switched off by HF_HUB_OFFLINE")
    reach(constants.ENDPOINT)  # the library itself would try for half a minute
    if quiet:
        disable_progress_bars()
    staging = _staging(place)
    try:
        return Path(
            hf_hub_download(entry.repo, entry.path_in_repo, local_dir=staging, etag_timeout=TIMEOUT_S)
        )
    except GatedRepoError as error:
        raise ValueError(
            f"{entry.name}: {entry.repo} requires you to accept its terms: do so at https://huggingface.co/"
            f"{entry.repo}, then `hf auth login` and fetch again"
        ) from error
    except LocalEntryNotFoundError as error:
        raise Unreachable(f"the connection to {constants.ENDPOINT} broke") from error
    except HfHubHTTPError as error:
        reason = (str(error).strip().splitlines() or ["no reason given"])[-1]
        raise ValueError(f"{entry.name}: the hub refused {entry.source}: {reason}") from error
    except OSError as error:
        raise ValueError(f"{entry.name}: the download stopped ({error}); the same command goes on") from error


def _staging(place: Path) -> Path:
    return place.with_name(f".{place.name}.fetching")
