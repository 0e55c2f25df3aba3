"""Read the tensors of a checkpoint file without running any code in it."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from foleypref.published.sniff import SAFETENSORS, TORCH_ZIP, check_format

WRAPPERS = ("weights", "generator", "state_dict", "model")
"""Top-level entries that hold a state dict: MMAudio's training, BigVGAN, Lightning, Synchformer, PANNs."""

_STAND_INS = ("pytorch_lightning.callbacks.",)  # classes in checkpoints on which no tensor depends


def read_state(path: Path | str) -> dict[str, Tensor]:
    """Read a checkpoint's tensors by name, on the CPU, mapped from the file if its format allows.

    Reads .safetensors and files written by torch.save, whatever their suffix; a state dict under one of
    `WRAPPERS` is unwrapped, and entries that are not tensors are left out. dtypes are the file's. Raises
    ValueError, which says what a file that is not a whole checkpoint seems to be, or names the classes that a
    pickle would import.
    """
    path = Path(path).expanduser()
    kind = check_format(path)
    if kind == SAFETENSORS:
        try:
            return load_file(path)
        except Exception as error:  # safetensors raises its own type
            raise ValueError(
                f"{path} is a damaged safetensors file ({_reason(error)}); get it again"
            ) from error
    return _tensors(load_pickle(path, mmap=kind == TORCH_ZIP), path)


def load_pickle(path: Path, *, mmap: bool) -> Any:
    """Load a file written by torch.save with torch's restricted unpickler. Raises ValueError."""
    foreign: list[str] = []  # classes that the file would import; listing them runs no code
    with contextlib.suppress(Exception):  # a torn pickle: loading it gives a better message
        foreign = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path)) if mmap else []
    refused = [name for name in foreign if not name.startswith(_STAND_INS)]
    if refused:
        raise ValueError(_refusal(path, refused))
    inert: list[Any] = [(type("StandIn", (), {}), name) for name in foreign]
    try:
        with torch.serialization.safe_globals(inert), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols, which a user cannot change
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # torn files raise anything from EOFError to IndexError
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        if named:
            raise ValueError(_refusal(path, [named[1]])) from error
        raise ValueError(
            f"{path} is damaged, cut short or not weights at all ({path.stat().st_size:,} bytes found; "
            f"torch says {type(error).__name__}: {_reason(error)}); get it again"
        ) from error


def _refusal(path: Path, classes: list[str]) -> str:
    shown = ", ".join(classes[:3]) + (" …" if len(classes) > 3 else "")
    return (
        f"{path} holds more than weights: unpickling it would run code from outside ({shown}); it was not "
        "opened. If you trust it, save only its state dict, best as .safetensors, and give that file"
    )


def _tensors(loaded: Any, path: Path) -> dict[str, Tensor]:
    """Return the state dict in a loaded object; entries of a list are named by their indices."""
    if isinstance(loaded, Tensor):
        loaded = {"tensor": loaded}
    if isinstance(loaded, list | tuple):
        loaded = {str(index): value for index, value in enumerate(loaded)}
    if not isinstance(loaded, Mapping):
        raise ValueError(f"{path} holds a {type(loaded).__name__}, not a state dict; give a file of weights")
    for name in WRAPPERS:
        if isinstance(loaded.get(name), Mapping):
            return _tensors(loaded[name], path)
    state = {str(key): value for key, value in loaded.items() if isinstance(value, Tensor)}
    if not state:
        entries = ", ".join(str(key) for key in list(loaded)[:6]) or "none"
        raise ValueError(
            f"{path} holds no weights: its top-level entries are {entries}, expected tensors or one of "
            f"{', '.join(WRAPPERS)}"
        )
    return {key: value.detach() for key, value in state.items()}


def _reason(error: BaseException) -> str:
    """Return the line of an error that has its reason; torch puts advice before it."""
    reason = re.search(r"WeightsUnpickler error:\s*(.+)", str(error))
    return reason[1] if reason else (str(error).strip().splitlines() or ["no reason given"])[0]
