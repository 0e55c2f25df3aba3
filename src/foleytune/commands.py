"""What each verb of the command line does with its arguments; `cli.py` picks the verb and words the errors.

A verb takes its positional arguments and its own few options out of `args`, and gives the rest to
`overrides.parse`, which fills the stage's settings. What it runs is imported when it runs.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from foleytune.arguments import asks_help, open_workspace, positional, take, take_flag
from foleytune.overrides import parse


def stage(verb: str, settings_class: str, summary: str, args: list[str]) -> int:
    """`foleytune STAGE WORKSPACE [--config FILE.yaml | --recipe NAME] [flags]`; ingest takes FOLDER too."""
    if verb == "evaluate" and any(arg.partition("=")[0] == "--against" for arg in args):
        return run_benchmark(args)
    where = "WORKSPACE FOLDER" if verb == "ingest" else "WORKSPACE"
    config, recipe = take(args, "--config"), take(args, "--recipe")
    root = "" if asks_help(args) else positional(args, f"{verb} WORKSPACE")
    module = importlib.import_module(f"foleytune.{verb}")
    default = _defaults(verb, getattr(module, settings_class), config, recipe, args)
    note = f"{summary}\n\n--config FILE.yaml or --recipe NAME|FILE: defaults other than those shown here."
    settings: Any = parse(default, args, f"foleytune {verb} {where}", note)
    if verb == "ingest" and not settings.folder.is_dir():  # before a workspace is made for nothing
        raise ValueError(f"{settings.folder}: no such folder; give the folder that holds the videos")
    result = getattr(module, verb)(open_workspace(root, create=verb == "ingest"), settings)
    if isinstance(result, str | Path):
        print(result)
    return 0


def _defaults(verb: str, cls: Any, config: str | None, recipe: str | None, args: list[str]) -> Any:
    """What the flags change: a recipe's or a file's settings, or the class's own defaults."""
    if recipe:
        from foleytune.config import resolve

        return getattr(resolve(recipe), verb)
    if config:
        from foleytune.config import read_yaml

        return read_yaml(config, cls)
    if verb == "ingest":
        return cls(folder="FOLDER" if asks_help(args) else positional(args, "ingest WORKSPACE FOLDER"))
    if verb == "train":  # the one stage that has no default model: it says what is tuned
        model = "world" if asks_help(args) else take(args, "--model")
        if model is None:
            raise ValueError("wants --model NAME (or --recipe, --config): what is to be tuned?")
        return cls(model=model)
    return cls()


def run_benchmark(args: list[str]) -> int:
    """`foleytune evaluate SOUNDS --against VIDEOS [--compare SOUNDS …] [flags]`."""
    from foleytune.benchmark import BenchmarkSettings, benchmark

    folders = [] if asks_help(args) else [positional(args, "evaluate SOUNDS")]
    while args and not args[0].startswith("-"):
        folders.append(args.pop(0))
    flags = [arg for arg in args if arg.partition("=")[0] == "--compare"]
    if flags:
        at = args.index(flags[0])
        folders += [flags[0].partition("=")[2]] if "=" in flags[0] else []
        args.pop(at)
        while at < len(args) and not args[at].startswith("-"):
            folders.append(args.pop(at))
    note = (
        "SOUNDS             a folder of sound files, each named as its video\n"
        "--compare SOUNDS … more such folders: one table, differences to the first"
    )
    default = BenchmarkSettings(against=Path(take(args, "--against") or "VIDEOS"))
    settings = parse(default, args, "foleytune evaluate SOUNDS --against VIDEOS", note)
    benchmark(folders, settings)
    return 0


def run_align(args: list[str]) -> int:
    """`foleytune align RECIPE [--workspace DIR] [--dry-run] [--until STAGE] [flags]`."""
    from foleytune import recipe_commands

    return recipe_commands.run_align(args)


def run_demo(args: list[str]) -> int:
    """`foleytune demo [--size ci|small|full] [--workspace DIR]`."""
    from foleytune import recipe_commands

    return recipe_commands.run_demo(args)


def run_plan(args: list[str]) -> int:
    """`foleytune plan RECIPE [--gpus N] [--nodes N] [--tflops N] [--workspace DIR] [flags]`."""
    from foleytune import recipe_commands

    return recipe_commands.run_plan(args)


def run_generate(args: list[str]) -> int:
    """`foleytune generate [VIDEO] -o OUT.mp4 [flags]`; without VIDEO, `--prompt` alone is sounded."""
    from foleytune.generate import GenerateSettings, generate

    video = None if not args or args[0].startswith("-") else args.pop(0)
    default = "sound.flac"
    if video is not None:
        default = f"{video}.foley" if Path(video).is_dir() else f"{Path(video).stem}.foley.mp4"
    out = take(args, "-o") or take(args, "--out") or default
    note = (
        "VIDEO            a video or a folder of them; left out, --prompt alone is sounded\n"
        "-o, --out FILE   the video with its new sound, or the sound alone for .wav and .flac"
    )
    for path in generate(video, out, parse(GenerateSettings(), args, "foleytune generate [VIDEO]", note)):
        print(path)
    return 0


