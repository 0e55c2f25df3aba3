"""Load published weights from disk: locate them, check them against the registry, convert once, map.

`load_published("mmaudio_large_44k_v2.pth")` loads a file of the registry and checks its hash;
`load_published(Path("tuned.safetensors"), role=find("v1-44.pth").role)` loads a user's own file and checks
by its tensors' names that it has that role.
"""

from __future__ import annotations

import os
from pathlib import Path

from torch import Tensor

from foleypref.published.conversion import converted, load_conversion, source_of
from foleypref.published.hashes import file_hashes, mismatch
from foleypref.published.identify import could_be, identify, without_wrapper
from foleypref.published.places import CONVERTED, CONVERTED_EARLIER, is_conversion, locate
from foleypref.published.reading import read_state
from foleypref.published.registry import WeightFile, find
from foleypref.published.sniff import SAFETENSORS, check_format

LEGACY_EXTRAS = ("latent_rot", "clip_rot", "t_embed.freqs")
"""Tables in MMAudio's v1 files beside the state dict; they are computed anew for every length."""


def load_published(
    name: str | Path, folder: Path | str | None = None, *, verify: bool = True, role: str | None = None
) -> dict[str, Tensor]:
    """Load the tensors of a published file, or of a user's own, mapped on the CPU in their stored dtypes.

    `name` is a name in the registry, looked up in `folder` and checked by size and hash unless `verify` is
    False; or a path, whose content only has to have the role `role`. Raises ValueError, which says what is
    missing, damaged or in the wrong place, and what the file is instead.
    """
    own = _as_path(name)
    if own is not None:
        return _checked(own, read_state(own), role, f"{own}")
    entry = find(str(name))
    path = locate(entry.name, folder)
    role = role or entry.role
    if path.name.endswith((CONVERTED, CONVERTED_EARLIER)):
        return _checked(path, _from_conversion(path, entry, verify=verify), role, entry.name)
    if is_conversion(path, entry):  # made by others: its hash is not known
        return _checked(path, read_state(path), role, entry.name)
    kind = check_format(path)
    if verify and (difference := mismatch(path, entry)):
        raise ValueError(_not_the_published(path, entry, difference))
    if kind == SAFETENSORS:
        return _checked(path, read_state(path), role, entry.name)
    # Checked before it is converted: a wrong file is not worth gigabytes of safetensors.
    state = converted(path, file_hashes(path), lambda: _checked(path, read_state(path), role, entry.name))
    return _checked(path, state, role, entry.name)


def _as_path(name: str | Path) -> Path | None:
    """Return `name` as a path if it is a Path, has a folder in it, or names an existing file; else None."""
    if isinstance(name, Path):
        return name.expanduser()
    try:
        find(name)
    except ValueError:
        if os.sep in name or name.startswith("~") or Path(name).exists():
            return Path(name).expanduser()
    return None


def _from_conversion(path: Path, entry: WeightFile, *, verify: bool) -> dict[str, Tensor]:
    """Load our own conversion of an original that has been deleted."""
    check_format(path)
    source = source_of(path)
    if source is None:
        raise ValueError(f"{path} is not a conversion by this version; delete it and get {entry.name} again")
    for kind in ("sha256", "md5"):
        published, converted_from = getattr(entry, kind), getattr(source, kind)
        if verify and published is not None and published != converted_from:
            raise ValueError(
                f"{path} was converted from another file than the published {entry.name}: {kind} "
                f"{converted_from}, the published file has {published}; delete it, or give it by its path"
            )
    return load_conversion(path)


def _checked(path: Path, state: dict[str, Tensor], role: str | None, slot: str) -> dict[str, Tensor]:
    """Return the state without wrappers and legacy extras. Raises ValueError if it cannot have `role`."""
    state = without_wrapper(state)
    if role is not None:
        identified = identify(state)
        if not could_be(identified, role):
            raise ValueError(
                f"{path} is not what {slot} should be: expected {role}, found {identified}; "
                "put the right file there, or give the path of the right one"
            )
    return {key: tensor for key, tensor in state.items() if key not in LEGACY_EXTRAS}


def _not_the_published(path: Path, entry: WeightFile, difference: str) -> str:
    """Say what to do about a whole checkpoint that is not the registry's, depending on what it holds."""
    try:
        identified = identify(path)
    except ValueError as error:
        return f"{path} is not the published {entry.name}: {difference}; moreover {error}"
    if could_be(identified, entry.role):
        advice = (
            f"its tensors may fit {entry.role}: if you tuned or converted it, give it by its path; if it is "
            f"meant to be the published file, it is damaged: `foleypref weights fetch {entry.name}`"
        )
    else:
        advice = f"it holds {identified}, expected {entry.role}: put the right file there"
    return f"{path} is not the published {entry.name}: {difference}; {advice}"
