"""Convert a pickled checkpoint once to safetensors, which loads by mapping and cannot run code.

The conversion lies beside the original as FILE.foleypref.safetensors, or in foleypref's cache if that folder
is read-only. It is written under another name, synced and renamed, one process at a time, so a file with its
name is whole; the original's hash in its metadata shows whether the original has changed since.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import struct
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from foleypref.media.files import atomic_path, remove_leftovers
from foleypref.published.hashes import Hashes
from foleypref.published.places import CONVERTED, CONVERTED_EARLIER, companions, write_to_first
from foleypref.workspace.shards import DTYPES

_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_VERSION = "1"  # of the content of conversions; those of another version are made again


def converted(path: Path, hashes: Hashes, read: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Load the tensors of the file at `path` from its conversion, which is made by `read` at the first time.

    Tensors that share memory in the original share it again. If no folder can hold the conversion, the
    tensors come from `read` every time.
    """
    places = companions(path, path.name + CONVERTED)
    earlier = [path.with_name(path.name + CONVERTED_EARLIER)]
    conversion = _valid([*places, *earlier], hashes)
    if conversion is None:
        with path.open("rb") as original:  # locked: one of eight workers converts and seven wait
            with contextlib.suppress(OSError):  # some network disks have no locks; then each worker converts
                fcntl.flock(original, fcntl.LOCK_EX)
            conversion = _valid(places, hashes) or _convert(places, path, hashes, read)
    return read() if conversion is None else load_conversion(conversion)


def load_conversion(path: Path) -> dict[str, Tensor]:
    """Load the tensors of a conversion, mapped from the file, with shared tensors shared again."""
    state = load_file(path)
    ties = json.loads(_metadata(path).get("ties", "{}"))
    return state | {name: state[stored] for name, stored in ties.items()}


def source_of(path: Path) -> Hashes | None:
    """Return the hashes of a conversion's original; None if it is not a whole conversion of this version."""
    try:
        metadata = _metadata(path)
    except Exception:  # absent, torn or foreign: safetensors raises its own type
        return None
    if metadata.get("version") != _VERSION or "source_sha256" not in metadata:
        return None
    return Hashes(md5=metadata["source_md5"], sha256=metadata["source_sha256"])


def _valid(places: list[Path], hashes: Hashes) -> Path | None:
    return next((place for place in places if source_of(place) == hashes), None)


def _metadata(path: Path) -> dict[str, str]:
    with safe_open(str(path), framework="pt") as file:
        return dict(file.metadata() or {})


def _convert(
    places: list[Path], path: Path, hashes: Hashes, read: Callable[[], dict[str, Tensor]]
) -> Path | None:
    """Write the conversion to the first place that can be written to; None if there is none."""
    tensors, ties = _untied(read())
    metadata = {
        "version": _VERSION, "source": path.name, "source_md5": hashes.md5, "source_sha256": hashes.sha256,
        "ties": json.dumps(ties),
    }  # fmt: skip
    if unknown := {t.dtype for t in tensors.values()} - set(_DTYPE_NAMES):
        raise ValueError(f"{path} holds tensors of {unknown.pop()}, which no network's weights have")

    def write(place: Path) -> None:
        remove_leftovers(place.parent.glob(f".{place.name}.*.tmp"))
        write_safetensors(place, tensors, metadata)

    return write_to_first(places, write)


def write_safetensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file atomically, tensor by tensor: a mapped state is never whole in memory."""
    header: dict[str, object] = {"__metadata__": metadata}
    offset = 0
    # Wide types first, as in the format's own writer: every tensor is then aligned to its type.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    for name in names:
        tensor = tensors[name]
        end = offset + tensor.numel() * tensor.element_size()
        shape = list(tensor.shape)
        header[name] = {"dtype": _DTYPE_NAMES[tensor.dtype], "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in names:
            flat = tensors[name].detach().cpu().contiguous().reshape(-1)
            file.write(flat.view(torch.uint8).numpy().data)


def _untied(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return each distinct tensor once, and for a tensor of the same memory the name it is stored under."""
    stored: dict[tuple[object, ...], str] = {}
    ties: dict[str, str] = {}
    for name, tensor in state.items():
        if tensor.numel() == 0:
            continue
        view = (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
        if view in stored:
            ties[name] = stored[view]
        else:
            stored[view] = name
    return {name: tensor for name, tensor in state.items() if name not in ties}, ties
