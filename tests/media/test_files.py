"""Writing files: old or new, never torn; leftovers of killed writers go, unless another host wrote them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from foleypref.media import files
from foleypref.media.files import atomic_folder, atomic_path, remove_leftovers, sync, write_atomic


def test_a_file_appears_whole_and_its_folder_is_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "state.json"
    write_atomic(path, b"1")
    write_atomic(path, b"22")
    assert path.read_bytes() == b"22"
    assert list(path.parent.iterdir()) == [path]


def test_an_overwrite_is_old_or_new_never_torn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.json"
    write_atomic(path, b"old")
    monkeypatch.setattr(os, "fsync", lambda descriptor: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_atomic(path, b"new and longer")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_raises_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "state.npy"
    write_atomic(path, b"old")

    def fail() -> None:
        with atomic_path(path, suffix=".npy") as temporary:
            assert temporary.suffix == ".npy"
            temporary.write_bytes(b"new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_data_is_on_disk_before_the_name_and_the_name_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    path = tmp_path / "x"

    def record(synced: Path) -> None:
        events.append("folder" if synced == tmp_path else "file")
        assert path.exists() == (synced == tmp_path)
        sync(synced)

    monkeypatch.setattr(files, "sync", record)
    write_atomic(path, b"1")
    assert events == ["file", "folder"]


def test_a_folder_is_replaced_when_it_is_full(tmp_path: Path) -> None:
    place = tmp_path / "adapter"
    with atomic_folder(place) as partial:
        (partial / "old").write_text("1")
    with pytest.raises(ZeroDivisionError), atomic_folder(place) as partial:
        raise ZeroDivisionError
    assert [path.name for path in place.iterdir()] == ["old"]
    with atomic_folder(place) as partial:
        (partial / "new").write_text("2")
    assert [path.name for path in place.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def leftover(folder: Path, host: str, boot: str, pid: int, ending: str = ".tmp") -> Path:
    path = folder / f".x.parquet.{host}-{boot}-{pid}{ending}"
    path.write_bytes(b"torn")
    return path


def test_only_leftovers_of_this_hosts_dead_writers_are_removed(tmp_path: Path) -> None:
    host, boot = files._machine()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    gone = [
        leftover(tmp_path, host, boot, dead.pid),
        leftover(tmp_path, host, boot, dead.pid, ".tmp.npy"),
        leftover(tmp_path, host, "0" * 8, os.getpid()),  # of the time before a restart
    ]
    stay = [
        leftover(tmp_path, host, boot, os.getpid()),
        leftover(tmp_path, host, boot, 1),  # runs, perhaps for another user
        leftover(tmp_path, "0" * 8, boot, dead.pid),  # another machine's, which may still be writing
        tmp_path / "x.parquet",
        tmp_path / ".hidden.tmp",
    ]
    for path in stay[3:]:
        path.write_bytes(b"data")
    remove_leftovers(tmp_path.iterdir())
    assert set(tmp_path.iterdir()) == set(stay)
    assert not any(path.exists() for path in gone)


def test_the_writer_needs_neither_torch_nor_arrow() -> None:
    code = "import sys, foleypref.media.files; assert not {'torch', 'pyarrow', 'av'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
