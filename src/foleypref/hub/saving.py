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

    A LoRA run gives only its adapters, but the whole network with `merged`, or if its base is not published.
    Raises ValueError for a folder that holds no finished run, and for an `out_dir` in which files that this
    function did not write have the same names.
    """
    folder, out = Path(run).expanduser(), Path(out_dir).expanduser()
    provenance = read_run(folder)
    if out.resolve() == folder.resolve():
        raise ValueError(f"{out} is the run's own folder; give another")
    published = provenance.tunes_published
    if tuned_weights(folder).is_dir() and (merged or not published):
        raise ValueError(f"{folder} kept its adapters alone (merge_adapters off): there is no whole network")
    as_adapter = provenance.settings.use_peft and not merged and published
    if provenance.settings.use_peft and not merged and not published:
        say("hub: the whole network is saved: its adapters alone would want a base that only you have")
    source, name = (RunFiles(folder).adapter, ADAPTER) if as_adapter else (folder, WEIGHTS)
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
    name, published = registry_name(provenance.model), provenance.tunes_published
    return HubConfig.made_with(
        provenance.used,
        kind="model",
        weights_file=weights_file,
        model=provenance.model,
        base=Base(
            name=name if published else f"a tuned {name}",
            fingerprint=str(provenance.result["identity"].get("reference", "")),
            repo=files_for(name)[0].repo if published and name in MODELS else None,
        ),
        training=without_places(provenance.settings.model_dump(mode="json", exclude={"model"})),
    )
