"""Tell from a file's first bytes whether it is a checkpoint, or what was saved in its place."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

from foleypref.published import registry

SAFETENSORS, TORCH_ZIP, TORCH_LEGACY = "safetensors", "torch zip", "torch legacy"
_HEAD = 1024
_LEGACY_MAGIC = b"l\xfc\x9cF\xf9 j\xa8P\x19"  # the number that torch.save before 1.6 wrote first
_MAX_HEADER = 100_000_000  # bytes; the limit that safetensors itself sets


def check_format(path: Path) -> str:
    """Return the kind of checkpoint that a file is. Raises ValueError, which says what it is instead."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the file of weights inside it")
    if not path.exists():
        dangling = " (a link that leads nowhere)" if path.is_symlink() else ""
        raise ValueError(f"{path} does not exist{dangling}; give the path of a .safetensors or .pth file")
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        raise ValueError(f"{path} is empty, 0 bytes{_expected(path)}; get it again")
    length = int.from_bytes(head[:8], "little")
    if 2 <= length <= _MAX_HEADER and head[8:9] == b"{":
        _check_safetensors(path, size, length)
        return SAFETENSORS
    if head.startswith(b"PK\x03\x04"):
        _check_zip(path, size)
        return TORCH_ZIP
    if _LEGACY_MAGIC in head[:32]:
        return TORCH_LEGACY
    raise ValueError(f"{path} is no checkpoint: {_foreign(head, size)}{_expected(path)}")


def safetensors_header(path: Path) -> dict[str, dict[str, object]]:
    """Read a safetensors header: name -> dtype, shape and data_offsets, and perhaps `__metadata__`."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header: dict[str, dict[str, object]] = json.loads(file.read(length))
    return header


def _check_safetensors(path: Path, size: int, length: int) -> None:
    if size < 8 + length:
        raise ValueError(_short(path, size, f"just its header needs {8 + length:,}"))
    try:
        header = safetensors_header(path)
        ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]  # type: ignore[index]
    except (ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} is not a whole safetensors file: its header does not read ({error})"
        ) from error
    whole = 8 + length + max(ends, default=0)
    if size < whole:
        raise ValueError(_short(path, size, f"its header promises {whole:,}"))


def _check_zip(path: Path, size: int) -> None:
    """Raise ValueError unless a torch zip is whole: the index lies at its end, and is lost if it is cut."""
    if not zipfile.is_zipfile(path):
        raise ValueError(_short(path, size, "a zip without its end"))
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise ValueError(f"{path} is a damaged zip archive ({error}); get it again") from error
    if not any(name.endswith("data.pkl") for name in names):
        raise ValueError(
            f"{path} is a zip archive without a torch checkpoint in it (it holds {', '.join(names[:3])} …); "
            "unpack it and give the file of weights"
        )
    if any(name.endswith("constants.pkl") for name in names):
        raise ValueError(f"{path} is a TorchScript program, which would run as code; give a file of weights")


def _short(path: Path, size: int, why: str) -> str:
    return f"{path} is cut short: {size:,} bytes found, {why}{_expected(path)}; get it again"


def _expected(path: Path) -> str:
    """Return the published size of a file of this name as the end of a message; "" if it is not known."""
    sizes = {entry.bytes for entry in registry.by_file_name(path.name)} - {None}
    return f"; the published {path.name} has {sizes.pop():,} bytes" if len(sizes) == 1 else ""


def _foreign(head: bytes, size: int) -> str:
    """Describe what a file that is not a checkpoint seems to be, and what to do."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith(b"version https://git-lfs"):
        promised = re.search(rb"^size (\d+)", head, re.M)
        of = f" to a file of {int(promised[1]):,} bytes" if promised else ""
        return f"a git-lfs pointer{of}, {size} bytes of text; `git lfs pull` gets the file itself"
    if start.startswith((b"<!doctype html", b"<html")) or b"<html" in start:
        return f"a web page of {size:,} bytes, saved instead of the file (often a log-in or licence page)"
    if start.startswith((b"<?xml", b"<error")):
        return f"{size:,} bytes of XML, most likely a server's error message: {_quote(start)}"
    if start.startswith((b"{", b"[")):
        return f"{size:,} bytes of JSON: {_quote(head)}"
    if not any(head):
        return f"{size:,} bytes that begin with zeros: a download that reserved its space and stopped"
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        return "a Python pickle that torch.save did not write; it would run as code and is not opened"
    for magic, name in {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"7z\xbc": "7-zip"}.items():
        if head.startswith(magic):
            return f"a {name} archive; unpack it and give the file of weights inside"
    if head[257:262] == b"ustar":
        return "a tar archive; unpack it and give the file of weights inside"
    if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head):
        return f"{size:,} bytes of text: {_quote(head)}"
    return f"{size:,} bytes that begin with {head[:8].hex(' ')}"


def _quote(text: bytes) -> str:
    return repr(" ".join(text[:60].decode("utf-8", "replace").split()))
