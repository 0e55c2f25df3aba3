"""Hub folders: equal latents and scores after the round trip, honest cards, nothing run, no stray pushes."""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from foleypref.cli import main as cli
from foleypref.fit import FitSettings, fit
from foleypref.flow.convention import generator_of
from foleypref.generate import GenerateSettings
from foleypref.hub import audioscores, remote
from foleypref.hub.audioscores import add_to_workspace, load_audioscore, save_audioscore
from foleypref.hub.loading import from_pretrained
from foleypref.hub.remote import push_to_hub
from foleypref.hub.saving import save_pretrained
from foleypref.models import saved as layout
from foleypref.models.backbones import Media, Model
from foleypref.models.backbones.world import World
from foleypref.models.lora import LoraSettings
from foleypref.models.saved_part import part_of
from foleypref.models.tools import loaded_fingerprint, sample_latents
from foleypref.scoring.scorers.audioscore import AudioScore
from foleypref.settings.flags import parse
from foleypref.settings.parts import Settings, build
from foleypref.training.settings import TrainSettings
from foleypref.workspace.store import Workspace
from tests import scored_workspace as made
from tests.hub.runs import fit_of, head_of, run_by_hand
from tests.hub.server import hub_server


def sampled(model: Model) -> torch.Tensor:
    generator = generator_of("conditions")
    shapes = {"scene": (9, 64), "motion": (100, 64), "text": (64,)}
    conditions = {k: torch.randn(2, *shape, generator=generator) for k, shape in shapes.items()}
    with torch.inference_mode():
        return sample_latents(model, conditions, [3, 4], num_steps=3, guidance_scale=2.0)["audio"]


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


# -- AudioScore ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rated(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    values = made.rule_values(150)
    workspace, candidates = made.fill(tmp_path_factory.mktemp("hub") / "rated", 30, values)
    made.rate(workspace, candidates, made.rule_labels(values), ("ann", "bob"))
    fit(workspace, FitSettings(num_steps=20, num_shuffles=1))
    return workspace


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


# -- nothing is run, nothing leads out -----------------------------------------------------------------------


def changed(folder: Path, **changes: Any) -> Path:
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    return folder


