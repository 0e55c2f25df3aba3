"""Repositories of the Hugging Face hub: a snapshot fetched, a folder pushed; nothing else goes online."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from foleypref.models.saved import ADAPTER_CONFIG, CARD, CONFIG, FILES, HubConfig
from foleypref.workspace.markdown import one_line, read_front_matter
from foleypref.workspace.walk import say

_REPO = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def folder_of(folder_or_repo_id: str | Path, revision: str | None = None, token: str | None = None) -> Path:
    """Return a folder as it is, or for a repository id the folder of its snapshot, fetched if need be.

    Raises ValueError for what is neither, and for what the hub refuses.
    """
    folder = Path(folder_or_repo_id).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise ValueError(f"{folder} is a folder on this disk and has no revision {revision!r}")
        return folder
    repo_id = str(folder_or_repo_id)
    if not _REPO.fullmatch(repo_id):
        raise ValueError(f"{repo_id}: no such folder, and no repository id such as owner/name either")
    with _hub(f"fetch {repo_id}") as hub:
        return Path(hub.snapshot_download(repo_id, revision=revision, token=token, allow_patterns=[*FILES]))


def push_to_hub(folder: str | Path, repo_id: str, private: bool = True, token: str | None = None) -> str:
    """Push the files that `save_pretrained` or `save_audioscore` wrote, and no other; returns the URL.

    The repository is made if it is not there. Raises ValueError for a folder that is not whole, for a card
    that grants what the weights do not, for a public repository where `private` is asked for.
    """
    from foleypref.models.saved_part import check_folder

    path = Path(folder).expanduser()
    if not _REPO.fullmatch(repo_id):
        raise ValueError(f"a repository id is owner/name, found {repo_id!r}")
    config = check_folder(path)
    names = _written(path, config)
    _check_card(path / CARD, config)
    with _hub(f"push to {repo_id}") as hub:
        api = hub.HfApi(token=token)
        api.create_repo(repo_id, private=private, exist_ok=True, repo_type="model")
        if private and not api.repo_info(repo_id, repo_type="model").private:
            raise ValueError(
                f"{repo_id} is there and is public; pass private=False (--public) if you mean it"
            )
        done = api.upload_folder(
            repo_id=repo_id,
            folder_path=str(path),
            allow_patterns=names,
            commit_message=f"foleypref {config.foleypref_version}: {config.kind}",
            repo_type="model",
        )
    return str(getattr(done, "commit_url", done))


def _written(folder: Path, config: HubConfig) -> list[str]:
    """Return the names to push: files themselves, and no links, which could lead to anything."""
    names = [CONFIG, CARD, config.weights_file, *([ADAPTER_CONFIG] if config.is_adapter else [])]
    for name in names:
        if not (folder / name).is_file() or (folder / name).is_symlink():
            raise ValueError(
                f"{folder / name} is no file of its own; make the folder with `foleypref hub save`"
            )
    left = sorted(p.name for p in folder.iterdir() if p.name not in names and p.name[0] != ".")
    if left:
        say(f"hub: not pushed: {', '.join(left[:10])}{' …' if len(left) > 10 else ''}")
    return names


def _check_card(card: Path, config: HubConfig) -> None:
    """Raise ValueError if the card, which a user may rewrite, grants what its weights do not."""
    try:
        licence = read_front_matter(card.read_text(encoding="utf-8")).get("license")
    except ValueError as error:
        raise ValueError(f"{card}: {one_line(str(error))}") from None
    if config.non_commercial and licence != config.license:
        raise ValueError(
            f"{card} says license: {licence}, but it was made with weights that allow no commercial use: "
            f"it has to say {config.license}"
        )


@contextmanager
def _hub(action: str) -> Iterator[Any]:
    """Yield the hub's own package; raise its errors, and ValueError if it is not installed, as one line."""
    try:
        import huggingface_hub
    except ModuleNotFoundError:
        raise ValueError(
            "the hub needs the package 'huggingface_hub'; install it with `pip install 'foleypref[hub]'`"
        ) from None
    try:
        yield huggingface_hub
    except ValueError:
        raise
    except Exception as error:  # its own kinds, httpx's and the system's
        kind = type(error).__name__
        raise ValueError(f"could not {action}: {kind}: {(one_line(str(error)) or kind)[:500]}") from error
