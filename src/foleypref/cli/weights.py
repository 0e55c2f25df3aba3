"""`foleypref weights list | check | fetch | export`: what is published, what lies here, getting the rest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from foleypref.cli.arguments import asks_help, take
from foleypref.published import registry
from foleypref.published.weight_file import WeightFile

USAGE = """usage: foleypref weights list [MODEL]
       foleypref weights check [NAME …] [--folder DIR]
       foleypref weights fetch NAME … [--folder DIR] [--quiet]
       foleypref weights export MODEL WEIGHTS -o OUT

list    the published files, or those that MODEL runs on: role, size, licence, place
check   which of them lie on this disk, and whether size and hash are right; exit code 1 if a file that was
        asked for is missing, or one that is there is wrong
fetch   download files; what an interruption left is not downloaded again
export  write tuned WEIGHTS (a run's model.safetensors, or its folder of adapters) in the official layout:
        OUT.pth is what the model's own code loads, OUT.safetensors the same without pickle

NAME is a file (v1-44.pth) or a model (mmaudio-large-44k-v2), which stands for its files.
The folder is --folder, else FOLEYPREF_WEIGHTS, else ~/.cache/foleypref/weights; the files may lie in folders
below it, and the Hugging Face cache is looked into too."""


def run_weights(args: list[str]) -> int:
    """`foleypref weights list [MODEL] | check [NAME …] | fetch NAME … | export MODEL WEIGHTS -o OUT`."""
    if asks_help(args):
        print(USAGE)
        return 0
    what = args.pop(0) if args else ""
    if what not in ("list", "check", "fetch", "export"):
        raise ValueError(f"wants list, check, fetch or export, found {what!r}")
    out = take(args, "-o") if what == "export" else None
    folder = take(args, "--folder") if what != "list" else None
    quiet = what == "fetch" and "--quiet" in args
    names = [arg for arg in args if not (quiet and arg == "--quiet")]
    if unknown := [name for name in names if name.startswith("-")]:
        raise ValueError(f"`weights {what}` has no option {unknown[0]}; `foleypref weights --help` shows all")
    if what == "list":
        return _list(names)
    if what == "export":
        return _export(names, out, folder)
    return _check(names, folder) if what == "check" else _fetch(names, folder, quiet=quiet)


def _list(names: list[str]) -> int:
    entries = registry.select(names) if names else registry.FILES
    rows = [(e.name, e.role, _size(e.bytes), e.licence or "not stated", e.source or "") for e in entries]
    print(_table(("file", "role", "bytes", "licence", "from"), rows))
    if not names:
        print(f"\nmodels and scorers: {', '.join(registry.MODELS)}")
    if any(entry.non_commercial for entry in entries):
        print("\nCC-BY-NC, CC-BY-NC-SA and apple-amlr allow no commercial use.")
    return 0


def _check(names: list[str], folder: str | None) -> int:
    from foleypref.published.places import weights_folder

    entries = registry.select(names) if names else registry.FILES
    print(f"{weights_folder(folder)}\n")
    states = [_state(entry, folder) for entry in entries]
    rows = [(e.name, e.role, found, size, state) for e, (found, size, state, _) in zip(entries, states)]
    print(_table(("file", "role", "found", "bytes", "state"), rows))
    problems = [(problem, found) for found, _, _, problem in states if problem is not None]
    told = [problem for problem, found in problems if names or found]  # of all files, most are not wanted
    if told:
        print("\n" + "\n".join(f"- {problem}" for problem in told))
    return 1 if told else 0


def _state(entry: WeightFile, folder: str | None) -> tuple[str, str, str, str | None]:
    """Where a file lies, its size, its state in a word, and what is wrong in a sentence."""
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
    difference = mismatch(path, entry)
    if difference is not None:
        return str(path), size, "MISMATCH", f"{path} is not the published {entry.name}: {difference}"
    if entry.sha256 or entry.md5:
        return str(path), size, "ok", None
    return str(path), size, "size ok, no hash known" if entry.bytes else "no hash known", None


def _fetch(names: list[str], folder: str | None, *, quiet: bool) -> int:
    if not names:
        raise ValueError("wants the NAME of a file or model: `foleypref weights fetch mmaudio-large-44k-v2`")
    from foleypref.published.fetching import fetch

    for entry in registry.select(names):  # all names are looked up before the first gigabyte
        print(fetch(entry.name, folder, quiet=quiet))
    return 0


def _export(names: list[str], out: str | None, folder: str | None) -> int:
    if len(names) != 2 or out is None:
        raise ValueError(f"wants MODEL WEIGHTS -o OUT, found {' '.join(names) or 'nothing'}")
    if not out.endswith((".pth", ".ckpt", ".safetensors")):
        raise ValueError(f"-o is a .pth (Frieren: .ckpt) or a .safetensors file, found {out}")
    from foleypref.models.backbones import build_model

    name, weights = names
    settings = {"adapter" if Path(weights).is_dir() else "weights": weights}
    if folder:
        settings["weights_folder"] = folder
    build_model(name, **settings).load().export(out)
    print(out)
    return 0


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest entry; numbers to the right, the last column free."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = []
    for row in [head, *rows]:
        cells = [
            text.rjust(width) if title == "bytes" else text.ljust(width)
            for title, text, width in zip(head, row, widths)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _size(size: int | None) -> str:
    return f"{size:,}" if size is not None else "?"
