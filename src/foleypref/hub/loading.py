"""A hub folder, or a repository, back into a model that is ready to sample.

Only safetensors and JSON are read and nothing in them is run: names of classes outside the package are
refused unless the caller names them too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from foleypref.hub.remote import folder_of
from foleypref.models.backbones import Model
from foleypref.models.saved import read_config
from foleypref.models.saved_adapters import check_base
from foleypref.models.saved_part import part_of


def from_pretrained(
    folder_or_repo_id: str | Path,
    revision: str | None = None,
    device: str | torch.device = "cpu",
    *,
    weights_folder: str = "",
    own: Sequence[str] = (),
    token: str | None = None,
) -> Model:
    """Return the tuned model of a hub folder or of a repository on the hub, loaded.

    Base weights that the folder does not hold are looked for as ever, or in `weights_folder`; `own` names
    models outside the package ("module:Class") that may be imported. Raises ValueError for anything that
    `save_pretrained` did not write, and MissingWeights for base weights that are not on this disk.
    """
    folder = folder_of(folder_or_repo_id, revision, token)
    config = read_config(folder)
    settings = {"weights_folder": weights_folder} if weights_folder else {}
    part = part_of(folder, own=own, **settings)
    if config.is_adapter and "adapter" in type(part).model_fields:
        # only adapters that are merged at every load: the others met their base when they were merged
        check_base(part.with_settings(adapter="").load(device), config)
    try:
        return part.load(device)
    except (TypeError, KeyError) as error:
        raise ValueError(f"{folder}: its weights are not those of {config.model['name']}: {error}") from error
