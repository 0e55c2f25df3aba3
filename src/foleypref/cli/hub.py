"""`foleypref hub save | push | load`: out of a workspace, to the hub, and back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from foleypref.cli.arguments import asks_help, positional, take, take_flag

if TYPE_CHECKING:
    from foleypref.workspace.store import Workspace

USAGE = """usage: foleypref hub save RUN --out FOLDER [--merged]
       foleypref hub push FOLDER OWNER/NAME [--public]
       foleypref hub load FOLDER|OWNER/NAME [--revision R] [--workspace WORKSPACE [--name NAME]]

save  write a finished run (WORKSPACE/runs/NAME) or a fitted AudioScore (WORKSPACE/audioscore, or one of its
      .safetensors files) with config.json and a model card; --merged: of a LoRA run the whole network
push  make the repository, private unless --public, and upload what save wrote and nothing else; it logs in
      with HF_TOKEN or what `hf auth login` has stored
load  fetch a repository's files, check them, and print the folder, which --model takes; an AudioScore goes
      into --workspace as --name (audioscore), where pair and train find it"""


def run(args: list[str], open_workspace: Callable[..., Workspace]) -> int:
    """The verb with its arguments; `open_workspace` opens the folder that they name."""
    if asks_help(args) or not args:
        print(USAGE)
        return 0 if args else 2
    what = args.pop(0)
    if what not in ("save", "push", "load"):
        raise ValueError(f"wants save, push or load, found {what!r}")
    return {"save": _save, "push": _push, "load": _load}[what](args, open_workspace)


def _save(args: list[str], _: Callable[..., Workspace]) -> int:
    from foleypref.hub import audioscores, saving

    out, merged = take(args, "--out") or take(args, "-o"), take_flag(args, "--merged")
    run_folder = Path(positional(args, "hub save RUN")).expanduser()
    _nothing_left(args, "save")
    if out is None:
        raise ValueError("wants --out FOLDER: where is it to be written?")
    if run_folder.suffix == ".safetensors" or (run_folder / f"{audioscores.DEFAULT}.safetensors").is_file():
        print(audioscores.save_audioscore(run_folder, out))
    else:
        print(saving.save_pretrained(run_folder, out, merged=merged))
    return 0


def _push(args: list[str], _: Callable[..., Workspace]) -> int:
    from foleypref.hub import remote

    public = take_flag(args, "--public")
    folder, repo_id = positional(args, "hub push FOLDER"), positional(args, "hub push FOLDER OWNER/NAME")
    _nothing_left(args, "push")
    print(remote.push_to_hub(folder, repo_id, private=not public))
    return 0


def _load(args: list[str], open_workspace: Callable[..., Workspace]) -> int:
    revision, root, name = take(args, "--revision"), take(args, "--workspace"), take(args, "--name")
    what = positional(args, "hub load FOLDER|OWNER/NAME")
    _nothing_left(args, "load")
    workspace = None if root is None else open_workspace(root, create=False)
    print(load(what, revision, workspace, name))
    return 0


def load(what: str, revision: str | None, workspace: Workspace | None, name: str | None) -> Path:
    """Fetch if need be and check; returns the folder, or where a workspace now has the AudioScore."""
    from foleypref.hub import audioscores, remote
    from foleypref.models.saved_part import check_folder
    from foleypref.workspace.walk import say

    folder = remote.folder_of(what, revision)
    config = check_folder(folder)
    limits = ", not for commercial use" if config.non_commercial else ""
    say(f"hub: {config.kind} of foleypref {config.foleypref_version}, license {config.license}{limits}")
    if workspace is None:
        return folder.absolute()  # with a slash in it, as --model wants
    return audioscores.add_to_workspace(folder, workspace, name or audioscores.DEFAULT)


def _nothing_left(args: list[str], what: str) -> None:
    if args:
        raise ValueError(f"`hub {what}` does not take {args[0]!r}; `foleypref hub --help` shows all")