def run_world(args: list[str]) -> int:
    """`foleytune world make | train | rate WORKSPACE`, each with flags."""
    what = args.pop(0) if args else ""
    if what == "make":
        from foleytune.config import MakeSettings
        from foleytune.world.make import make

        s = parse(MakeSettings(), args, "foleytune world make")
        make(s.split, s.num_clips, s.out, s.seed, s.start, s.num_workers)
    elif what == "train":
        from foleytune.world.training import WorldTrainSettings, train_world

        train_world(parse(WorldTrainSettings(), args, "foleytune world train"))
    elif what == "rate":
        from foleytune.world.raters import RaterSettings, simulate_ratings

        root = "" if asks_help(args) else positional(args, "world rate WORKSPACE")
        settings = parse(RaterSettings(), args, "foleytune world rate WORKSPACE")
        simulate_ratings(open_workspace(root, create=False), settings)
    elif what in ("-h", "--help"):
        print("usage: foleytune world make | train | rate WORKSPACE\n")
        print("make   render clips of the embedded world to --out, with the truth in metadata.jsonl")
        print("train  train the world's own weights again (an hour or more)")
        print("rate   rate a workspace's candidates as the world's simulated raters do")
    else:
        raise ValueError(f"wants make, train or rate, found {what!r}")
    return 0


def run_pairs(args: list[str]) -> int:
    """`foleytune pairs export|import WORKSPACE FOLDER`."""
    what = args.pop(0) if args else ""
    if what in ("-h", "--help") or asks_help(args):
        print("usage: foleytune pairs export|import WORKSPACE FOLDER\n")
        print("export  write the pairs as a Hugging Face datasets folder (data/*.parquet, README.md)")
        print("import  add the pairs of such a folder, or of its metadata.jsonl or .csv, to the workspace's")
        return 0
    if what not in ("export", "import"):
        raise ValueError(f"wants export or import, found {what!r}")
    from foleytune.interchange import export_pairs, import_pairs

    workspace = open_workspace(positional(args, f"pairs {what} WORKSPACE"), create=False)
    folder = positional(args, f"pairs {what} WORKSPACE FOLDER")
    if what == "export":
        print(export_pairs(workspace, folder))
    else:
        import_pairs(workspace, folder)
    return 0


def run_compare(args: list[str]) -> int:
    """`foleytune compare RUN_A RUN_B [--result] [flags]`."""
    from foleytune import compare as verb

    note = (
        "RUN_A, RUN_B   folders of two training runs, WORKSPACE/runs/NAME, or one of them and the word base\n"
        "--result       say what people said so far and stop"
    )
    usage = "compare RUN_A RUN_B"
    if asks_help(args):
        parse(verb.CompareSettings(), ["--help"], f"foleytune {usage}", note)
    root, first, second = verb.workspace_of(positional(args, "compare RUN_A"), positional(args, usage))
    only_result = take_flag(args, "--result")
    settings = parse(verb.CompareSettings(), args, f"foleytune {usage}", note)
    workspace = open_workspace(str(root), create=False)
    if not only_result:
        verb.compare(workspace, first, second, settings)
    verb.show_result(workspace, first, second)
    return 0


def run_annotate(args: list[str]) -> int:
    """`foleytune annotate WORKSPACE [flags]`, `foleytune annotate export|import WORKSPACE FILE`."""
    from foleytune.annotate import command

    return command.run(args, open_workspace)


def run_weights(args: list[str]) -> int:
    """`foleytune weights list | check | fetch | export`, each with flags."""
    from foleytune import weights_commands

    return weights_commands.run_weights(args)


def run_hub(args: list[str]) -> int:
    """`foleytune hub save | push | load`, each with flags."""
    from foleytune.hub import command

    return command.run(args, open_workspace)


def run_list(args: list[str]) -> int:
    """`foleytune list [DRAWER …]`."""
    if asks_help(args):
        print("usage: foleytune list [DRAWER …]\n\nEvery part of every drawer (or of those named) in a line.")
        return 0
    from foleytune.about import list_parts

    print(list_parts(args))
    return 0


def run_show(args: list[str]) -> int:
    """`foleytune show WORKSPACE`."""
    if asks_help(args):
        print("usage: foleytune show WORKSPACE\n\nCounts of every table, failures with reasons, and runs.")
        return 0
    from foleytune.about import show_workspace

    print(show_workspace(open_workspace(positional(args, "show WORKSPACE"), create=False)))
    return 0


def run_env(args: list[str]) -> int:
    """`foleytune env`."""
    if asks_help(args):
        print("usage: foleytune env\n\nVersions and hardware, to paste into a bug report.")
        return 0
    from foleytune.about import environment

    print(environment())
    return 0
