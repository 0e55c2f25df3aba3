"""The command line: `foleypref VERB …`, one verb per stage, and a few that look around.

Nothing heavy is imported before the verb is known, so `foleypref --help` answers at once. A user's mistake
is one line on stderr and exit code 2; FOLEYPREF_DEBUG=1 shows the traceback behind it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

from foleypref.settings.nearest import nearest


class Verb(NamedTuple):
    """A verb's class as module:Class in this folder ("" if it only has verbs below it), and a summary."""

    command: str
    summary: str


STAGES = {
    "ingest": Verb("stages:Ingest", "folder of videos (and metadata) -> clips"),
    "sample": Verb("stages:Sample", "a model, clips and seeds -> candidate soundtracks"),
    "score": Verb("stages:Score", "scorers and candidates -> raw scores"),
    "fit": Verb("stages:Fit", "ratings and scores -> AudioScore, the reward"),
    "pair": Verb("stages:Pair", "judged candidates -> preference pairs"),
    "train": Verb("stages:Train", "pairs -> a tuned model"),
    "evaluate": Verb("stages:Evaluate", "held-out candidates and scores -> metrics with intervals"),
    "report": Verb("stages:Report", "everything -> one HTML page"),
}

OTHERS = {
    "align": Verb("recipes:Align", "all stages of a recipe in order, each resumed where it was"),
    "plan": Verb("recipes:Plan", "hours, memory, disk and commands of a recipe on GPUs and machines"),
    "generate": Verb("verbs:Generate", "one video in, one video with sound out"),
    "demo": Verb("recipes:Demo", "the whole loop on the embedded world, on a CPU, ending in a report"),
    "world": Verb("", "make clips of the embedded world, or rate as its raters do"),
    "weights": Verb("", "published weight files: list them, check those on disk, fetch, export a tuned one"),
    "hub": Verb("", "a tuned model or AudioScore as a Hugging Face folder: save it, push it, load it again"),
    "annotate": Verb("verbs:Annotate", "users rate soundtracks in a browser, blind; export, import ratings"),
    "compare": Verb("verbs:Compare", "a blind listening test between two tuned models: win rate, interval"),
    "pairs": Verb("", "export the pairs as a Hugging Face datasets folder, or import such a folder"),
    "list": Verb(
        "about:List", "all models, scorers, negatives, pairings, curricula, objectives, metrics, recipes"
    ),
    "show": Verb("about:Show", "what a workspace holds: counts, failures with reasons, runs"),
    "env": Verb("about:Env", "versions and hardware, for a bug report"),
}

BELOW = {
    "world make": Verb("verbs:WorldMake", "render clips of the embedded world, with their truth as metadata"),
    "world rate": Verb("verbs:WorldRate", "rate a workspace's candidates as the world's simulated raters do"),
    "weights list": Verb("weights:List", "the published files, or those that a model runs on"),
    "weights check": Verb("weights:Check", "which of them lie on this disk, and whether they are right"),
    "weights fetch": Verb("weights:Fetch", "download files"),
    "weights export": Verb("weights:Export", "write tuned weights in the official layout"),
    "hub save": Verb("hub:Save", "a finished run or a fitted AudioScore -> a folder with a model card"),
    "hub push": Verb("hub:Push", "such a folder -> a repository of the hub"),
    "hub load": Verb(
        "hub:Load", "a repository or folder -> a model for --model, or a workspace's AudioScore"
    ),
    "annotate export": Verb("verbs:AnnotateExport", "write ratings and votes as .parquet, .csv or .json"),
    "annotate import": Verb("verbs:AnnotateImport", "add such a file's ratings and votes to the workspace"),
    "pairs export": Verb("verbs:PairsExport", "write the pairs as a Hugging Face datasets folder"),
    "pairs import": Verb("verbs:PairsImport", "add the pairs of such a folder to the workspace's"),
}
"""Verbs of two words."""

AGAINST = Verb("stages:Benchmark", "folders of sounds and their videos -> one table of metrics")
"""`evaluate` with `--against`."""

DEBUG = "FOLEYPREF_DEBUG"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 2 a user's mistake, 130 stopped by Ctrl-C."""
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        if not args or args[0] in ("-h", "--help", "help"):
            print(usage())
            return 0
        if args[0] in ("-V", "--version"):
            from foleypref import __version__

            print(__version__)
            return 0
        code = run(args)
        sys.stdout.flush()  # here, where a reader that has gone away can still be caught
        return code
    except KeyboardInterrupt:
        print("stopped; the same command goes on where it was", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone; point stdout elsewhere so that the flush at exit is silent too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
        if os.environ.get(DEBUG):
            raise
        print(f"{' '.join(['foleypref', *_words(args)])}: {_one_line(error)}", file=sys.stderr)
        return 2


def run(argv: list[str]) -> int:
    """Run one command and return its exit code. Raises ValueError for a user's mistake."""
    words = _words(argv)
    if not words:
        raise ValueError(f"no verb is called {argv[0]!r}; {nearest(argv[0], [*STAGES, *OTHERS])}")
    name, args = " ".join(words), argv[len(words) :]
    verb = {**STAGES, **OTHERS, **BELOW}[name]
    if name == "evaluate" and any(arg.partition("=")[0] == "--against" for arg in args):
        verb = AGAINST
    if not verb.command:
        return _usage_below(name, args)
    from foleypref.cli.command import named
    from foleypref.settings.flags import parse

    command = named(f"cli.{verb.command}")
    settings = command.defaults(args)
    return parse(command, args, f"foleypref {name}", verb.summary, settings).run() or 0


def usage() -> str:
    """Return the text of `foleypref --help`."""
    return "\n".join(
        [
            "usage: foleypref VERB …        foleypref VERB --help shows every setting",
            "",
            "Preference alignment for video-to-audio flow models.",
            "",
            "Stages, in order; each takes a WORKSPACE, skips what is there, and can be stopped at any time:",
            *(f"  {name:<10}{verb.summary}" for name, verb in STAGES.items()),
            "",
            "And:",
            *(f"  {name:<10}{verb.summary}" for name, verb in OTHERS.items()),
            "",
            "Start with `foleypref demo`.",
        ]
    )


def _usage_below(name: str, args: list[str]) -> int:
    """Show the verbs of two words that begin with `name`. Raises ValueError if that was not asked for."""
    words = [other.split()[1] for other in BELOW if other.startswith(f"{name} ")]
    if not args or args[0] not in ("-h", "--help"):
        found = repr(args[0]) if args else "nothing"
        raise ValueError(f"wants {', '.join(words[:-1])} or {words[-1]}, found {found}")
    print(f"usage: foleypref {name} {'|'.join(words)} …        each has its own --help\n")
    print("\n".join(f"  {word:<10}{BELOW[f'{name} {word}'].summary}" for word in words))
    return 0


def _words(args: list[str]) -> list[str]:
    """Return the verb that the arguments begin with, in two words or one; none if it is unknown."""
    if " ".join(args[:2]) in BELOW:
        return args[:2]
    return args[:1] if args[0] in {**STAGES, **OTHERS} else []


def _one_line(error: BaseException) -> str:
    """An error's message on one line; pydantic's report by its dotted paths."""
    if type(error).__name__ == "ValidationError":
        from foleypref.settings.errors import explain

        return explain(error)  # type: ignore[arg-type]
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split())