class Bomb:
    """Touches a file if it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


HOSTILE_CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "traversal": ({"weights_file": "../model.safetensors"}, "beside it; found"),
    "absolute": ({"weights_file": "/etc/passwd"}, "beside it; found"),
    "pickle": ({"weights_file": "pytorch_model.bin"}, "beside it; found"),
    "place": ({"model": {"name": "world", "weights": "/etc/passwd"}}, "names a place"),
    "upwards": ({"model": {"name": "world", "x": "../../x"}}, "names a place"),
    "code": ({"model": {"name": "tests.hub.bomb:Bomb"}}, "code outside foleypref"),
    "folder": ({"model": {"name": "a/b"}}, "no model is called"),
    "unknown": ({"model": {"name": "wrld"}}, "did you mean 'world'"),
    "setting": ({"model": {"name": "world", "x": 1}}, "unknown setting"),
    "format": ({"format": 9}, "format 9"),
    "kind": ({"kind": "dataset"}, "kind"),
    "used": ({"weights_used": [{"a": 1}]}, "weights_used"),
}


@pytest.mark.parametrize("name", HOSTILE_CONFIGS)
def test_a_hostile_config_is_refused(saved: Path, name: str) -> None:
    changes, message = HOSTILE_CONFIGS[name]
    with pytest.raises(ValueError, match=message):
        from_pretrained(changed(saved, **changes))


def test_a_pickle_is_never_read(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fuse = tmp_path / "fuse"
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("a pickle was read"))
    monkeypatch.setattr(pickle, "load", lambda *_, **__: pytest.fail("a pickle was read"))
    torch.save({"a": Bomb(fuse)}, saved / "pytorch_model.bin")
    from_pretrained(saved)
    shutil.copyfile(saved / "pytorch_model.bin", saved / "model.safetensors")
    with pytest.raises(ValueError, match="only safetensors are read"):
        from_pretrained(saved)
    (saved / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"no model.safetensors \(pytorch_model.bin is not read"):
        from_pretrained(saved)
    (saved / "model.safetensors").write_bytes(pickle.dumps(Bomb(fuse)))
    with pytest.raises(ValueError, match="no checkpoint"):
        from_pretrained(saved)
    assert not fuse.exists()


def test_links_out_of_the_folder_are_refused(saved: Path, tmp_path: Path) -> None:
    away = tmp_path / "away.safetensors"
    (saved / "model.safetensors").rename(away)
    (saved / "model.safetensors").symlink_to(away)
    with pytest.raises(ValueError, match="leads out of the folder"):
        from_pretrained(saved)


def test_torn_and_foreign_weights_are_said_to_be(saved: Path) -> None:
    whole = (saved / "model.safetensors").read_bytes()
    (saved / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(ValueError, match="cut short"):
        from_pretrained(saved)
    save_file({"a": torch.zeros(1)}, saved / "model.safetensors")
    with pytest.raises(ValueError, match="does not fit"):
        from_pretrained(saved)
    save_file({"a": torch.zeros(1)}, saved / "model.safetensors", {"network": '{"evil": 1}'})
    with pytest.raises(ValueError, match="not those of world"):
        from_pretrained(saved)
    (saved / "config.json").write_text("{")
    with pytest.raises(ValueError, match="is no JSON"):
        from_pretrained(saved)


def test_adapters_from_elsewhere_are_plain_lora_or_refused(trained: Workspace, tmp_path: Path) -> None:
    folder = save_pretrained(trained.run_folder("lora"), tmp_path / "lora")
    path = folder / "adapter_config.json"
    plain = json.loads(path.read_text())
    for changes, message in [
        ({"megatron_config": {"a": 1}, "megatron_core": "tests.hub.bomb"}, "megatron_config"),
        ({"peft_type": "IA3"}, "peft_type"),
        ({"base_model_name_or_path": "evil/model"}, "base_model_name_or_path"),
        ({"target_modules": "(a+)+$"}, "target_modules"),
        ({"r": 10**9}, "r is 1000000000"),
        ({"r": "2"}, "are numbers"),
    ]:
        path.write_text(json.dumps(plain | changes))
        with pytest.raises(ValueError, match=message):
            from_pretrained(folder)
    path.write_text(json.dumps(plain))
    changed(folder, base={"name": "world", "fingerprint": "0" * 16})
    with pytest.raises(ValueError, match="trained on a world of fingerprint 0000"):
        from_pretrained(folder)
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(ValueError, match=r"no adapter_model\.safetensors"):
        from_pretrained(folder)


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


# -- the hub -------------------------------------------------------------------------------------------------


class FakeApi:
    """Records what it is asked; `public` is what the repository turns out to be."""

    calls: list[tuple[str, Any]]
    public = False

    def __init__(self, token: str | None = None) -> None:
        FakeApi.calls.append(("token", token))

    def create_repo(self, repo_id: str, **more: Any) -> None:
        FakeApi.calls.append(("create", (repo_id, more)))

    def repo_info(self, repo_id: str, **more: Any) -> Any:
        return SimpleNamespace(private=not FakeApi.public)

    def upload_folder(self, **more: Any) -> Any:
        from huggingface_hub.utils import filter_repo_objects

        paths = [
            str(p.relative_to(more["folder_path"]))
            for p in Path(more["folder_path"]).rglob("*")
            if p.is_file()
        ]
        sent = sorted(filter_repo_objects(paths, allow_patterns=more["allow_patterns"]))
        FakeApi.calls.append(("upload", (more["repo_id"], sent)))
        return SimpleNamespace(commit_url="https://hub.example/commit")


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> type[FakeApi]:
    import huggingface_hub

    FakeApi.calls, FakeApi.public = [], False
    monkeypatch.setattr(huggingface_hub, "HfApi", FakeApi)
    return FakeApi


def test_only_what_was_written_is_pushed(saved: Path, api: type[FakeApi]) -> None:
    for name in ("notes.txt", "optimizer.pt", ".env", "adapter_config.json", "sub/config.json"):
        (saved / name).parent.mkdir(exist_ok=True)
        (saved / name).write_text("mine")
    assert push_to_hub(saved, "ann/tuned", token="t") == "https://hub.example/commit"
    assert api.calls == [
        ("token", "t"),
        ("create", ("ann/tuned", {"private": True, "exist_ok": True, "repo_type": "model"})),
        ("upload", ("ann/tuned", ["README.md", "config.json", "model.safetensors"])),
    ]


def test_what_must_not_be_pushed_is_refused(saved: Path, tmp_path: Path, api: type[FakeApi]) -> None:
    with pytest.raises(ValueError, match="owner/name"):
        push_to_hub(saved, "tuned")
    api.public = True
    with pytest.raises(ValueError, match="is public"):
        push_to_hub(saved, "ann/tuned")
    push_to_hub(saved, "ann/tuned", private=False)
    uploads = [name for name, _ in api.calls].count("upload")
    changed(saved, non_commercial=True, license="other")
    with pytest.raises(ValueError, match="it has to say other"):
        push_to_hub(saved, "ann/tuned", private=False)
    (saved / "README.md").rename(tmp_path / "secret.md")
    (saved / "README.md").symlink_to(tmp_path / "secret.md")
    with pytest.raises(ValueError, match="no file of its own"):
        push_to_hub(saved, "ann/tuned", private=False)
    (saved / "README.md").unlink()
    with pytest.raises(ValueError, match="no file of its own"):
        push_to_hub(saved, "ann/tuned", private=False)
    assert [name for name, _ in api.calls].count("upload") == uploads == 1


def test_the_hubs_own_client_pushes_and_fetches(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Against a server on localhost that speaks the hub's protocol: create, upload, list, fetch."""
    from huggingface_hub import constants

    (saved / "notes.txt").write_text("mine")
    with hub_server() as (endpoint, repository):
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", "hf_test")
        assert cli.main(["hub", "push", str(saved), "ann/tuned"]) == 0
        assert repository.private
        assert sorted(repository.files) == ["README.md", "config.json", "model.safetensors"]
        repository.files["pytorch_model.bin"] = b"pickle"  # somebody else's, and never fetched
        capsys.readouterr()
        assert cli.main(["hub", "load", "ann/tuned"]) == 0
        folder = Path(capsys.readouterr().out.strip())
        assert folder.is_relative_to(tmp_path / "cache")
        assert not any("pytorch_model.bin" in path for path in repository.asked)
    assert torch.equal(sampled(part_of(folder).load()), sampled(from_pretrained(saved)))


