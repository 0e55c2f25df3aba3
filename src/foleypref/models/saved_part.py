"""A saved model's folder as a part of the models drawer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foleypref.models.backbones import Model, build_model
from foleypref.models.saved import WEIGHTS, HubConfig, checked_weights, read_config
from foleypref.models.saved_adapters import check_adapter, merged_folder
from foleypref.settings.errors import one_line_errors


def part_of(folder: str | Path, *, own: Sequence[str] = (), **settings: Any) -> Model:
    """Return the model of a hub folder, not loaded: the meaning of `--model FOLDER`.

    `own` are the `module:Class` names outside this package that may be imported.
    """
    folder = Path(folder).expanduser()
    config = read_config(folder)
    if config.kind != "model":
        raise ValueError(
            f"{folder} holds an AudioScore; `foleypref hub load {folder} --workspace WORKSPACE` takes it"
        )
    check_folder(folder)
    stored = dict(config.model)
    name = str(stored.pop("name", ""))
    if ":" in name and name not in own:
        raise ValueError(
            f"{folder} wants {name!r}, which is code outside foleypref; if you trust it, pass own=({name!r},)"
        )
    if "/" in name:  # a folder in a folder
        raise ValueError(f"{folder}: no model is called {name!r}")
    with one_line_errors(str(folder)):
        place = _place(folder, config, build_model(name, **{**stored, **settings}))
        return build_model(name, **{**stored, **place, **settings})


def check_folder(folder: Path) -> HubConfig:
    """Read config.json of a hub folder and check the files that it names. Raises ValueError."""
    config = read_config(folder)
    checked_weights(folder, config.weights_file)
    if config.is_adapter:
        check_adapter(folder)
    return config


def _place(folder: Path, config: HubConfig, base: Model) -> dict[str, str]:
    """Return the setting by which a model finds the folder's weights."""
    if not config.is_adapter:
        return {"weights": str(folder / config.weights_file)}
    if "adapter" in type(base).model_fields:
        return {"adapter": str(folder)}
    return {"weights": str(merged_folder(base, folder, config) / WEIGHTS)}
