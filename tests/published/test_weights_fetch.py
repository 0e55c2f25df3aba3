"""Fetching published weights: resumed, checked before a file gets its name, and quick to fail offline."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from foleypref.published import downloads, registry
from foleypref.published.fetching import fetch
from foleypref.published.weights import load_published
from tests.weight_files import PLAIN, Server, plain_state, register


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("FOLEYPREF_WEIGHTS", "FOLEYTUNE_WEIGHTS", "HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(downloads, "_BLOCK", 1 << 12)
    return tmp_path / "weights"


@pytest.fixture
def content(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A checkpoint of 1 MB on the server, in the registry with its hashes."""
    path = tmp_path / "source.pth"
    torch.save(plain_state() | {"big": torch.randn(500, 500)}, path)
    register(
        monkeypatch,
        replace(PLAIN, url=f"{server.url}/net.pth", licence="CC-BY-NC-4.0", non_commercial=True),
        path,
    )
    server.files["/net.pth"] = path.read_bytes()
    return server.files["/net.pth"]


def test_a_fetched_file_is_whole_and_leaves_nothing_beside_it(
    server: Server, content: bytes, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = fetch("plain-net.pth", folder)
    assert path == folder / "plain-net.pth"
    assert path.read_bytes() == content
    lines = capsys.readouterr().err.splitlines()
    assert "licence CC-BY-NC-4.0: non-commercial use only" in lines[0]  # before anything is downloaded
    assert "size and hash are right" in lines[-1]
    assert {p.name for p in folder.iterdir()} == {path.name, f".{path.name}.foleypref-hash.json"}
    asked = len(server.asked)
    assert fetch("plain-net.pth", folder) == path  # it is there
    assert len(server.asked) == asked
    assert load_published("plain-net.pth", folder).keys() == plain_state().keys() | {"big"}


def test_an_interrupted_download_goes_on_where_it_stopped(
    server: Server, content: bytes, folder: Path
) -> None:
    server.break_after = 400_000
    with pytest.raises(
        ValueError, match=r"stopped after 400,000 of 1,\d+,\d+ bytes .* the same command goes on"
    ):
        fetch("plain-net.pth", folder, quiet=True)
    assert not (folder / "plain-net.pth").exists()
    assert (folder / "plain-net.pth.part").stat().st_size == 400_000
    assert fetch("plain-net.pth", folder, quiet=True).read_bytes() == content
    assert server.gets() == [None, "bytes=400000-"]


def test_a_part_that_was_whole_already_is_taken(server: Server, content: bytes, folder: Path) -> None:
    folder.mkdir()
    (folder / "plain-net.pth.part").write_bytes(content)
    assert fetch("plain-net.pth", folder, quiet=True).read_bytes() == content
    assert server.gets() == [f"bytes={len(content)}-"]


@pytest.mark.parametrize("why", ["replaced meanwhile", "no ranges", "too long"])
def test_a_useless_part_is_started_again(why: str, server: Server, content: bytes, folder: Path) -> None:
    server.break_after = 400_000
    with pytest.raises(ValueError, match="stopped"):
        fetch("plain-net.pth", folder, quiet=True)
    part = folder / "plain-net.pth.part"
    part.write_bytes(b"x" * (len(content) + 5 if why == "too long" else 400_000))  # must not be kept
    if why == "replaced meanwhile":
        server.etag = '"two"'
    server.ranges = why != "no ranges"
    assert fetch("plain-net.pth", folder, quiet=True).read_bytes() == content


def test_a_file_that_is_not_the_published_one_is_deleted_and_reported(
    server: Server, content: bytes, folder: Path
) -> None:
    server.files["/net.pth"] = content[:-1] + b"x"
    with pytest.raises(ValueError, match=r"is not the published plain-net.pth: sha256") as caught:
        fetch("plain-net.pth", folder, quiet=True)
    wrong = hashlib.sha256(server.files["/net.pth"]).hexdigest()
    right = hashlib.sha256(content).hexdigest()
    assert f"sha256 {wrong} found, the published file has {right}" in str(caught.value)
    assert list(folder.iterdir()) == []
    server.files["/net.pth"] = content
    assert fetch("plain-net.pth", folder, quiet=True).read_bytes() == content


def test_a_web_page_is_not_taken_for_a_file_without_hashes(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(monkeypatch, replace(PLAIN, url=f"{server.url}/page"))
    server.files["/page"] = b"<html>log in first</html>"
    with pytest.raises(ValueError, match="a web page of 25 bytes"):
        fetch("plain-net.pth", folder, quiet=True)
    assert list(folder.iterdir()) == []


def test_a_tuned_file_in_the_place_is_kept_aside(content: bytes, folder: Path) -> None:
    folder.mkdir()
    torch.save({"tuned": torch.ones(3)}, folder / "plain-net.pth")
    tuned = (folder / "plain-net.pth").read_bytes()
    assert fetch("plain-net.pth", folder, quiet=True).read_bytes() == content
    assert (folder / "plain-net.pth.old-1").read_bytes() == tuned


def test_a_file_url_works_and_a_full_disk_is_reported_first(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source.pth"
    torch.save(plain_state(), source)
    register(monkeypatch, replace(PLAIN, url=source.as_uri()), source)
    usage = downloads.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda _: usage._replace(free=100))
    with pytest.raises(ValueError, match=r"more bytes and .* has 100 free"):
        fetch("plain-net.pth", folder, quiet=True)
    monkeypatch.undo()
    register(monkeypatch, replace(PLAIN, url=source.as_uri()), source)
    assert fetch("plain-net.pth", folder, quiet=True).read_bytes() == source.read_bytes()


def test_two_processes_do_not_write_one_part(content: bytes, folder: Path) -> None:
    folder.mkdir()
    with (folder / "plain-net.pth.part").open("ab") as other:
        downloads.fcntl.flock(other, downloads.fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another process is downloading"):
            fetch("plain-net.pth", folder, quiet=True)
    assert fetch("plain-net.pth", folder, quiet=True).read_bytes() == content


def test_a_refusal_is_reported(server: Server, content: bytes, folder: Path) -> None:
    server.files.clear()
    with pytest.raises(ValueError, match=r"/net.pth answers 404"):
        fetch("plain-net.pth", folder, quiet=True)


def test_a_file_behind_a_web_page_must_be_downloaded_by_hand(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"by hand from https://drive.google.com/drive/folders/") as caught:
        fetch("frieren-noreflow.ckpt", folder)
    assert f"save it as {folder}/frieren-noreflow.ckpt" in str(caught.value)


# ---- no network


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_an_unreachable_url_is_one_line_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"http://127.0.0.1:{closed_port()}/net.pth"
    register(monkeypatch, replace(PLAIN, url=url))
    began = time.monotonic()
    with pytest.raises(ValueError, match="cannot be reached") as caught:
        fetch("plain-net.pth", folder, quiet=True)
    assert time.monotonic() - began < 5
    assert "\n" not in str(caught.value)
    assert f"copy it to {folder}/plain-net.pth" in str(caught.value)
    assert not folder.exists()


def test_a_server_that_never_answers_is_given_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "TIMEOUT_S", 0.3)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        register(monkeypatch, replace(PLAIN, url=f"http://127.0.0.1:{silent.getsockname()[1]}/net.pth"))
        began = time.monotonic()
        with pytest.raises(ValueError, match="cannot be reached"):
            fetch("plain-net.pth", folder, quiet=True)
        assert time.monotonic() - began < 5


def test_a_name_that_takes_for_ever_to_look_up_is_given_up(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "TIMEOUT_S", 0.2)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(30) or [])
    began = time.monotonic()
    with pytest.raises(downloads.Unreachable, match="cannot be reached"):
        downloads.reach("https://huggingface.co")
    assert time.monotonic() - began < 5


# ---- the hub

needs_hub = pytest.mark.skipif(find_spec("huggingface_hub") is None, reason="the extra mmaudio has it")

FETCH = """
import sys, time, hashlib
from dataclasses import replace
from foleypref.published import registry
from foleypref.published.fetching import fetch
name, folder, digest = sys.argv[1:]
if digest:
    entry = replace(registry.find(name), bytes=None, md5=None, sha256=digest)
    registry.FILES = (entry,)
    registry._BY_NAME[name] = entry
began = time.monotonic()
try:
    print(fetch(name, folder))
except ValueError as error:
    print("ValueError:", error)
print(time.monotonic() - began)
"""


def fetch_from_hub(endpoint: str, folder: Path, digest: str = "", **more: str) -> list[str]:
    """The lines that `fetch` prints in a process whose hub is at `endpoint`."""
    environment = {
        **os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "hf"), "HOME": str(folder), **more,
    }  # fmt: skip
    result = subprocess.run(
        [sys.executable, "-c", FETCH, "v1-44.pth", str(folder / "weights"), digest],
        capture_output=True, text=True, timeout=100, env=environment,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


@needs_hub
def test_the_hub_without_a_network_is_one_line_within_seconds(tmp_path: Path) -> None:
    message, seconds = fetch_from_hub(f"http://127.0.0.1:{closed_port()}", tmp_path)
    assert message.startswith("ValueError: v1-44.pth: 127.0.0.1:")
    assert "cannot be reached" in message
    assert float(seconds) < 20
    message, seconds = fetch_from_hub("https://huggingface.co", tmp_path, HF_HUB_OFFLINE="1")
    assert "switched off by HF_HUB_OFFLINE" in message


@needs_hub
def test_the_hub_is_asked_for_the_file_and_what_it_sends_is_checked(tmp_path: Path, server: Server) -> None:
    torch.save(plain_state(), tmp_path / "source.pth")
    data = (tmp_path / "source.pth").read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    server.files["/hkchengrex/MMAudio/resolve/main/ext_weights/v1-44.pth"] = data
    server.etag = f'"{digest}"'
    server.headers = {"X-Repo-Commit": "0" * 40}
    got, _ = fetch_from_hub(server.url, tmp_path, digest)
    assert got == str(tmp_path / "weights/v1-44.pth")
    assert Path(got).read_bytes() == data
    names = {path.name for path in (tmp_path / "weights").iterdir()}
    assert names == {"v1-44.pth", ".v1-44.pth.foleypref-hash.json"}

    Path(got).unlink()
    message, _ = fetch_from_hub(server.url, tmp_path, "0" * 64)
    assert "is not the published v1-44.pth: sha256" in message
    assert not Path(got).exists()


def test_the_registry_is_left_as_it_was() -> None:
    assert registry.find("v1-44.pth").bytes == 1_221_942_998
    assert PLAIN.name not in registry._BY_NAME
