"""Published weights from disk to tensors: found, checked against the registry, converted once, mapped.

`load_published("mmaudio_large_44k_v2.pth")` takes a file of the registry and checks its hash;
`load_published(Path("tuned.safetensors"), role=find("v1-44.pth").role)` somebody's own, told by its keys.
"""

from __future__ import annotations

import os
from pathlib import Path

from torch import Tensor

from foleypref.published.conversion import converted, load_conversion, source_of
from foleypref.published.fetching import fetch
from foleypref.published.hashes import file_hashes, mismatch
from foleypref.published.identify import UNKNOWN, identify, same_role, without_wrapper
from foleypref.published.places import CONVERTED, CONVERTED_EARLIER, is_conversion, locate, weights_folder
from foleypref.published.reading import read_state
from foleypref.published.registry import find
from foleypref.published.sniff import SAFETENSORS, check_format
from foleypref.published.weight_file import WeightFile

__all__ = ["fetch", "identify", "load_published", "locate", "read_state", "weights_folder"]

LEGACY_EXTRAS = ("latent_rot", "clip_rot", "t_embed.freqs")
"""What MMAudio's v1 files hold beside their state dict: tables that are made anew for every length."""

_TOLD_BY_KEYS = ("MMAudio", "BigVGAN", "Synchformer", "CLIP ViT", "ImageBind", "PANNs", "PaSST", "VGGish")
"""Beginnings of roles whose keys are known from a reference: a file of such a role must show them."""


def load_published(
    name: str | Path, folder: Path | str | None = None, *, verify: bool = True, role: str | None = None
) -> dict[str, Tensor]:
    """The tensors of a published file, or of a user's own, on the CPU and mapped from disk; dtypes as stored.

    `name` is a name of the registry, looked up in `folder` and checked by size and hash unless `verify` is
    False; or a path, whose content only has to be what `role` says. ValueError says what is missing, damaged
    or in the wrong place, and what the file is instead.
    """
    own = _as_path(name)
    if own is not None:
        return _checked(own, read_state(own), role, f"{own}")
    entry = find(str(name))
    path = locate(entry.name, folder)
    role = role or entry.role
    if path.name.endswith((CONVERTED, CONVERTED_EARLIER)):
        return _checked(path, _from_conversion(path, entry, verify=verify), role, entry.name)
    if is_conversion(path, entry):  # somebody else's: no hash is known
        return _checked(path, read_state(path), role, entry.name)
    kind = check_format(path)
    if verify and (difference := mismatch(path, entry)):
        raise ValueError(_not_the_published(path, entry, difference))
    if kind == SAFETENSORS:
        return _checked(path, read_state(path), role, entry.name)
    # Checked before it is converted: the wrong file in a slot is not worth gigabytes of safetensors.
    state = converted(path, file_hashes(path), lambda: _checked(path, read_state(path), role, entry.name))
    return _checked(path, state, role, entry.name)


def _as_path(name: str | Path) -> Path | None:
    """A path if that is what was given: a Path, or a string with a folder or of a file that is there."""
    if isinstance(name, Path):
        return name.expanduser()
    try:
        find(name)
    except ValueError:
        if os.sep in name or name.startswith("~") or Path(name).exists():
            return Path(name).expanduser()
    return None


def _from_conversion(path: Path, entry: WeightFile, *, verify: bool) -> dict[str, Tensor]:
    """Our own conversion, found where its original has been deleted."""
    check_format(path)
    source = source_of(path)
    if source is None:
        raise ValueError(
            f"{path} is no conversion that this version made; delete it and get {entry.name} again"
        )
    for kind in ("sha256", "md5"):
        wanted, found = getattr(entry, kind), getattr(source, kind)
        if verify and wanted is not None and wanted != found:
            raise ValueError(
                f"{path} was converted from another file than the published {entry.name}: {kind} {found}, "
                f"the published file has {wanted}; delete it, or give it by its path"
            )
    return load_conversion(path)


def _checked(path: Path, state: dict[str, Tensor], role: str | None, slot: str) -> dict[str, Tensor]:
    """The state without wrappers and legacy extras; ValueError if it is another network than `role`."""
    state = without_wrapper(state)
    if role is not None:
        found = identify(state)
        if _is_another(found, role):
            raise ValueError(
                f"{path} is not what {slot} should be: expected {role}, found {found}; "
                "put the right file there, or give the path of the right one"
            )
    return {key: tensor for key, tensor in state.items() if key not in LEGACY_EXTRAS}


def _is_another(found: str, role: str) -> bool:
    """Whether what was identified cannot be what is wanted; of some networks the keys are not known."""
    return role.startswith(_TOLD_BY_KEYS) if found.startswith(UNKNOWN) else not same_role(found, role)


def _not_the_published(path: Path, entry: WeightFile, difference: str) -> str:
    """What to say of a whole file that is not the registry's, by what it holds."""
    try:
        found = identify(path)
    except ValueError as error:
        return f"{path} is not the published {entry.name}: {difference}; moreover {error}"
    if _is_another(found, entry.role):
        advice = f"it holds {found}, expected {entry.role}: put the right file there"
    else:
        advice = (
            f"its tensors may fit {entry.role}: if you tuned or converted it, give it by its path; if it is "
            f"meant to be the published file, it is damaged: `foleypref weights fetch {entry.name}`"
        )
    return f"{path} is not the published {entry.name}: {difference}; {advice}"
