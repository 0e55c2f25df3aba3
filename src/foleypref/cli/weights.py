"""`foleypref weights list | check | fetch | export`: what is published, what lies here, getting the rest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from foleypref.cli.command import Command, Switch
from foleypref.published import registry
from foleypref.published.registry import WeightFile

_NAMES = "files (v1-44.pth) or models (mmaudio-large-44k-v2), which stand for their files"
Names = Annotated[tuple[str, ...], Positional, arg(metavar="NAME …", help=_NAMES)]
_FOLDER = (
    "where weights lie, also in folders below; None: FOLEYPREF_WEIGHTS, else ~/.cache/foleypref/weights. "
    "The Hugging Face cache is searched too"
)
Folder = Annotated[str | None, arg(metavar="DIR", help=_FOLDER)]


class List(Command):
    """Role, size, licence and place of the published files."""

    names: Names = ()

    def run(self) -> None:
        entries = registry.select([*self.names]) if self.names else registry.FILES
        rows = [(e.name, e.role, _size(e.bytes), e.licence or "not stated", e.source or "") for e in entries]
        print(_table(("file", "role", "bytes", "licence", "from"), rows))
        if not self.names:
            print(f"\nmodels and scorers: {', '.join(registry.MODELS)}")
        if any(entry.non_commercial for entry in entries):
            print("\nCC-BY-NC, CC-BY-NC-SA and apple-amlr allow no commercial use.")


class Check(Command):
    """Which published files lie on this disk, and whether their size and hash are right.

    The exit code is 1 if a file that was asked for is missing, or if one that is there is wrong.
    """

    names: Names = ()
    folder: Folder = None

    def run(self) -> int:
        from foleypref.published.places import weights_folder

        entries = registry.select([*self.names]) if self.names else registry.FILES
        print(f"{weights_folder(self.folder)}\n")
        states = [_state(entry, self.folder) for entry in entries]
        rows = [(e.name, e.role, path, size, state) for e, (path, size, state, _) in zip(entries, states)]
        print(_table(("file", "role", "found", "bytes", "state"), rows))
        # a file that is missing is a problem only if it was asked for: most are not wanted
        problems = [problem for path, _, _, problem in states if problem and (self.names or path)]
        if problems:
            print("\n" + "\n".join(f"- {problem}" for problem in problems))
        return 1 if problems else 0


class Fetch(Command):
    """Download published files; what an interruption left is not downloaded again."""

    names: Names
    folder: Folder = None
    quiet: Annotated[Switch, arg(help="show no progress")] = False

    def run(self) -> None:
        from foleypref.published.fetching import fetch

        if not self.names:
            raise ValueError("wants the NAME of a file or model, as in `weights fetch mmaudio-large-44k-v2`")
        for entry in registry.select([*self.names]):  # all names are looked up before the first gigabyte
            print(fetch(entry.name, self.folder, quiet=self.quiet))


class Export(Command):
    """Write tuned weights in the official layout.

    OUT.pth is what the model's own code loads, OUT.safetensors the same without pickle.
    """

    model: Annotated[str, Positional, arg(metavar="MODEL", help="as in --model")]
    weights: Annotated[
        Path, Positional, arg(metavar="WEIGHTS", help="a run's model.safetensors, or its folder of adapters")
    ]
    out: Annotated[str, arg(aliases=["-o"], metavar="OUT", help="a .pth (Frieren: .ckpt) or a .safetensors")]
    folder: Folder = None

    def run(self) -> None:
        from foleypref.models.backbones import build_model

        if not self.out.endswith((".pth", ".ckpt", ".safetensors")):
            raise ValueError(f"-o is a .pth (Frieren: .ckpt) or a .safetensors file, found {self.out}")
        settings = {"adapter" if self.weights.is_dir() else "weights": str(self.weights)}
        if self.folder:
            settings["weights_folder"] = self.folder
        build_model(self.model, **settings).load().export(self.out)
        print(self.out)


def _state(entry: WeightFile, folder: str | None) -> tuple[str, str, str, str | None]:
    """Return where a file lies, its size, its state in a word, and what is wrong in a sentence."""
    from foleypref.published.hashes import mismatch
    from foleypref.published.places import is_conversion, locate
    from foleypref.published.sniff import check_format

    try:
        path = locate(entry.name, folder)
    except ValueError as error:
        return "", "", "missing", str(error)
    size = _size(path.stat().st_size)
    try:
        if path.suffix not in (".json", ".txt"):  # a vocabulary holds no tensors
            check_format(path)
    except ValueError as error:
        return str(path), size, "damaged", str(error)
    if is_conversion(path, entry):
        return str(path), size, "converted, no hash known", None
    if (difference := mismatch(path, entry)) is not None:
        return str(path), size, "MISMATCH", f"{path} is not the published {entry.name}: {difference}"
    if entry.sha256 or entry.md5:
        return str(path), size, "ok", None
    return str(path), size, "size ok, no hash known" if entry.bytes else "no hash known", None


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows in columns as wide as their widest entry, sizes in bytes to the right."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    aligned = [str.rjust if title == "bytes" else str.ljust for title in head]
    lines = ([pad(cell, width) for pad, cell, width in zip(aligned, row, widths)] for row in [head, *rows])
    return "\n".join("  ".join(line).rstrip() for line in lines)


def _size(size: int | None) -> str:
    return f"{size:,}" if size is not None else "?"
