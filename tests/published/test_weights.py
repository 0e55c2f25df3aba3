"""Published weights: found where people keep them, told from what is not a checkpoint, converted once."""

from __future__ import annotations

import json
import os
import pickle
import resource
import signal
import stat
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from foleypref.cli.weights import run_weights
from foleypref.published import conversion, hashes, registry
from foleypref.published.identify import VARIANTS, identify, without_wrapper
from foleypref.published.places import EARLIER, locate, weights_folder
from foleypref.published.reading import read_state
from foleypref.published.weights import LEGACY_EXTRAS, load_published
from tests.weight_files import (
    GOLDEN,
    PLAIN,
    as_large_as_life,
    golden_keys,
    not_root,
    plain_state,
    register,
    small_mmaudio,
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty weights folder; home and the hub's cache are elsewhere and empty."""
    for name in ("FOLEYPREF_WEIGHTS", "FOLEYTUNE_WEIGHTS", "HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


@pytest.fixture
def plain(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A torch file in the weights folder that the registry knows by size and hash."""
    path = folder / PLAIN.name
    torch.save({"weights": plain_state(), "it": 3}, path)
    register(monkeypatch, PLAIN, path)
    return path


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        found[key].dtype == tensor.dtype and torch.equal(found[key], tensor)
        for key, tensor in expected.items()
    )


# ---- the registry


def test_names_are_unique_and_every_model_has_its_files() -> None:
    assert len({entry.name for entry in registry.FILES}) == len(registry.FILES)
    for model in registry.MODELS:
        assert registry.files_for(model)
    roles = [entry.role for entry in registry.files_for("mmaudio-large-44k-v2")]
    assert roles == [
        "MMAudio large-44k-v2 network", "MMAudio 44k VAE", "BigVGAN 44k vocoder", "CLIP ViT-H/14-378",
        "Synchformer",
    ]  # fmt: skip
    assert registry.files_for("mmaudio-small-16k")[2].name == "best_netG.pt"


def test_hashes_have_their_lengths_and_sizes_fit_the_number_of_elements() -> None:
    for entry in registry.FILES:
        assert entry.md5 is None or (len(entry.md5) == 32 and int(entry.md5, 16))
        assert entry.sha256 is None or (len(entry.sha256) == 64 and int(entry.sha256, 16))
        assert entry.repo or entry.url or entry.page
    files = {
        "mmaudio_small_16k.pth": "small_16k", "mmaudio_medium_44k.pth": "medium_44k",
        "mmaudio_large_44k.pth": "large_44k", "mmaudio_large_44k_v2.pth": "large_44k_v2",
        "v1-16.pth": "vae_16k", "v1-44.pth": "vae_44k", "best_netG.pt": "bigvgan_16k",
        "bigvgan_generator.pt": "bigvgan_44k",
    }  # fmt: skip
    for name, golden in files.items():
        size = registry.find(name).bytes
        elements = sum(tensor.numel() for tensor in golden_keys(golden).values())
        assert size is not None
        assert 0 < size - 4 * elements < 500_000, name  # float32, a pickle, and the extras of version 1


def test_an_unknown_name_gets_the_nearest() -> None:
    assert registry.find("open_clip_pytorch_model.bin").role == "CLIP ViT-H/14-378"
    with pytest.raises(ValueError, match=r"'v1-45.pth'; did you mean 'v1-44.pth'"):
        registry.find("v1-45.pth")
    with pytest.raises(ValueError, match="did you mean 'mmaudio-large-44k-v2'"):
        registry.files_for("mmaudio-lage-44k-v2")


# ---- finding


def test_the_folder_is_the_argument_then_the_variable_then_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert weights_folder() == tmp_path / "home/.cache/foleypref/weights"
    monkeypatch.setenv("FOLEYPREF_WEIGHTS", "~/mine")
    assert weights_folder() == tmp_path / "home/mine"
    assert weights_folder("/elsewhere") == Path("/elsewhere")


def test_what_was_kept_under_the_earlier_name_is_still_found(
    plain: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = tmp_path / "home" / ".cache" / EARLIER / "weights"
    earlier.mkdir(parents=True)
    assert weights_folder() == earlier
    monkeypatch.setenv("FOLEYTUNE_WEIGHTS", str(folder))
    assert weights_folder() == folder
    monkeypatch.setenv("FOLEYPREF_WEIGHTS", "~/mine")
    assert weights_folder() == tmp_path / "home/mine"
    # a conversion made then serves now, whether or not its original is still there
    load_published(plain.name, folder)
    made = folder / "plain-net.pth.foleypref.safetensors"
    made.rename(folder / f"plain-net.pth.{EARLIER}.safetensors")
    assert same(load_published(plain.name, folder), plain_state())
    assert not made.exists()
    plain.unlink()
    assert same(load_published(plain.name, folder), plain_state())


LAYOUTS = (
    "plain-net.pth",
    "weights/plain-net.pth",
    "ext_weights/plain-net.pth",
    "MMAudio/ext_weights/plain-net.pth",
    "hub/models--someone--nets/snapshots/0123abc/weights/plain-net.pth",
    "models/mmaudio/plain-net_fp16.safetensors",
    "plain-net.safetensors",
)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_is_found_in_the_layouts_people_have(
    layout: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(monkeypatch, PLAIN)
    path = folder / layout
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    (folder / "plain-net.txt").write_text("not this")
    (folder / "plain-net_other.safetensors").write_text("nor this")
    assert locate("plain-net.pth", folder) == path


def test_a_hub_snapshot_that_links_to_a_blob_is_found_and_nothing_is_put_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "home/.cache/huggingface/hub/models--nvidia--bigvgan_v2_44khz_128band_512x"
    link = cache / "snapshots/95a9/bigvgan_generator.pt"
    for place in (cache / "blobs", link.parent):
        place.mkdir(parents=True)
    torch.save({"generator": plain_state()}, cache / "blobs/d9fe")
    link.symlink_to("../../blobs/d9fe")
    entry = registry.find("bigvgan_generator.pt")
    register(monkeypatch, entry, link)
    assert locate(entry.name, tmp_path / "weights") == link
    state = load_published(entry.name, tmp_path / "weights", role="plain network of the tests")
    assert same(state, plain_state())
    assert [path.name for path in link.parent.iterdir()] == [link.name]


def test_the_right_size_wins_over_another_file_of_the_same_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = folder / "deep/er/plain-net.pth"
    right.parent.mkdir(parents=True)
    right.write_bytes(b"0123456789")
    register(monkeypatch, PLAIN, right)
    (folder / "plain-net.pth").write_bytes(b"0")
    assert locate("plain-net.pth", folder) == right
    right.unlink()
    assert locate("plain-net.pth", folder) == folder / "plain-net.pth"  # to be told what is wrong with it


def test_a_name_that_many_models_share_needs_the_folder_of_its_own(folder: Path) -> None:
    (folder / "checkpoint.pt").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"audiobox-aesthetics/checkpoint.pt .* is missing"):
        locate("audiobox-aesthetics/checkpoint.pt", folder)
    own = folder / "some/audiobox-aesthetics/checkpoint.pt"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"x")
    assert locate("audiobox-aesthetics/checkpoint.pt", folder) == own


def test_what_lies_too_deep_or_in_a_loop_of_links_ends_the_search(folder: Path) -> None:
    (folder / "loop").symlink_to(folder)
    deep = folder / "a/b/c/d/e/f/g/v1-44.pth"
    deep.parent.mkdir(parents=True)
    deep.write_bytes(b"x")
    with pytest.raises(ValueError, match="is missing"):
        locate("v1-44.pth", folder)


def test_a_missing_file_is_one_line_that_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is missing") as caught:
        locate("v1-44.pth", tmp_path / "none")
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        "v1-44.pth", "MMAudio 44k VAE", f"{tmp_path}/none (no such folder)", "non-commercial",
        "foleypref weights fetch v1-44.pth",
        "https://huggingface.co/hkchengrex/MMAudio/resolve/main/ext_weights/v1-44.pth",
    ):  # fmt: skip
        assert part in message
    with pytest.raises(ValueError, match=r"licence MIT$"):
        locate("bigvgan_generator.pt", tmp_path)
    with pytest.raises(ValueError, match=r"by hand from https://drive.google.com/.*licence not stated"):
        locate("frieren-reflow.ckpt", tmp_path)


# ---- reading


@pytest.mark.parametrize("wrapper", [None, "weights", "generator", "state_dict", "model"])
@pytest.mark.parametrize("legacy", [False, True])
def test_what_torch_saved_reads_bit_for_bit(wrapper: str | None, legacy: bool, tmp_path: Path) -> None:
    state = plain_state()
    whole = {"epoch": 4, wrapper: {**state, "note": "text"}, "optimizer": {"lr": 0.1}} if wrapper else state
    torch.save(whole, tmp_path / "net.pt", _use_new_zipfile_serialization=not legacy)
    assert same(read_state(tmp_path / "net.pt"), state)


def test_safetensors_read_whatever_they_are_called(tmp_path: Path) -> None:
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
    if form != "pickle":  # it is as malicious as it says
        torch.load(path, weights_only=False)
        assert marker.exists()


class Settings:
    """What somebody's training pickles beside the weights."""


@pytest.mark.parametrize("zipped", [False, True])
def test_a_checkpoint_with_somebodys_class_is_refused_by_its_name(zipped: bool, tmp_path: Path) -> None:
    content = {"model": {"w": torch.ones(2)}, "args": Settings()}
    torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"code from outside \(tests.published.test_weights.Settings\)"):
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
def test_what_is_no_checkpoint_is_called_by_its_name(name: str, folder: Path) -> None:
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


def test_a_folder_a_lost_link_and_another_archive_are_told(tmp_path: Path) -> None:
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
def test_a_file_cut_short_anywhere_is_told_and_never_read(form: str, tmp_path: Path) -> None:
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


# ---- what is it


@pytest.mark.parametrize("variant", VARIANTS.values())
def test_every_mmaudio_network_is_told_from_the_others(variant: str) -> None:
    state = golden_keys(variant.replace("-", "_"))
    assert identify(state) == f"MMAudio {variant} network"
    assert (
        identify({f"module._orig_mod.{key}": t for key, t in state.items()}) == f"MMAudio {variant} network"
    )
    assert registry.find(f"mmaudio_{variant.replace('-', '_')}.pth").role == f"MMAudio {variant} network"


OTHERS = {
    ("vae_16k", "keys"): "v1-16.pth",
    ("vae_44k", "keys"): "v1-44.pth",
    ("bigvgan_16k", "keys"): "best_netG.pt",
    ("bigvgan_16k", "folded"): "best_netG.pt",
    ("bigvgan_44k", "keys"): "bigvgan_generator.pt",
    ("bigvgan_44k", "folded"): "bigvgan_generator.pt",
    ("clip_vit_h14_378", "keys"): "open_clip_pytorch_model.bin",
}


@pytest.mark.parametrize("golden", OTHERS)
def test_the_parts_around_the_network_are_told(golden: tuple[str, str]) -> None:
    assert identify(golden_keys(*golden)) == registry.find(OTHERS[golden]).role


def test_synchformer_is_told_whole_or_half() -> None:
    half = golden_keys("synchformer_visual")
    assert identify(half) == "Synchformer, visual half only"
    assert identify({**half, "afeat_extractor.x": torch.zeros(1)}) == "Synchformer"


def test_what_was_never_published_is_told_by_its_figures() -> None:
    micro = small_mmaudio(v2=True)
    assert identify(micro).startswith("MMAudio network of an unpublished size, width 448, 20 latent channels")
    assert "version 2" in identify(micro)
    vocoder = {"conv_pre.weight": torch.zeros(1536, 100, 7), "ups.0.0.weight": torch.zeros(2, 2, 8)}
    assert identify(vocoder) == "BigVGAN vocoder of another size, 100 mel bins, width 1536, first kernel 8"
    assert identify({"a.lora_A.weight": torch.zeros(1)}).startswith("LoRA adapter")
    assert identify({"a": torch.zeros(2, 3)}) == "unknown checkpoint, 1 tensors: a (2, 3)"
    assert without_wrapper({"module.a": torch.zeros(1), "b": torch.zeros(1)}).keys() == {"module.a", "b"}


# ---- loading


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


def test_the_conversion_alone_will_do_if_its_original_was_deleted(
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
        found = load_published(PLAIN.name, folder)
        assert same(found, state)
        assert found["a"].data_ptr() == found["b"].data_ptr()
        assert found["a"].data_ptr() != found["turned"].data_ptr()
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


def test_an_md5_alone_is_checked_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_the_wrong_file_in_a_slot_is_called_by_its_name(folder: Path) -> None:
    torch.save(as_large_as_life("vae_16k"), folder / "v1-44.pth")
    told = "the published file has 1,221,942,998; it holds MMAudio 16k VAE, expected MMAudio 44k VAE"
    with pytest.raises(ValueError, match=f"bytes found, {told}"):
        load_published("v1-44.pth", folder)
    assert not list(folder.glob(".*hash.json"))  # told by its size: gigabytes were not read for it
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
    """A folder that everybody may read, with home and its cache in it."""
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


# ---- the command


def test_help_and_list_are_quick(capsys: pytest.CaptureFixture[str]) -> None:
    code = (
        "import sys; from foleypref.cli.weights import run_weights as r; r(['--help']); "
        "r(['list', 'frieren']); print([m for m in ('torch', 'numpy') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.stdout.startswith("usage: foleypref weights list")
    assert result.stdout.splitlines()[-1] == "[]"


def test_list_shows_the_files_of_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_weights(["list", "mmaudio-small-16k"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line.split()[0] for line in lines[1:6]]
    assert names == [entry.name for entry in registry.files_for("mmaudio-small-16k")]
    assert "629,395,261" in lines[1]
    assert "CC-BY-NC-4.0" in lines[1]


def test_check_tells_right_from_wrong_from_missing(
    plain: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_weights(["check", "plain-net.pth", "--folder", str(folder)]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.split()[0] == "plain-net.pth"
    assert str(plain) in line
    assert line.endswith(f"{plain.stat().st_size:,}  ok")

    assert run_weights(["check", f"--folder={folder}", "plain-net.pth", "v1-44.pth"]) == 1
    told = capsys.readouterr().out
    assert "missing" in told
    assert "foleypref weights fetch v1-44.pth" in told
    assert run_weights(["check", "--folder", str(folder)]) == 0  # nobody asked for what is missing

    plain.write_bytes(plain.read_bytes()[:-3] + b"abc")
    assert run_weights(["check", "plain-net.pth", "--folder", str(folder)]) == 1
    assert "the published file has" in capsys.readouterr().out
    plain.write_bytes(b"<html>")
    assert run_weights(["check", "--folder", str(folder)]) == 1
    told = capsys.readouterr().out
    assert "damaged" in told
    assert "a web page" in told


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "wants list, check, fetch or export"),
        (["chekc"], "wants list, check, fetch or export, found 'chekc'"),
        (["list", "mmaudio-smal-16k"], "did you mean 'mmaudio-small-16k'"),
        (["check", "--fodler", "x"], "no option --fodler"),
        (["fetch"], "wants the NAME"),
        (["fetch", "v1-44.pth", "v1-444.pth"], "did you mean 'v1-44.pth'"),
        (["fetch", "--folder"], "--folder wants a value"),
    ],
)
def test_a_mistake_is_a_value_error(args: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_weights(args)
