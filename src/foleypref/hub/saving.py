"""A finished run as a hub folder: weights or adapters, config.json, model card."""

from __future__ import annotations

import shutil
from pathlib import Path

from foleypref.hub.card import model_card
from foleypref.hub.provenance import Provenance, read_run
from foleypref.media.files import write_atomic
from foleypref.models.saved import (
    ADAPTER,
    ADAPTER_CONFIG,
    CARD,
    CONFIG,
    WEIGHTS,
    Base,
    HubConfig,
    checked_weights,
    fill_folder,
    without_places,
)
from foleypref.models.saved_adapters import adapter_config
from foleypref.published.registry import MODELS, files_for
from foleypref.published.terms import registry_name
from foleypref.training.checkpoints import tuned_weights
from foleypref.workspace.paths import RunFiles
from foleypref.workspace.walk import say


def save_pretrained(run: str | Path, out_dir: str | Path, *, merged: bool = False) -> Path:
    """Write a finished run, WORKSPACE/runs/NAME, to a folder that `from_pretrained` loads; returns it.

    A LoRA run gives its adapters alone, or with `merged`, or where it was tuned from weights that nobody else
    has, the whole network. Raises ValueError for a folder that holds no finished run, and for an `out_dir`
    with somebody else's files under our names.
    """
    folder, out = Path(run).expanduser(), Path(out_dir).expanduser()
    provenance = read_run(folder)
    if out.resolve() == folder.resolve():
        raise ValueError(f"{out} is the run's own folder; give another")
    alone = tuned_weights(folder).is_dir()
    if alone and (merged or not provenance.tunes_published):
        raise ValueError(f"{folder} kept its adapters alone (merge_adapters off): there is no whole network")
    as_adapter = provenance.settings.use_peft and not merged
    if as_adapter and not provenance.tunes_published:
        say("hub: the whole network is saved: its adapters alone would want a base that only you have")
        as_adapter = False
    source = RunFiles(folder).adapter if as_adapter else folder
    name = ADAPTER if as_adapter else WEIGHTS
    checked_weights(source, name)
    config = _config(provenance, name)

    def write(partial: Path) -> None:
        shutil.copyfile(source / name, partial / name)
        if as_adapter:
            write_atomic(partial / ADAPTER_CONFIG, adapter_config(source))
        write_atomic(partial / CARD, model_card(provenance, config).encode())
        write_atomic(partial / CONFIG, config.text())

    return fill_folder(out, write)


def _config(provenance: Provenance, weights_file: str) -> HubConfig:
    model = provenance.model
    training = provenance.settings.model_dump(mode="json")
    training.pop("model")
    return HubConfig.made_with(
        provenance.used,
        kind="model",
        weights_file=weights_file,
        model=model,
        base=Base(
            name=registry_name(model) if provenance.tunes_published else f"a tuned {registry_name(model)}",
            fingerprint=str(provenance.result["identity"].get("reference", "")),
            repo=_repo(model) if provenance.tunes_published else None,
        ),
        training=without_places(training),
    )


def _repo(model: dict[str, object]) -> str | None:
    """The hub's repository of a published network, where it has one."""
    name = registry_name(model)
    return files_for(name)[0].repo if name in MODELS else None
