"""The steps that loading and writing a published model's networks have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from foleypref.published.filling import Adapt, N
from foleypref.published.hashes import file_hashes
from foleypref.published.places import locate
from foleypref.published.registry import WeightFile
from foleypref.published.weights import load_published

ADAPTER_FILE = "adapter_model.safetensors"


class PublishedParts:
    """The networks of one model on one device, from files of the registry; subclasses load each when needed.

    `files` has the registry's entry of each part by role: "network", "vocoder", …
    """

    def __init__(self, files: Mapping[str, WeightFile], folder: str, device: torch.device) -> None:
        self.files, self.folder, self.device = files, folder or None, device

    @property
    def vocoder_rows(self) -> int:
        """Clips to send through the vocoder at once: it needs far more memory per clip than the flow."""
        return 1 if self.device.type == "cpu" else 8

    def load_state(self, role: str) -> dict[str, Tensor]:
        """Return the tensors of the part's published file."""
        return load_published(self.files[role].name, self.folder)

    def path(self, role: str) -> Path:
        """Return where the part's file lies. Raises MissingWeights."""
        return locate(self.files[role].name, self.folder)


def assign_state(network: nn.Module, state: Mapping[str, Tensor], source: object, target: str) -> None:
    """Make `state` the weights of a network on the meta device, without copying.

    Raises ValueError, which says that `source` does not fit `target`, if a tensor is missing, unknown or of
    another shape.
    """
    try:
        network.load_state_dict(state, assign=True)
    except RuntimeError as error:
        last = str(error).strip().splitlines()[-1].strip()
        raise ValueError(f"{source} does not fit {target}: {last}") from None


def copy_for_training(network: nn.Module, dtype: torch.dtype) -> None:
    """Copy all parameters and buffers as `dtype`: a file is mapped read-only, and training writes to them."""
    with torch.no_grad():
        for tensor in (*network.parameters(), *network.buffers()):
            tensor.data = tensor.data.to(dtype, copy=True)


def adapted(network: N, adapt: Adapt | None) -> N:
    """Return `network` after `adapt`, if there is one. It has to keep the network's class."""
    changed = network if adapt is None else adapt(network)
    assert isinstance(changed, type(network))
    return changed


def content_hashes(paths: Iterable[Path], adapter: str) -> list[str]:
    """Hash each file, and the weights in the folder `adapter` if any. Raises ValueError for absent ones."""
    every = [*paths, *([Path(adapter).expanduser() / ADAPTER_FILE] if adapter else [])]
    for path in every:
        if not path.is_file():
            raise ValueError(f"{path} does not exist; give the file that training wrote")
    return [file_hashes(path).sha256 for path in every]
