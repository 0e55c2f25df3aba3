"""The hub: only what was written is pushed, errors are one line, and `foleypref hub` does the same."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from foleypref.cli import main as cli
from foleypref.hub import audioscores, remote
from foleypref.hub.loading import from_pretrained
from foleypref.hub.remote import push_to_hub
from foleypref.models import saved as layout
from foleypref.models.backbones.world import World
from foleypref.models.saved_part import part_of
from foleypref.settings.parts import build
from foleypref.workspace.store import Workspace
from tests.hub.runs import changed, sampled
from tests.hub.server import hub_server


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
