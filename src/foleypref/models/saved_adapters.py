"""Adapters in a hub folder: peft's layout, checked before peft sees it, and merged if a model needs that.

Our adapter_config.json has few keys and names every adapted layer. Other keys that peft would act on (modules
to import, patterns, methods other than LoRA) are refused, so a downloaded folder is only ever data.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any, cast

from foleypref.media.files import atomic_path, write_atomic
from foleypref.models.backbones import Model
from foleypref.models.lora import load_and_merge
from foleypref.models.saved import (
    ADAPTER,
    ADAPTER_CONFIG,
    CONFIG,
    WEIGHTS,
    HubConfig,
    checked_file,
    checked_weights,
    read_json,
)
from foleypref.models.tools import fingerprint_of
from foleypref.published.places import cache_folder
from foleypref.published.sniff import safetensors_header
from foleypref.workspace.records import digest

_KEYS = (
    "peft_version", "peft_type", "task_type", "inference_mode", "r", "lora_alpha", "lora_dropout", "bias",
)  # fmt: skip
_KEY = re.compile(r"base_model\.model\.([\w.]+)\.lora_([AB])\.weight")
_FIXED: dict[str, Any] = {"peft_type": "LORA", "bias": "none", "task_type": None}


def adapter_config(folder: Path) -> bytes:
    """Return adapter_config.json for adapters that training wrote, naming every layer and no path."""
    written = read_json(folder / ADAPTER_CONFIG)
    config = {key: written[key] for key in _KEYS if key in written} | {
        "target_modules": sorted(_ranks(folder / ADAPTER)),
        "base_model_name_or_path": None,
    }
    return (json.dumps(config, indent=1) + "\n").encode()


def check_adapter(folder: Path) -> None:
    """Raise ValueError unless both files are plain LoRA and agree with each other."""
    path = checked_file(folder, ADAPTER_CONFIG)
    ranks = _ranks(checked_weights(folder, ADAPTER))
    config = read_json(path)
    foreign = sorted(
        key for key in config if key not in (*_KEYS, "target_modules", "base_model_name_or_path")
    )
    wrong = [key for key, value in _FIXED.items() if config.get(key) != value]
    if foreign or wrong or config.get("base_model_name_or_path"):
        key = (foreign or wrong or ["base_model_name_or_path"])[0]
        raise ValueError(f"{path}: {key} = {config.get(key)!r} is not plain LoRA; only that is loaded")
    if config.get("target_modules") != sorted(ranks):
        raise ValueError(f"{path}: target_modules are not the {len(ranks)} layers that {ADAPTER} adapts")
    if not all(isinstance(config.get(key), int | float) for key in ("r", "lora_alpha")):
        raise ValueError(f"{path}: r and lora_alpha are numbers, found {config.get('r')!r}")
    if set(ranks.values()) != {config["r"]}:
        raise ValueError(f"{path}: r is {config['r']}, the adapters have {sorted(set(ranks.values()))}")


def check_base(base: Model, config: HubConfig) -> None:
    """Raise ValueError unless a loaded model has the weights that the adapters were trained on."""
    expected = "" if config.base is None else config.base.fingerprint
    if expected and (actual := fingerprint_of(base.network)) != expected:
        raise ValueError(
            f"the adapters were trained on a {config.model['name']} of fingerprint {expected}, here it is "
            f"{actual}; get the same base weights, or a folder with the whole network (`hub save --merged`)"
        )


def merged_folder(part: Model, folder: Path, config: HubConfig) -> Path:
    """Return a cached hub folder with the checked adapters merged into the whole network.

    It serves models that have no `adapter` setting, and is written at the first use.
    """
    with (folder / ADAPTER).open("rb") as file:
        adapter = hashlib.file_digest(file, "sha256").hexdigest()
    base = "" if config.base is None else config.base.fingerprint
    key = digest("merged adapters", part.settings(), base, adapter, read_json(folder / ADAPTER_CONFIG))
    place = cache_folder() / "derived" / key
    if (place / CONFIG).is_file() and (place / WEIGHTS).is_file():
        return place
    model = part.model_copy().load()
    check_base(model, config)
    model.set_network(load_and_merge(model.network, folder))
    with atomic_path(place / WEIGHTS, suffix=".safetensors") as temporary:
        model.export(str(temporary))
    write_atomic(place / CONFIG, config.model_copy(update={"weights_file": WEIGHTS}).text())
    return place


def _ranks(path: Path) -> dict[str, int]:
    """Return the rank of every adapted layer. Raises ValueError for tensors other than LoRA's A and B."""
    ranks: dict[str, int] = {}
    keys = {key: entry for key, entry in safetensors_header(path).items() if key != "__metadata__"}
    for key, entry in keys.items():
        match, shape = _KEY.fullmatch(key), cast(list[int], entry["shape"])
        if match is None or len(shape) < 2:
            raise ValueError(f"{path}: {key!r} is no LoRA tensor; only plain LoRA is loaded")
        rank = shape[0] if match[2] == "A" else shape[1]
        if ranks.setdefault(match[1], rank) != rank:
            raise ValueError(f"{path}: the two tensors of {match[1]} have different ranks")
    if not ranks or len(keys) != 2 * len(ranks):
        raise ValueError(f"{path}: {len(keys)} tensors for {len(ranks)} layers; two each were expected")
    return ranks
