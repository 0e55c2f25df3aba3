"""A hub folder, or a repository, back into a model that is ready to sample.

Only safetensors and JSON are read and nothing in them is run: names of classes outside the package are
refused unless the caller names them too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch

from foleytune.hub.adapters import check_adapter, check_base, merged_folder
from foleytune.hub.layout import WEIGHTS, HubConfig, checked_weights, read_config
from foleytune.hub.remote import folder_of
from foleytune.models import Model
from foleytune.plugins import Part, build
from foleytune.setting_errors import one_line_errors


def from_pretrained(
    folder_or_repo_id: str | Path,
    revision: str | None = None,
    device: str | torch.device = "cpu",
    *,
    weights_folder: str = "",
    own: Sequence[str] = (),
    token: str | None = None,
) -> Model:
    """The tuned model of a hub folder or of a repository on the hub, loaded.

    Base weights that the folder does not hold are looked for as ever, or in `weights_folder`; `own` names
    models outside the package ("module:Class") that may be imported. Raises ValueError for anything that
    `save_pretrained` did not write, and MissingWeights for base weights that are not on this disk.
    """
    folder = folder_of(folder_or_repo_id, revision, token)
    config = read_config(folder)
    settings = {"weights_folder": weights_folder} if weights_folder else {}
    part = _part(folder, config, settings, own)
    if config.is_adapter and "adapter" in type(part).model_fields:
        # only adapters that are merged at every load: the others met their base when they were merged
        check_base(cast(Model, part.with_settings(adapter="")).load(device), config)
    try:
        return cast(Model, part).load(device)
    except (TypeError, KeyError) as error:
        raise ValueError(f"{folder}: its weights are not those of {config.model['name']}: {error}") from error


def part_of(folder: str | Path, **settings: Any) -> Part:
    """The model of a hub folder as a part that is not loaded: what `--model FOLDER` means."""
    path = Path(folder).expanduser()
    return _part(path, read_config(path), settings, ())


def check_folder(folder: Path) -> HubConfig:
    """config.json of a hub folder whose files are all there and are what it says. Raises ValueError."""
    config = read_config(folder)
    checked_weights(folder, config.weights_file)
    if config.is_adapter:
        check_adapter(folder)
    return config


def _part(folder: Path, config: HubConfig, settings: dict[str, Any], own: Sequence[str]) -> Part:
    if config.kind != "model":
        raise ValueError(
            f"{folder} holds an AudioScore; `foleytune hub load {folder} --workspace WORKSPACE` takes it"
        )
    check_folder(folder)
    said = dict(config.model)
    name = str(said.pop("name", ""))
    if ":" in name and name not in own:
        raise ValueError(
            f"{folder} wants {name!r}, which is code outside foleytune; if you trust it, pass own=({name!r},)"
        )
    if "/" in name:  # a folder in a folder
        raise ValueError(f"{folder}: no model is called {name!r}")
    with one_line_errors(str(folder)):
        place = _place(folder, config, build("models", name, **{**said, **settings}))
        return build("models", name, **{**said, **place, **settings})


def _place(folder: Path, config: HubConfig, base: Part) -> dict[str, str]:
    """The setting by which a model finds the folder's weights."""
    if not config.is_adapter:
        return {"weights": str(folder / config.weights_file)}
    if "adapter" in type(base).model_fields:
        return {"adapter": str(folder)}
    return {"weights": str(merged_folder(base, folder, config) / WEIGHTS)}
