"""Hub folders: equal latents and scores after the round trip, and what cannot be saved or found."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from foleypref.flow.convention import generator_of
from foleypref.generate import GenerateSettings
from foleypref.hub.audioscores import add_to_workspace, load_audioscore, save_audioscore
from foleypref.hub.loading import from_pretrained
from foleypref.hub.saving import save_pretrained
from foleypref.models import saved as layout
from foleypref.models.backbones import Media
from foleypref.models.backbones.world import World
from foleypref.models.lora import LoraSettings
from foleypref.models.saved_part import part_of
from foleypref.models.tools import loaded_fingerprint
from foleypref.scoring.scorers.audioscore import AudioScore
from foleypref.settings.flags import parse
from foleypref.settings.parts import Settings, build
from foleypref.training.settings import TrainSettings
from foleypref.workspace.store import Workspace
from tests import scored_workspace as made
from tests.hub.runs import fit_of, head_of, run_by_hand, sampled

# -- the round trip ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("run", "merged"), [("full", False), ("lora", False), ("lora", True)])
def test_a_tuned_model_samples_the_same_bits(
    trained: Workspace, tmp_path: Path, run: str, merged: bool
) -> None:
    folder = save_pretrained(trained.run_folder(run), tmp_path / "out", merged=merged)
    tuned = World(weights=str(trained.run_folder(run) / "model.safetensors")).load()
    loaded = from_pretrained(folder)
    assert torch.equal(sampled(loaded), sampled(tuned))
    assert loaded.fingerprint == tuned.fingerprint  # so the workspace knows its candidates again
    assert not torch.equal(sampled(loaded), sampled(World().load()))
    whole = {"config.json", "README.md", "model.safetensors"}
    adapters = {"config.json", "README.md", "adapter_model.safetensors", "adapter_config.json"}
    assert {p.name for p in folder.iterdir()} == (whole if run == "full" or merged else adapters)


def test_the_adapters_are_pefts_own(trained: Workspace, tmp_path: Path) -> None:
    from peft import PeftModel

    folder = save_pretrained(trained.run_folder("lora"), tmp_path / "out")
    network = PeftModel.from_pretrained(cast(Any, World().load().network), str(folder)).merge_and_unload()
    for key, value in load_file(trained.run_folder("lora") / "model.safetensors").items():
        assert torch.equal(network.state_dict()[key], value), key


def test_a_folder_is_a_model_wherever_one_is_named(trained: Workspace, saved: Path, tmp_path: Path) -> None:
    settings = parse(Settings, ["--model", str(saved)], "generate", settings=GenerateSettings()).settings
    assert settings.model == World(weights=str(saved / "model.safetensors"))
    again = TrainSettings(model=str(saved))
    assert TrainSettings.model_validate(again.model_dump(mode="json")).model == settings.model
    lora = part_of(save_pretrained(trained.run_folder("lora"), tmp_path / "lora"))
    assert loaded_fingerprint(lora) == loaded_fingerprint(
        World(weights=str(trained.run_folder("lora") / "model.safetensors"))
    )
    with pytest.raises(ValueError, match="no such folder"):
        build("models", "./nowhere")


def test_adapters_of_a_model_that_takes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from foleypref.models.lora import add_adapters, save_adapters
    from foleypref.models.tools import fingerprint_of
    from tests.mmaudio_tiny import tiny_mmaudio

    model = tiny_mmaudio(monkeypatch)
    told = {"reference": fingerprint_of(model.network)}
    folder = run_by_hand(tmp_path, "mmaudio-small-16k", identity=told, use_peft=True, duration=1.0)
    adapted = add_adapters(model.network, LoraSettings(r=2), model.lora_targets, seed=0)
    with torch.no_grad():
        for name, tensor in adapted.named_parameters():
            if "lora_B" in name:
                tensor.normal_(generator=generator_of(name))
    save_adapters(adapted, folder / "adapter")
    out = save_pretrained(folder, tmp_path / "out")
    loaded = from_pretrained(out)
    x, t, c = {"audio": torch.ones(1, *loaded.spec.latents["audio"])}, torch.tensor([0.5]), loaded.condition
    conditions = c([Media(prompt="rain")])
    model.set_network(adapted)
    expected = model.velocity(x, t, conditions)["audio"]
    assert torch.allclose(loaded.velocity(x, t, conditions)["audio"], expected, atol=1e-5)
    config = json.loads((out / "config.json").read_text())
    config["base"]["fingerprint"] = "0" * 16
    (out / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="trained on a mmaudio of fingerprint 0000"):
        from_pretrained(out)


def test_what_cannot_be_saved_or_found(trained: Workspace, saved: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no training run"):
        save_pretrained(trained.root, tmp_path / "x")
    unfinished = shutil.copytree(trained.run_folder("full"), tmp_path / "unfinished")
    (unfinished / "result.json").unlink()
    with pytest.raises(ValueError, match="has not ended"):
        save_pretrained(unfinished, tmp_path / "x")
    with pytest.raises(ValueError, match="own folder"):
        save_pretrained(trained.run_folder("full"), trained.run_folder("full"))
    with pytest.raises(ValueError, match=r"no config.json"):
        save_pretrained(trained.run_folder("full"), trained.run_folder("lora"))
    assert not (tmp_path / "x").exists()
    (saved / "notes.txt").write_text("mine")
    save_pretrained(trained.run_folder("lora"), saved)  # over an earlier save: what is not ours stays
    assert (saved / "notes.txt").exists()
    assert not (saved / "model.safetensors").exists()
    for name in ("nowhere", "a/b/c", "../x"):
        with pytest.raises(ValueError, match="no such folder"):
            from_pretrained(name)
    with pytest.raises(ValueError, match="has no revision"):
        from_pretrained(saved, revision="main")


def test_a_folder_saved_under_the_earlier_name_still_opens(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    earlier = {("foleytune_version" if key == "foleypref_version" else key): v for key, v in config.items()}
    (saved / "config.json").write_text(json.dumps(earlier))
    assert layout.read_config(saved).foleypref_version == config["foleypref_version"]
    assert isinstance(from_pretrained(saved), World)


# -- AudioScore ----------------------------------------------------------------------------------------------


def test_an_audioscore_gives_equal_numbers(rated: Workspace, tmp_path: Path) -> None:
    path = rated.root / "audioscore" / "audioscore.safetensors"
    folder = save_audioscore(rated.root / "audioscore", tmp_path / "out")
    loaded, original = load_audioscore(folder), AudioScore(weights=str(path)).load()
    values = np.random.default_rng(0).normal(size=(50, 3))
    values[::7, 1] = np.nan
    assert np.array_equal(loaded.probabilities(values), original.probabilities(values))
    assert loaded.version == original.version
    assert (folder / "README.md").read_bytes() == path.with_suffix(".md").read_bytes()
    head = head_of(folder)
    assert head["license"] == "apache-2.0"  # the world's judges
    assert head["version"] == original.version
    other = Workspace(tmp_path / "other")
    assert add_to_workspace(folder, other).read_bytes() == path.read_bytes()
    fit_of(other, made.JUDGES[0])
    with pytest.raises(ValueError, match="another fit"):
        add_to_workspace(folder, other)


def test_an_audioscore_that_is_not_what_it_says_is_refused(rated: Workspace, tmp_path: Path) -> None:
    folder = save_audioscore(rated.root / "audioscore", tmp_path / "out")
    other = fit_of(Workspace(tmp_path / "other"), *made.JUDGES)
    shutil.copyfile(other.weights, folder / "model.safetensors")
    with pytest.raises(ValueError, match="is of version"):
        load_audioscore(folder)
    foreign = replace(other.fitted, dimensions=("tests.hub.bomb:Bomb/rms", *made.JUDGES[1:]))
    (folder / "model.safetensors").write_bytes(foreign.serialise())
    with pytest.raises(ValueError, match="code outside foleypref"):
        load_audioscore(folder)
    with pytest.raises(ValueError, match="holds an AudioScore"):
        from_pretrained(folder)
    report = rated.root / "audioscore" / "audioscore.json"
    alone = tmp_path / "alone.safetensors"
    shutil.copyfile(report.with_suffix(".safetensors"), alone)
    with pytest.raises(ValueError, match="no report of a fit"):
        save_audioscore(alone, tmp_path / "x")
