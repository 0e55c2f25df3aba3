"""What each verb of the command line does with its arguments; `cli/main.py` picks the verb.

A verb takes its positional arguments and its own few options out of `args`, and gives the rest to
`overrides.parse`, which fills the stage's settings. What it runs is imported when it runs.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from foleypref.cli.arguments import asks_help, open_workspace, positional, take, take_flag
from foleypref.settings.flags import parse

if TYPE_CHECKING:
    from foleypref.workspace.store import Workspace


def stage(verb: str, settings_class: str, summary: str, args: list[str]) -> int:
    """`foleypref STAGE WORKSPACE [--config FILE.yaml | --recipe NAME] [flags]`; ingest takes FOLDER too."""
    if verb == "evaluate" and any(arg.partition("=")[0] == "--against" for arg in args):
        return run_benchmark(args)
    where = "WORKSPACE FOLDER" if verb == "ingest" else "WORKSPACE"
    config, recipe = take(args, "--config"), take(args, "--recipe")
    root = "" if asks_help(args) else positional(args, f"{verb} WORKSPACE")
    module = importlib.import_module(f"foleypref.{verb}")
    default = _defaults(verb, getattr(module, settings_class), config, recipe, args)
    note = f"{summary}\n\n--config FILE.yaml or --recipe NAME|FILE: defaults other than those shown here."
    settings: Any = parse(default, args, f"foleypref {verb} {where}", note)
    if verb == "ingest" and not settings.folder.is_dir():  # before a workspace is made for nothing
        raise ValueError(f"{settings.folder}: no such folder; give the folder that holds the videos")
    result = getattr(module, verb)(open_workspace(root, create=verb == "ingest"), settings)
    if isinstance(result, str | Path):
        print(result)
    return 0


def _defaults(verb: str, cls: Any, config: str | None, recipe: str | None, args: list[str]) -> Any:
    """What the flags change: a recipe's or a file's settings, or the class's own defaults."""
    if recipe:
        from foleypref.recipes.recipe import resolve

        return getattr(resolve(recipe), verb)
    if config:
        from foleypref.settings.yaml import read_yaml

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
    """`foleypref evaluate SOUNDS --against VIDEOS [--compare SOUNDS …] [flags]`."""
    from foleypref.benchmark import BenchmarkSettings, benchmark

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
    settings = parse(default, args, "foleypref evaluate SOUNDS --against VIDEOS", note)
    benchmark(folders, settings)
    return 0


def run_generate(args: list[str]) -> int:
    """`foleypref generate [VIDEO] -o OUT.mp4 [flags]`; without VIDEO, `--prompt` alone is sounded."""
    from foleypref.generate import GenerateSettings, generate

    video = None if not args or args[0].startswith("-") else args.pop(0)
    default = "sound.flac"
    if video is not None:
        default = f"{video}.foley" if Path(video).is_dir() else f"{Path(video).stem}.foley.mp4"
    out = take(args, "-o") or take(args, "--out") or default
    note = (
        "VIDEO            a video or a folder of them; left out, --prompt alone is sounded\n"
        "-o, --out FILE   the video with its new sound, or the sound alone for .wav and .flac"
    )
    for path in generate(video, out, parse(GenerateSettings(), args, "foleypref generate [VIDEO]", note)):
        print(path)
    return 0


def run_world(args: list[str]) -> int:
    """`foleypref world make | rate WORKSPACE`, each with flags."""
    what = args.pop(0) if args else ""
    if what == "make":
        from foleypref.world.make import make
        from foleypref.world.settings import MakeSettings

        s = parse(MakeSettings(), args, "foleypref world make")
        make(s.split, s.num_clips, s.out, s.seed, s.start, s.num_workers)
    elif what == "rate":
        from foleypref.scoring.simulated_raters import RaterSettings, simulate_ratings

        root = "" if asks_help(args) else positional(args, "world rate WORKSPACE")
        settings = parse(RaterSettings(), args, "foleypref world rate WORKSPACE")
        simulate_ratings(open_workspace(root, create=False), settings)
    elif what in ("-h", "--help"):
        print("usage: foleypref world make | rate WORKSPACE\n")
        print("make   render clips of the embedded world to --out, with the truth in metadata.jsonl")
        print("rate   rate a workspace's candidates as the world's simulated raters do")
    else:
        raise ValueError(f"wants make or rate, found {what!r}")
    return 0


