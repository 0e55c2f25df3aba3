"""LoRA through peft: adapters on a flow network, whose frozen weights serve as the reference at no cost.

Low-rank adaptation (arXiv 2106.09685): W + (α / r)·B·A with B zero at the start, so policy = reference at
step 0 and the known first loss still holds. peft writes and loads the adapters.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from foleypref.media.files import atomic_folder
from foleypref.models.sharding import gather_state, shard_like
from foleypref.settings.parts import Settings

if TYPE_CHECKING:
    from peft import PeftModel


def _peft() -> Any:
    try:
        import peft
    except ModuleNotFoundError as error:
        needed = f"lora needs the package {error.name!r}; install it with `pip install 'foleypref[lora]'`"
        raise ValueError(needed) from None
    return peft


class LoraSettings(Settings):
    """Rank and strength of the adapters, and the layers that get them."""

    r: int = Field(16, ge=1)
    lora_alpha: float = Field(16.0, gt=0)  # the update is scaled by lora_alpha / r
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: str | None = None  # regular expression on module names; None: the model's `lora_targets`


def add_adapters(network: nn.Module, settings: LoraSettings, default_targets: str, seed: int) -> PeftModel:
    """Return the network with new adapters, initialised from `seed`, and everything else frozen.

    Raises ValueError if peft is missing or no module matches.
    """
    peft = _peft()
    targets = settings.target_modules or default_targets
    config = peft.LoraConfig(
        r=settings.r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=targets,
        bias="none",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return cast("PeftModel", peft.get_peft_model(network, config))
        except ValueError as error:
            raise ValueError(f"lora.target_modules {targets!r}: {error}") from error


class WithoutAdapters(nn.Module):
    """The reference of a LoRA run: the policy's network with its adapters switched off.

    The network is kept out of this module's tree, so the reference has no weights and costs no memory.
    """

    def __init__(self, network: PeftModel) -> None:
        super().__init__()
        self._network = (network,)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the network with its adapters switched off."""
        with self._network[0].disable_adapter():
            return self._network[0](*args, **kwargs)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:  # type: ignore[override]
        """Return only the frozen weights, so that a fingerprint does not change with the adapters."""
        state = self._network[0].get_base_model().state_dict()
        return {k.replace(".base_layer.", "."): v for k, v in state.items() if "lora_" not in k}


def is_adapted(network: nn.Module) -> bool:
    """Return whether `add_adapters` has been applied to the network."""
    return hasattr(network, "peft_config")


def trained_state(network: nn.Module) -> dict[str, Tensor]:
    """Return the whole tensors that training changes: the adapters of an adapted network, else everything."""
    state = network.state_dict()
    return gather_state({k: v for k, v in state.items() if "lora_" in k} if is_adapted(network) else state)


def load_trained_state(network: nn.Module, state: dict[str, Tensor]) -> None:
    """Load what `trained_state` returned. Raises RuntimeError for other keys, as torch does."""
    own = network.state_dict()
    state = shard_like(state, own)
    if not is_adapted(network):
        network.load_state_dict(state)
        return
    missing = {key for key in own if "lora_" in key} - set(state)
    unexpected = network.load_state_dict(state, strict=False).unexpected_keys
    if missing or unexpected:
        raise RuntimeError(f"adapters do not fit: missing {sorted(missing)}, unexpected {unexpected}")


def save_adapters(network: nn.Module, folder: Path) -> None:
    """Write adapter_model.safetensors and adapter_config.json in peft's layout."""
    with atomic_folder(folder) as temporary:
        cast("PeftModel", network).save_pretrained(str(temporary), safe_serialization=True)


def merged(network: nn.Module) -> nn.Module:
    """Merge the adapters: return the plain network with weights W + (α/r)·B·A. Changes `network` itself."""
    return cast(Any, network).merge_and_unload()  # type: ignore[no-any-return]


def load_and_merge(network: nn.Module, folder: Path) -> nn.Module:
    """Return the network with a folder of adapters merged in. Raises ValueError if they do not fit."""
    if not (folder / "adapter_config.json").is_file():
        raise ValueError(f"{folder} holds no adapter_config.json; give the folder that peft wrote")
    peft = _peft()
    try:
        return merged(peft.PeftModel.from_pretrained(network, str(folder)))
    except (ValueError, RuntimeError) as error:
        last = str(error).strip().splitlines()[-1].strip()
        raise ValueError(f"the adapters in {folder} do not fit {type(network).__name__}: {last}") from None


def merging(folder: str) -> Callable[[nn.Module], nn.Module] | None:
    """Return a function that merges the adapters of `folder` into a network; None without a folder."""
    return partial(load_and_merge, folder=Path(folder).expanduser()) if folder else None
