"""The command line: `foleypref VERB …`, one verb a stage, and a few that look around.

Nothing heavy is imported before the verb is known, so `foleypref --help` answers at once. A user's mistake
is one line on stderr and exit code 2; FOLEYPREF_DEBUG=1 shows the traceback behind it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from foleypref.settings.nearest import nearest

STAGES = {
    "ingest": ("IngestSettings", "folder of videos (and metadata) -> clips"),
    "sample": ("SampleSettings", "a model, clips and seeds -> candidate soundtracks"),
    "score": ("ScoreSettings", "scorers and candidates -> raw scores"),
    "fit": ("FitSettings", "ratings and scores -> AudioScore, the reward"),
    "pair": ("PairSettings", "judged candidates -> preference pairs"),
    "train": ("TrainSettings", "pairs -> a tuned model"),
    "evaluate": ("EvaluateSettings", "held-out candidates and scores -> metrics with intervals"),
    "report": ("ReportSettings", "everything -> one HTML page"),
}
"""Stage -> name of its settings class, and what goes in and out. Each is `foleypref.<stage>:<stage>`."""

OTHERS = {
    "align": "all stages of a recipe in order, each resumed where it was",
    "plan": "hours, memory, disk and commands of a recipe on GPUs and machines",
    "generate": "one video in, one video with sound out",
    "demo": "the whole loop on the embedded world, on a CPU, ending in a report",
    "world": "make clips of the embedded world, or rate as its raters do",
    "weights": "published weight files: list them, check those on disk, fetch them, export a tuned one",
    "hub": "a tuned model or AudioScore as a Hugging Face folder: save it, push it, load it again",
    "annotate": "people rate soundtracks in a browser, blind; export and import what they said",
    "compare": "a blind listening test between two tuned models: win rate with its interval",
    "pairs": "export the pairs as a Hugging Face datasets folder, or import such a folder",
    "list": "every model, scorer, negative, pairing, curriculum, objective, metric, recipe",
    "show": "what a workspace holds: counts, failures with reasons, runs",
    "env": "versions and hardware, for a bug report",
}

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
        code = _run(args[0], args[1:])
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
        verb = f" {args[0]}" if args[0] in {**STAGES, **OTHERS} else ""
        print(f"foleypref{verb}: {_one_line(error)}", file=sys.stderr)
        return 2


def usage() -> str:
    """The text of `foleypref --help`."""
    rows = [f"  {verb:<10}{text}" for verb, (_, text) in STAGES.items()]
    others = [f"  {verb:<10}{text}" for verb, text in OTHERS.items()]
    return "\n".join(
        [
            "usage: foleypref VERB …        foleypref VERB --help shows every setting",
            "",
            "Preference alignment for video-to-audio flow models.",
            "",
            "Stages, in order; each takes a WORKSPACE, skips what is there, and can be stopped at any time:",
            *rows,
            "",
            "And:",
            *others,
            "",
            "Start with `foleypref demo`.",
        ]
    )


def _run(verb: str, args: list[str]) -> int:
    if verb not in {**STAGES, **OTHERS}:
        raise ValueError(f"no verb is called {verb!r}; {nearest(verb, [*STAGES, *OTHERS])}")
    from foleypref.cli import commands

    if verb in STAGES:
        return commands.stage(verb, *STAGES[verb], args)
    return getattr(commands, f"run_{verb}")(args)


def _one_line(error: BaseException) -> str:
    """An error's message on one line; pydantic's report by its dotted paths."""
    if type(error).__name__ == "ValidationError":
        from foleypref.settings.errors import explain

        return "; ".join(explain(error))  # type: ignore[arg-type]
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split())