def test_the_hubs_errors_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import huggingface_hub

    def offline(*args: Any, **more: Any) -> str:
        raise ConnectionError("no\nnetwork")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["hub", "load", "ann/tuned"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == "foleypref hub load: could not fetch ann/tuned: ConnectionError: no network"


def test_the_hub_is_an_extra(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    assert from_pretrained(saved).fingerprint  # a folder wants no hub
    with pytest.raises(ValueError, match=r"foleypref\[hub\]"):
        from_pretrained("ann/tuned")


# -- the command line ----------------------------------------------------------------------------------------


def test_the_command_line(
    trained: Workspace,
    rated: Workspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, score = tmp_path / "model", tmp_path / "score"
    assert cli.main(["hub", "save", str(trained.run_folder("lora")), "--out", str(out), "--merged"]) == 0
    assert cli.main(["hub", "save", str(rated.root / "audioscore"), f"--out={score}"]) == 0
    assert capsys.readouterr().out.split() == [str(out), str(score)]
    assert (out / "model.safetensors").exists()
    monkeypatch.chdir(tmp_path)
    assert cli.main(["hub", "load", "model"]) == 0
    assert build("models", capsys.readouterr().out.strip()) == World(weights=str(out / "model.safetensors"))
    other = Workspace(tmp_path / "other").root
    assert cli.main(["hub", "load", str(score), "--workspace", str(other), "--name", "theirs"]) == 0
    assert capsys.readouterr().out.strip() == str(other / "audioscore" / "theirs.safetensors")
    for args, message in [
        (["save", str(out)], "missing: -o FOLDER, --out FOLDER"),
        (["save", str(tmp_path), "--out", str(tmp_path / "x")], "is no training run"),
        (["sell"], "wants save, push or load"),
        (["load", str(out), "--workspace", str(other)], "holds a model"),
        (["load", str(out), "more"], "Unrecognized options: more"),
    ]:
        assert cli.main(["hub", *args]) == 2
        assert message in capsys.readouterr().err
    assert cli.main(["hub", "--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: foleypref hub")
    assert audioscores.DEFAULT == "audioscore"
    assert remote.FILES == layout.FILES


def test_a_folder_saved_under_the_earlier_name_still_opens(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    earlier = {("foleytune_version" if key == "foleypref_version" else key): v for key, v in config.items()}
    (saved / "config.json").write_text(json.dumps(earlier))
    assert layout.read_config(saved).foleypref_version == config["foleypref_version"]
    assert isinstance(from_pretrained(saved), World)
