"""`foleypref hub save | push | load`: out of a workspace, to the hub, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from foleypref.cli.command import Command, Switch, open_workspace


class Save(Command):
    """Write a finished run or a fitted AudioScore with config.json and a model card."""

    source: Annotated[
        Path,
        Positional,
        arg(metavar="RUN", help="WORKSPACE/runs/NAME, WORKSPACE/audioscore, or a .safetensors file in it"),
    ]
    out: Annotated[Path, arg(aliases=["-o"], metavar="FOLDER", help="where it is written")]
    merged: Annotated[Switch, arg(help="the whole network of a LoRA run, not only its adapters")] = False

    def run(self) -> None:
        from foleypref.hub import audioscores, saving

        source = self.source.expanduser()
        if source.suffix == ".safetensors" or (source / f"{audioscores.DEFAULT}.safetensors").is_file():
            print(audioscores.save_audioscore(source, self.out))
        else:
            print(saving.save_pretrained(source, self.out, merged=self.merged))


class Push(Command):
    """Make the repository and upload what `hub save` wrote and nothing else.

    It logs in with HF_TOKEN or with what `hf auth login` has stored.
    """

    folder: Annotated[Path, Positional, arg(metavar="FOLDER", help="a folder that `hub save` wrote")]
    repository: Annotated[str, Positional, arg(metavar="OWNER/NAME")]
    public: Annotated[Switch, arg(help="everyone may read it; else it is private")] = False

    def run(self) -> None:
        from foleypref.hub import remote

        print(remote.push_to_hub(self.folder, self.repository, private=not self.public))


class Load(Command):
    """Fetch a repository's files, check them, and print the folder, which --model takes.

    An AudioScore can go into a workspace, where `pair` and `train` find it.
    """

    source: Annotated[str, Positional, arg(metavar="FOLDER|OWNER/NAME")]
    revision: Annotated[str | None, arg(metavar="R", help="branch, tag or commit of the repository")] = None
    workspace: Annotated[Path | None, arg(metavar="WORKSPACE", help="for an AudioScore")] = None
    name: Annotated[str | None, arg(metavar="NAME", help="of the AudioScore there; None: audioscore")] = None

    def run(self) -> None:
        from foleypref.hub import audioscores, remote
        from foleypref.models.saved_part import check_folder
        from foleypref.workspace.walk import say

        workspace = None if self.workspace is None else open_workspace(self.workspace)
        folder = remote.folder_of(self.source, self.revision)
        config = check_folder(folder)
        limits = ", not for commercial use" if config.non_commercial else ""
        say(f"hub: {config.kind} of foleypref {config.foleypref_version}, license {config.license}{limits}")
        if workspace is None:
            print(folder.absolute())  # with a slash in it, as --model wants
        else:
            print(audioscores.add_to_workspace(folder, workspace, self.name or audioscores.DEFAULT))
