"""The world's committed weights: float16 safetensors beside this file; metadata says how they were made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from foleypref.media.files import write_atomic
from foleypref.published.places import MissingWeights

N = TypeVar("N", bound=torch.nn.Module)

FOLDER = Path(__file__).parent / "weights"


def weights_path(name: str, folder: Path | str | None = None) -> Path:
    """Return the path of the weights called `name`. Raises MissingWeights, which says how to make them."""
    path = Path(folder or FOLDER) / f"{name}.safetensors"
    if not path.exists():
        raise MissingWeights(f"{path} is missing; `python -m tools.train_world --out {path.parent}` makes it")
    return path


def load_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return a file's tensors in float32, and its metadata. Raises ValueError if it is missing or torn."""
    try:
        with safe_open(str(path), framework="pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = {key: json.loads(value) for key, value in (file.metadata() or {}).items()}
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist; give the path of a .safetensors file") from error
    except Exception as error:  # safetensors raises its own type for torn or foreign files
        raise ValueError(f"{path} is not a whole safetensors file ({error}); make it again") from error
    floats = {key: t.float() if t.is_floating_point() else t for key, t in state.items()}
    return floats, metadata


def fill(module: torch.nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Load `state`, read from `path`, into a module. Raises ValueError where it does not fit."""
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        last = str(error).strip().splitlines()[-1].strip()
        raise ValueError(f"{path} does not fit {type(module).__name__}: {last}") from error


def read_network(make: Callable[..., N], path: Path, device: str | torch.device) -> N:
    """Return a flow network of the sizes that its file names, with the file's weights. Raises ValueError."""
    state, metadata = load_weights(path)
    network = make(**metadata.get("network", {}))
    fill(network, state, path)
    return network.to(device)


def read_frozen(module: N, name: str, device: str | torch.device) -> N:
    """Return a module with the packaged weights called `name`, frozen and in evaluation mode."""
    fill(module, load_weights(weights_path(name))[0], weights_path(name))
    return module.to(device).eval().requires_grad_(False)


def write_network(network: torch.nn.Module, path: Path, like: Path) -> None:
    """Write a tuned flow network, in float32, with the sizes that the file it came from names."""
    sizes = load_weights(like)[1].get("network", {})
    save_weights(path, network.state_dict(), {"network": sizes}, half=False)


def save_weights(
    path: Path, state: dict[str, Tensor], metadata: dict[str, Any], *, half: bool = True
) -> None:
    """Write weights atomically; `half` rounds them to float16, which every run then uses."""
    tensors = {
        key: (t.detach().cpu().half() if half and t.is_floating_point() else t.detach().cpu()).contiguous()
        for key, t in state.items()
    }
    write_atomic(path, save(tensors, metadata={key: json.dumps(value) for key, value in metadata.items()}))


def file_hash(*paths: Path) -> str:
    """Return the hash of the bytes of files, 16 hex characters."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def round_to_half(network: torch.nn.Module) -> None:
    """Round a network's parameters to what float16 can hold, so that it equals its saved file."""
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(tensor.half().float())
