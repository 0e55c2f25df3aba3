"""A hub folder on disk: its files, its config.json, and the checks before anything is opened.

FOLDER/config.json                 model and settings, base model, how it was tuned, licences
       model.safetensors           the whole network; or, for a LoRA run,
       adapter_model.safetensors   only the adapters, with adapter_config.json, in peft's layout
       README.md                   the model card
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from foleypref import __version__
from foleypref.media.files import sync
from foleypref.published.places import EARLIER
from foleypref.published.sniff import SAFETENSORS, check_format
from foleypref.published.terms import WeightUse, card_licence

CONFIG, CARD = "config.json", "README.md"
WEIGHTS, ADAPTER, ADAPTER_CONFIG = "model.safetensors", "adapter_model.safetensors", "adapter_config.json"
FILES = (CONFIG, CARD, WEIGHTS, ADAPTER, ADAPTER_CONFIG)
"""The only names that are written, read, fetched or pushed."""

FORMAT = 1
FLOW = "t = 0 is noise, t = 1 is data; x_t = (1 - t) x0 + t x1; velocity v = x1 - x0"
PLACES = ("weights", "adapter", "weights_folder")  # settings that name files of this computer
MAX_JSON = 4 * 2**20  # bytes


class Base(BaseModel):
    """The model that was tuned. `fingerprint` is `models.tools.fingerprint_of` its network."""

    model_config = ConfigDict(frozen=True)

    name: str
    fingerprint: str
    repo: str | None = None  # on the Hugging Face hub


class HubConfig(BaseModel):
    """config.json. Models have `model` to `training`, AudioScores have `version` and `dimensions`."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    format: int
    foleypref_version: str = Field(validation_alias=AliasChoices("foleypref_version", f"{EARLIER}_version"))
    kind: Literal["model", "audioscore"]
    weights_file: str
    license: str
    non_commercial: bool
    weights_used: list[WeightUse]
    model: dict[str, Any] = {}
    base: Base | None = None
    flow: str = FLOW
    training: dict[str, Any] = {}
    version: str = ""
    dimensions: dict[str, str] = {}

    @classmethod
    def made_with(cls, used: list[WeightUse], **fields: Any) -> HubConfig:
        """Return a config of this format and version; its licence follows from the weights used."""
        licence = card_licence(used)
        return cls(
            format=FORMAT,
            foleypref_version=__version__,
            license=licence.license,
            non_commercial=licence.non_commercial,
            weights_used=used,
            **fields,
        )

    @property
    def is_adapter(self) -> bool:
        """Whether the weights file holds only adapters."""
        return self.weights_file == ADAPTER

    def text(self) -> bytes:
        """Return the bytes of config.json."""
        content = self.model_dump(mode="json", exclude_defaults=True) | {"flow": self.flow}
        if self.kind == "audioscore":
            content.pop("flow")
        return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def read_config(folder: Path) -> HubConfig:
    """Read config.json of a hub folder. Raises ValueError for anything else."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; `foleypref hub load` fetches a repository")
    path = checked_file(folder, CONFIG)
    data = read_json(path)
    if data.get("format") != FORMAT or "weights_file" not in data:
        raise ValueError(
            f"{path} has format {data.get('format', 'none')}, this foleypref reads format {FORMAT}; "
            "make one with `foleypref hub save`"
        )
    try:
        config = HubConfig.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    allowed = (WEIGHTS, ADAPTER) if config.kind == "model" else (WEIGHTS,)
    if config.weights_file not in allowed:
        raise ValueError(
            f"{path}: weights_file is {' or '.join(allowed)}, beside it; found {config.weights_file!r}"
        )
    if places := [key for key, value in config.model.items() if key in PLACES or is_place(value)]:
        raise ValueError(f"{path}: model.{places[0]} names a place on one computer; take it out")
    return config


def read_json(path: Path) -> dict[str, Any]:
    """Read an object from a JSON file of at most `MAX_JSON` bytes. Raises ValueError."""
    if path.stat().st_size > MAX_JSON:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes; such a file has some thousand")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON: {error}") from None
    if not isinstance(data, dict):
        raise ValueError(f"{path} holds {type(data).__name__}, expected an object")
    return data


def checked_file(folder: Path, name: str) -> Path:
    """Return the path of `name` after checking that it is a regular file of this folder.

    A link may lead only into the hub cache that the folder is a snapshot of. Raises ValueError.
    """
    assert name in FILES, f"{name} is no file of a hub folder"
    path = folder / name
    if not path.is_file():
        others = sorted(p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".ckpt"))
        why = f" ({', '.join(others)} is not read: only safetensors are)" if others else ""
        raise ValueError(f"{folder} has no {name}{why}; make the folder with `foleypref hub save`")
    home, real = folder.resolve(), path.resolve()
    if real.parent not in (home, home.parent.parent / "blobs"):
        raise ValueError(f"{path} leads out of the folder, to {real}; put the file itself there")
    return path


def checked_weights(folder: Path, name: str) -> Path:
    """Return the path of a file whose content is safetensors. Raises ValueError for other formats."""
    path = checked_file(folder, name)
    kind = check_format(path)
    if kind != SAFETENSORS:
        raise ValueError(f"{path} is a {kind} file under a wrong name; only safetensors are read")
    return path


def is_place(value: Any) -> bool:
    """Return whether a setting is a path that means something on one computer only."""
    if not isinstance(value, str):
        return False
    return bool(re.match(r"[/~]|\\\\|[A-Za-z]:[\\/]", value)) or ".." in PurePath(value).parts


def without_places(value: Any) -> Any:
    """Return settings as data, with the word PATH in place of this computer's paths."""
    if isinstance(value, dict):
        return {key: without_places(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_places(item) for item in value]
    return "PATH" if is_place(value) else value


def fill_folder(out: Path, write: Callable[[Path], None]) -> Path:
    """Let `write` make the files in a folder beside `out`, then move them into place, config.json last.

    Other files are kept. Raises ValueError for a folder whose config.json or weights we did not write.
    """
    if out.is_dir() and any((out / name).exists() for name in FILES if name != CARD):
        read_config(out)  # ValueError: not ours to fill
    elif out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; give a folder")
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    write(partial)
    for path in [*partial.iterdir(), partial]:
        sync(path)
    if not out.exists():
        partial.rename(out)
        sync(out.parent)
        return out
    for name in sorted(FILES, key=lambda name: name == CONFIG):
        if (partial / name).exists():
            (partial / name).replace(out / name)
        else:
            (out / name).unlink(missing_ok=True)
    partial.rmdir()
    sync(out)
    return out
