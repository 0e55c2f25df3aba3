"""Hub folders from elsewhere: nothing in them is run, nothing leads out, and what is torn is refused."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from foleypref.hub.loading import from_pretrained
from foleypref.hub.saving import save_pretrained
from foleypref.workspace.store import Workspace
from tests.hub.runs import changed


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
