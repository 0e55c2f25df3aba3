"""Reading checkpoints: tensors bit for bit, no code run, and every other file described."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from foleypref.published.reading import read_state
from foleypref.published.weights import load_published
from tests.weight_files import (
    GOLDEN,
    plain_state,
    same,
)

pytestmark = pytest.mark.usefixtures("folder")


@pytest.mark.parametrize("wrapper", [None, "weights", "generator", "state_dict", "model"])
@pytest.mark.parametrize("legacy", [False, True])
def test_what_torch_saved_reads_bit_for_bit(wrapper: str | None, legacy: bool, tmp_path: Path) -> None:
    state = plain_state()
    whole = {"epoch": 4, wrapper: {**state, "note": "text"}, "optimizer": {"lr": 0.1}} if wrapper else state
    torch.save(whole, tmp_path / "net.pt", _use_new_zipfile_serialization=not legacy)
    assert same(read_state(tmp_path / "net.pt"), state)


def test_safetensors_are_read_whatever_their_suffix(tmp_path: Path) -> None:
    state = {"w": torch.randn(3, 4).half()}
    save_file(state, tmp_path / "net.bin")
    assert same(read_state(tmp_path / "net.bin"), state)


def test_a_torch_file_and_a_conversion_are_mapped_and_not_copied(plain: Path, folder: Path) -> None:
    big = {"weight": torch.randn(1000, 1000)}
    torch.save(big, folder / "big.pth")
    mapped = read_state(folder / "big.pth")["weight"]
    load_published(plain.name, folder)
    converted = load_published(plain.name, folder)["first.weight"]
    ranges = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, *_, name = line.split(maxsplit=5)
        if name.endswith(("big.pth", ".foleypref.safetensors")):
            ranges.append(tuple(int(end, 16) for end in span.split("-")))
    for tensor in (mapped, converted):
        assert any(low <= tensor.data_ptr() < high for low, high in ranges)


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_a_malicious_pickle_is_refused_and_runs_nothing(form: str, tmp_path: Path) -> None:
    marker, path = tmp_path / "it_ran", tmp_path / "evil.pth"
    content = {"state_dict": {"w": torch.ones(2)}, "extra": Malicious(marker)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    refusal = "would run as code" if form == "pickle" else r"would run code from outside \(posix.system\)"
    with pytest.raises(ValueError, match=refusal):
        read_state(path)
    assert not marker.exists()
    if form != "pickle":  # the pickle is really malicious
        torch.load(path, weights_only=False)
        assert marker.exists()


class Settings:
    """A class of a training program, pickled beside the weights."""


@pytest.mark.parametrize("zipped", [False, True])
def test_a_checkpoint_with_a_foreign_class_is_refused_and_names_it(zipped: bool, tmp_path: Path) -> None:
    content = {"model": {"w": torch.ones(2)}, "args": Settings()}
    torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"code from outside \(tests.published.test_reading.Settings\)"):
        read_state(tmp_path / "x.pt")


def test_a_lightning_checkpoint_reads_without_lightning() -> None:
    state = read_state(GOLDEN / "frieren_pl14_layout.ckpt")
    assert state
    assert all(isinstance(tensor, torch.Tensor) for tensor in state.values())
    assert any(key.startswith("model.diffusion_model.") for key in state)


def test_a_checkpoint_without_weights_says_what_it_has(tmp_path: Path) -> None:
    torch.save({"optimizer": {"lr": 1.0}, "epoch": 3}, tmp_path / "x.pt")
    with pytest.raises(ValueError, match="no weights: its top-level entries are optimizer, epoch"):
        read_state(tmp_path / "x.pt")


FOREIGN = {
    "a web page": (b"\n<!DOCTYPE html><html><title>Sign in</title></html>", "a web page of 51 bytes"),
    "lfs pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:ab6c\nsize 1221942998\n",
        "a git-lfs pointer to a file of 1,221,942,998 bytes",
    ),
    "xml": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "bytes of XML"),
    "json": (b'{"error": "Not found"}', 'JSON: \'{"error": "Not found"}\''),
    "zeros": (bytes(4096), "begin with zeros"),
    "text": (b"Too Many Requests", "bytes of text: 'Too Many Requests'"),
    "gzip": (b"\x1f\x8b\x08" + bytes(20), "a gzip archive"),
    "empty": (b"", "is empty, 0 bytes"),
    "noise": (bytes(range(200, 256)) * 4, "begin with c8 c9"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_that_is_not_a_checkpoint_is_described(name: str, folder: Path) -> None:
    content, words = FOREIGN[name]
    path = folder / "v1-44.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"v1-44.pth") as caught:
        read_state(path)
    assert words in str(caught.value)
    assert "the published v1-44.pth has 1,221,942,998 bytes" in str(caught.value)
    with pytest.raises(ValueError, match=r"v1-44.pth") as caught:
        load_published("v1-44.pth", folder)
    assert words in str(caught.value)


def test_a_folder_a_broken_link_and_another_archive_are_described(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is a folder"):
        read_state(tmp_path)
    (tmp_path / "link.pth").symlink_to("gone")
    with pytest.raises(ValueError, match="a link that leads nowhere"):
        read_state(tmp_path / "link.pth")
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(ValueError, match=r"without a torch checkpoint in it \(it holds readme.txt"):
        read_state(tmp_path / "x.pth")


@pytest.mark.parametrize("form", ["safetensors", "zip", "legacy"])
def test_a_file_cut_short_anywhere_is_refused(form: str, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut.pth"
    if form == "safetensors":
        save_file(plain_state(), whole)
    else:
        torch.save(plain_state(), whole, _use_new_zipfile_serialization=form == "zip")
    data = whole.read_bytes()
    read_state(whole)
    places = [1, 3, 5, 9, 30, 100, 400, len(data) // 2, len(data) - 200, len(data) - 23, len(data) - 1]
    for place in places:
        cut.write_bytes(data[:place])
        with pytest.raises(ValueError, match=r"cut.pth") as caught:
            read_state(cut)
        if place > 100:
            assert "cut short" in str(caught.value)
            assert f"{place:,} bytes found" in str(caught.value)
