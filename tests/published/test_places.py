"""The registry's entries, and where their files are looked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from foleypref.published import registry
from foleypref.published.places import EARLIER, locate, weights_folder
from foleypref.published.weights import load_published
from tests.weight_files import (
    PLAIN,
    golden_keys,
    plain_state,
    register,
    same,
)

pytestmark = pytest.mark.usefixtures("folder")


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
def test_a_file_is_found_in_the_usual_layouts(
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
    assert locate("plain-net.pth", folder) == folder / "plain-net.pth"  # loading it explains the damage


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