def run_pairs(args: list[str]) -> int:
    """`foleypref pairs export|import WORKSPACE FOLDER`."""
    what = args.pop(0) if args else ""
    if what in ("-h", "--help") or asks_help(args):
        print("usage: foleypref pairs export|import WORKSPACE FOLDER\n")
        print("export  write the pairs as a Hugging Face datasets folder (data/*.parquet, README.md)")
        print("import  add the pairs of such a folder, or of its metadata.jsonl or .csv, to the workspace's")
        return 0
    if what not in ("export", "import"):
        raise ValueError(f"wants export or import, found {what!r}")
    from foleypref.scoring.pairs_folder import export_pairs, import_pairs

    workspace = open_workspace(positional(args, f"pairs {what} WORKSPACE"), create=False)
    folder = positional(args, f"pairs {what} WORKSPACE FOLDER")
    if what == "export":
        print(export_pairs(workspace, folder))
    else:
        import_pairs(workspace, folder)
    return 0


def run_compare(args: list[str]) -> int:
    """`foleypref compare RUN_A RUN_B [--result] [flags]`."""
    from foleypref import compare as verb

    note = (
        "RUN_A, RUN_B   folders of two training runs, WORKSPACE/runs/NAME, or one of them and the word base\n"
        "--result       say what people said so far and stop"
    )
    usage = "compare RUN_A RUN_B"
    if asks_help(args):
        parse(verb.CompareSettings(), ["--help"], f"foleypref {usage}", note)
    root, first, second = verb.workspace_of(positional(args, "compare RUN_A"), positional(args, usage))
    only_result = take_flag(args, "--result")
    settings = parse(verb.CompareSettings(), args, f"foleypref {usage}", note)
    workspace = open_workspace(str(root), create=False)
    if not only_result:
        verb.compare(workspace, first, second, settings)
    verb.show_result(workspace, first, second)
    return 0


def run_annotate(args: list[str]) -> int:
    """`foleypref annotate WORKSPACE [flags]`, `foleypref annotate export|import WORKSPACE FILE`."""
    from foleypref.cli import annotate

    return annotate.run(args, open_workspace)


def run_weights(args: list[str]) -> int:
    """`foleypref weights list | check | fetch | export`, each with flags."""
    from foleypref.cli import weights as weights_commands

    return weights_commands.run_weights(args)


def run_hub(args: list[str]) -> int:
    """`foleypref hub save | push | load`, each with flags."""
    from foleypref.cli import hub

    return hub.run(args, open_workspace)


def run_list(args: list[str]) -> int:
    """`foleypref list [DRAWER …]`."""
    if asks_help(args):
        print("usage: foleypref list [DRAWER …]\n\nEvery part of every drawer (or of those named) in a line.")
        return 0
    from foleypref.cli.about import list_parts

    print(list_parts(args))
    return 0


def run_show(args: list[str]) -> int:
    """`foleypref show WORKSPACE`."""
    if asks_help(args):
        print("usage: foleypref show WORKSPACE\n\nCounts of every table, failures with reasons, and runs.")
        return 0
    from foleypref.cli.about import show_workspace

    print(show_workspace(open_workspace(positional(args, "show WORKSPACE"), create=False)))
    return 0


def run_env(args: list[str]) -> int:
    """`foleypref env`."""
    if asks_help(args):
        print("usage: foleypref env\n\nVersions and hardware, to paste into a bug report.")
        return 0
    from foleypref.workspace.environment import environment

    print(environment())
    return 0


DEMO_RECIPES = {"ci": "world_demo-ci", "small": "world_demo", "full": "world_full"}


def run_align(args: list[str]) -> int:
    """`foleypref align RECIPE [--workspace DIR] [--dry-run] [--until STAGE] [flags]`."""
    name = _recipe_name(args, "align RECIPE", "world_demo")
    return _align_recipe(name, args, "align RECIPE", f"runs/{Path(name).stem}")


