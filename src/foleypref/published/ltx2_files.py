"""Load LTX-2's parts from a local folder by diffusers and transformers: only safetensors, no downloads."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch

from foleypref.published.hashes import file_hashes
from foleypref.published.ltx2_sizes import read_config
from foleypref.workspace.records import digest

TRANSFORMER = ("diffusers", "LTX2VideoTransformer3DModel")
_LTX2 = "diffusers.pipelines.ltx2"
_CLASSES = {
    "vae": ("diffusers", ("AutoencoderKLLTX2Video",)),
    "audio_vae": ("diffusers", ("AutoencoderKLLTX2Audio",)),
    "vocoder": (_LTX2, ("LTX2Vocoder", "LTX2VocoderWithBWE")),
    "connectors": (_LTX2, ("LTX2TextConnectors",)),
    "text_encoder": (
        "transformers",
        ("Gemma3ForConditionalGeneration", "Gemma4UnifiedForConditionalGeneration"),
    ),
}
"""The module of each part, and the classes that a folder's configuration may name."""


def load_part(folder: Path, name: str, dtype: torch.dtype) -> Any:
    """Load the text encoder, the connectors or a codec, with the class that its configuration names.

    Raises ValueError for an unknown class and for weights that are missing or do not fit.
    """
    module, known = _CLASSES[name]
    config = read_config(folder, name)
    named = [config.get("_class_name"), *(config.get("architectures") or [])]
    class_name = next((candidate for candidate in known if candidate in named), None)
    if class_name is None:
        raise ValueError(f"{folder / name} holds {named}, expected {' or '.join(known)}")
    return _pretrained(folder, name, imported(module, class_name), dtype)


def load_transformer(folder: Path, dtype: torch.dtype) -> Any:
    """Load the folder's flow network. Raises ValueError as `load_part` does."""
    return _pretrained(folder, "transformer", imported(*TRANSFORMER), dtype)


def load_tokenizer(folder: Path) -> Any:
    """Load the folder's tokenizer, which pads on the left."""
    tokenizer = imported("transformers", "AutoTokenizer").from_pretrained(
        folder / "tokenizer", local_files_only=True
    )
    tokenizer.padding_side = "left"  # as for Gemma, whatever the file says
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _pretrained(folder: Path, name: str, cls: Any, dtype: torch.dtype) -> Any:
    place = folder / name
    if not any(place.glob("*.safetensors")):
        raise ValueError(
            f"{place} holds no .safetensors; get the whole folder, with all parts of the pipeline"
        )
    try:
        part, info = cls.from_pretrained(
            place, local_files_only=True, use_safetensors=True, output_loading_info=True, dtype=dtype
        )
    except (OSError, RuntimeError, ValueError) as error:
        last = str(error).strip().splitlines()[-1].strip()
        raise ValueError(f"{place} cannot be loaded: {last}") from error
    if missing := sorted(info["missing_keys"]):
        raise ValueError(f"{place} lacks {len(missing)} weights, first {missing[0]}; get it again")
    return part


def hash_of(folder: Path, *names: str) -> str:
    """Hash the names and contents of these parts' files. Raises ValueError for a part that is missing."""
    files = [path for name in names for path in files_of(folder, name)]
    return digest([(str(path.relative_to(folder)), file_hashes(path).sha256) for path in files])


def files_of(folder: Path, name: str) -> list[Path]:
    """List a part's weights and configuration files. Raises ValueError if there are none."""
    place = folder / name
    kinds = (".safetensors", ".json", ".model")
    paths = sorted(place.iterdir()) if place.is_dir() else []
    files = [
        path for path in paths if path.suffix in kinds and path.name[0] != "."
    ]  # stored hashes are hidden
    if not files:
        raise ValueError(f"{place} is missing; get the whole folder, with all parts of LTX-2's pipeline")
    return files


def imported(module: str, name: str) -> Any:
    """Import a name from an optional library. Raises ValueError, which says which extra to install."""
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"ltx2 needs the package {error.name!r}; install it with `pip install 'foleypref[ltx2]'`"
        ) from None
