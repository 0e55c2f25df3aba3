"""Loading published weights: converted once and checked, whatever lies in their place."""

from __future__ import annotations

import json
import os
import resource
import signal
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from foleypref.published import conversion, hashes, registry
from foleypref.published.reading import read_state
from foleypref.published.weights import LEGACY_EXTRAS, load_published
from tests.weight_files import (
    PLAIN,
    as_large_as_life,
    not_root,
    plain_state,
    register,
    same,
    small_mmaudio,
)

pytestmark = pytest.mark.usefixtures("folder")


def test_a_published_file_is_converted_once_and_then_mapped(
    plain: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert same(load_published("plain-net.pth", folder), plain_state())
    made = folder / "plain-net.pth.foleypref.safetensors"
    assert same(load_file(made), plain_state())
    source = conversion.source_of(made)
    assert source is not None
    assert source.sha256 == registry.find("plain-net.pth").sha256

    def no_more(*_: object) -> None:
        raise AssertionError("the pickle was read again")

    monkeypatch.setattr("foleypref.published.weights.read_state", no_more)
    monkeypatch.setattr(hashes, "_take", no_more)
    assert same(load_published("plain-net.pth", folder), plain_state())


def test_a_changed_original_is_converted_again(plain: Path, folder: Path) -> None:
    load_published(plain.name, folder)
    other = {key: torch.ones_like(tensor) for key, tensor in plain_state().items()}
    torch.save(other, plain)
    assert same(load_published(plain.name, folder, verify=False), other)


def test_a_conversion_that_is_torn_or_of_another_file_is_not_used(plain: Path, folder: Path) -> None:
    load_published(plain.name, folder)
    made = folder / "plain-net.pth.foleypref.safetensors"
    whole = made.read_bytes()
    for content in (whole[:-1], whole[:40], b"", b"x" * 100):
        made.write_bytes(content)
        assert same(load_published(plain.name, folder), plain_state())
        assert made.read_bytes() == whole


def test_a_conversion_is_enough_if_its_original_was_deleted(
    plain: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_published(plain.name, folder)
    plain.unlink()
    assert same(load_published(plain.name, folder), plain_state())
    torch.save({"other": torch.zeros(1)}, plain)
    register(monkeypatch, PLAIN, plain)
    plain.unlink()
    with pytest.raises(ValueError, match="was converted from another file than the published"):
        load_published(plain.name, folder)


def test_tied_tensors_are_stored_once_and_tied_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = torch.randn(300, 300)
    state = {"a": shared, "b": shared, "part": shared[1:], "turned": shared.T, "thin": shared[0, ::2]}
    torch.save(state, folder / PLAIN.name)
    register(monkeypatch, PLAIN, folder / PLAIN.name)
    for _ in range(2):  # the second time from the conversion
        loaded = load_published(PLAIN.name, folder)
        assert same(loaded, state)
        assert loaded["a"].data_ptr() == loaded["b"].data_ptr()
        assert loaded["a"].data_ptr() != loaded["turned"].data_ptr()
    size = (folder / f"{PLAIN.name}.foleypref.safetensors").stat().st_size
    assert size < 3.1 * shared.numel() * 4


def test_a_wrong_hash_names_both_and_says_what_to_do(plain: Path, folder: Path) -> None:
    right = registry.find(plain.name).sha256
    data = bytearray(plain.read_bytes())
    data[len(data) // 2] ^= 1  # inside a tensor: nothing but the hash tells
    plain.write_bytes(data)
    with pytest.raises(ValueError, match=r"is not the published plain-net.pth") as caught:
        load_published(plain.name, folder)
    message = str(caught.value)
    assert f"sha256 {hashes.file_hashes(plain).sha256} found, the published file has {right}" in message
    assert "give it by its path" in message
    assert "weights fetch plain-net.pth" in message
    assert load_published(plain.name, folder, verify=False)
    assert load_published(plain, folder)  # by its path, no hash is asked for


def test_an_md5_is_checked_without_a_sha256(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "mmaudio_small_44k.pth"
    torch.save({"w": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=r"md5 [0-9a-f]{32} found, the published file has babd74c8"):
        load_published(path.name, folder)


def test_a_changed_file_is_hashed_again(plain: Path) -> None:
    first = hashes.file_hashes(plain)
    before = plain.stat()
    plain.write_bytes(plain.read_bytes()[::-1])
    os.utime(plain, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert hashes.file_hashes(plain) != first


def test_the_wrong_file_in_a_place_is_named(folder: Path) -> None:
    torch.save(as_large_as_life("vae_16k"), folder / "v1-44.pth")
    advice = "the published file has 1,221,942,998; it holds MMAudio 16k VAE, expected MMAudio 44k VAE"
    with pytest.raises(ValueError, match=f"bytes found, {advice}"):
        load_published("v1-44.pth", folder)
    assert not list(folder.glob(".*hash.json"))  # the size was enough: gigabytes were not read
    with pytest.raises(ValueError, match="expected MMAudio 44k VAE, found MMAudio 16k VAE"):
        load_published("v1-44.pth", folder, verify=False)
    assert not list(folder.glob("*.safetensors"))  # not converted first and looked at afterwards
    torch.save({"generator": as_large_as_life("bigvgan_44k")}, folder / "tuned.pth")
    with pytest.raises(ValueError, match="expected MMAudio small-16k network, found BigVGAN 44k vocoder"):
        load_published(folder / "tuned.pth", role="MMAudio small-16k network")
    torch.save({"what": torch.zeros(2)}, folder / "tuned.pth")
    with pytest.raises(ValueError, match=r"found unknown checkpoint, 1 tensors: what \(2,\)"):
        load_published(str(folder / "tuned.pth"), role="MMAudio small-16k network")


def test_a_third_party_fp16_conversion_loads_without_a_hash(folder: Path) -> None:
    state = {key: tensor.half() for key, tensor in small_mmaudio().items() if key not in LEGACY_EXTRAS}
    save_file(state, folder / "mmaudio_small_16k_fp16.safetensors")
    assert same(load_published("mmaudio_small_16k.pth", folder), state)
    save_file({"vfeat_extractor.x": torch.zeros(1)}, folder / "mmaudio_synchformer_fp16.safetensors")
    with pytest.raises(ValueError, match="expected Synchformer, found unknown checkpoint"):
        load_published("synchformer_state_dict.pth", folder)


def test_the_extras_of_version_1_files_are_dropped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = small_mmaudio()
    assert set(LEGACY_EXTRAS) < set(state)
    path = folder / "mmaudio_small_16k.pth"
    torch.save(state, path)
    register(monkeypatch, registry.find(path.name), path)
    for _ in range(2):
        assert load_published(path.name, folder).keys() == state.keys() - set(LEGACY_EXTRAS)
    assert load_published(path).keys() == state.keys() - set(LEGACY_EXTRAS)


@pytest.fixture
def others_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that every user may read, with home and its cache in it."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o777)
        monkeypatch.setenv("HOME", name)
        yield Path(name)


def test_beside_a_read_only_folder_the_conversion_goes_to_the_cache(
    others_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = others_folder / "weights"
    folder.mkdir()
    path = folder / PLAIN.name
    torch.save(plain_state(), path)
    register(monkeypatch, PLAIN, path)
    path.chmod(stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)
    folder.chmod(0o555)
    try:
        with not_root():
            for _ in range(2):
                assert same(load_published(path.name, folder), plain_state())
            made = list((others_folder / ".cache/foleypref/derived").rglob("*.foleypref.safetensors"))
        assert len(made) == 1
        assert [p.name for p in folder.iterdir()] == [path.name]
    finally:
        folder.chmod(0o755)


def convert_in_little_room(path: Path, limit: int, *, killed: bool) -> int:
    """Convert in a process that may write files of `limit` bytes; its exit status, or minus its signal."""
    child = os.fork()
    if child == 0:
        try:
            taken = hashes.file_hashes(path)
            # The kernel ends the process in the middle of a write, or the write fails as on a full disk.
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL if killed else signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            state = conversion.converted(path, taken, lambda: read_state(path))
            os._exit(0 if same(state, torch.load(path, weights_only=True)) else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_conversion_killed_half_way_is_never_read_and_its_rest_is_cleared_away(folder: Path) -> None:
    path = folder / "net.pth"
    state = {f"layer{i}": torch.randn(200, 200) for i in range(10)}
    torch.save(state, path)
    assert convert_in_little_room(path, 800_000, killed=True) == -signal.SIGXFSZ
    made = folder / "net.pth.foleypref.safetensors"
    torn = list(folder.glob(".*.tmp"))
    assert len(torn) == 1
    assert 0 < torn[0].stat().st_size <= 800_000
    assert not made.exists()
    taken = hashes.file_hashes(path)
    assert same(conversion.converted(path, taken, lambda: read_state(path)), state)
    assert made.exists()
    assert not list(folder.glob(".*.tmp"))


def test_a_full_disk_is_no_reason_not_to_load(folder: Path) -> None:
    path = folder / "net.pth"
    torch.save({f"layer{i}": torch.randn(200, 200) for i in range(10)}, path)
    assert convert_in_little_room(path, 800_000, killed=False) == 0
    assert not list(folder.glob(".*.tmp"))
    assert not list(folder.glob("*.safetensors"))


def test_the_safetensors_we_write_are_those_of_the_library(tmp_path: Path) -> None:
    conversion.write_safetensors(tmp_path / "ours", plain_state(), {"k": "v"})
    assert same(load_file(tmp_path / "ours"), plain_state())
    data = (tmp_path / "ours").read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    assert length % 8 == 0
    assert header["__metadata__"] == {"k": "v"}