def run_demo(args: list[str]) -> int:
    """`foleypref demo [--size ci|small|full] [--workspace DIR]`: align on the embedded world."""
    size = take(args, "--size") or "small"
    if size not in DEMO_RECIPES:
        raise ValueError(f"--size is one of {', '.join(DEMO_RECIPES)}, found {size!r}")
    return _align_recipe(DEMO_RECIPES[size], args, "demo [--size ci|small|full]", "runs/demo")


def run_plan(args: list[str]) -> int:
    """`foleypref plan RECIPE [--gpus N] [--nodes N] [--tflops N] [--workspace DIR] [flags]`."""
    from foleypref.recipes.launch import Cluster, commands, launch_text, launches
    from foleypref.recipes.plan import TFLOPS
    from foleypref.recipes.recipe import resolve

    name = _recipe_name(args, "plan RECIPE", "v2a_dpo_mmaudio")
    default = f"runs/{Path(name).stem}"
    root, rate = take(args, "--workspace") or default, take(args, "--tflops")
    gpus, nodes = (_count(flag, take(args, flag)) for flag in ("--gpus", "--nodes"))
    note = (
        "--gpus N          GPUs in a machine (default: 1)\n"
        "--nodes N         machines that see one file system (default: 1)\n"
        f"--tflops N        sustained 1e12 operations a second of a GPU (default: {TFLOPS:g}, a guess)\n"
        f"--workspace DIR   where everything would go (default: {default})"
    )
    recipe = parse(resolve(name), args, "foleypref plan RECIPE", note)
    cluster = Cluster(gpus, nodes, TFLOPS if rate is None else _rate(rate))
    with _workspace_to_look_at(root) as workspace:
        found = launches(workspace, recipe, cluster)
        lines = commands(root, recipe, name, cluster)
    print(launch_text(found, lines, recipe, cluster, assumed=rate is None))
    return 0


def _recipe_name(args: list[str], usage: str, example: str) -> str:
    """The first argument; where help is asked for without one, the recipe that the help is shown with."""
    unnamed = asks_help(args) and (not args or args[0].startswith("-"))
    return example if unnamed else positional(args, usage)


@contextmanager
def _workspace_to_look_at(root: str) -> Iterator[Workspace]:
    """The workspace where there is one; else an empty one for a moment: a plan makes nothing."""
    if (Path(root).expanduser() / "workspace.json").exists():
        yield open_workspace(root, create=False)
        return
    with TemporaryDirectory(prefix="foleypref-plan-") as folder:
        yield open_workspace(folder, create=True)


def _count(flag: str, text: str | None) -> int:
    if text is not None and not (text.isdigit() and int(text) > 0):
        raise ValueError(f"{flag} is a whole number above 0, found {text!r}")
    return 1 if text is None else int(text)


def _align_recipe(name: str, args: list[str], shown: str, default_workspace: str) -> int:
    root = take(args, "--workspace") or default_workspace
    until, rate = take(args, "--until"), take(args, "--tflops")
    tflops = None if rate is None else _rate(rate)
    dry_run = take_flag(args, "--dry-run")
    note = (
        f"--workspace DIR   where everything goes (default: {default_workspace})\n"
        "--dry-run         print the plan and stop\n"
        "--until STAGE     stop after this stage\n"
        "--tflops N        sustained 1e12 operations a second of the device, for the plan's hours"
    )
    from foleypref.align import align, steps_until
    from foleypref.recipes.plan import plan_text
    from foleypref.recipes.recipe import resolve
    from foleypref.workspace.walk import say

    recipe = parse(resolve(name), args, f"foleypref {shown}", note)

    if dry_run:
        with _workspace_to_look_at(root) as workspace:
            say(plan_text(root, recipe, steps_until(workspace, recipe, until), tflops))
        return 0
    path = align(open_workspace(root, create=True), recipe, until=until, tflops=tflops)
    if path is not None:
        print(path)
    return 0


def _rate(text: str) -> float:
    """A finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ValueError(f"--tflops is a number of 1e12 operations a second, as in 400, found {text!r}")
    return value
