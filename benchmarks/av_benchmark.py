r"""Scorers here and av-benchmark's own extraction, side by side: seconds an extractor, memory, agreement.

    git clone https://github.com/hkchengrex/av-benchmark
    git clone https://github.com/kkoutini/passt_hear21
    git clone https://github.com/facebookresearch/ImageBind
    pip install torchlibrosa librosa einops omegaconf torchaudio
    python benchmarks/scorer_weights.py weights
    FOLEYPREF_WEIGHTS=weights python benchmarks/av_benchmark.py SOUNDS \
        --official av-benchmark passt_hear21 ImageBind

There `av_bench.extract.extract` runs as it is, with the device, batch size and number of reading processes
that are given: every extractor reads all files again. Packages that this machine lacks are replaced by
stand-ins (`av_standins.py`). Here one read serves all. Both get the same files and weights and take turns,
each in a process of its own; the best of `--repeats` counts, an extractor. Seconds are the clock's and,
as a shared machine's clock says little, the processors'. Of ImageBind and Synchformer the halves that hear
are run, as there; `--skip-video` leaves them out.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

FILES = {  # what extract() saves last for each extractor
    "panns": "pann_features",
    "vggish": "vggish_features",
    "imagebind": "imagebind_audio",
    "synchformer": "synchformer_audio",
    "passt": "passt_features_embed",
}


class Clock:
    """Seconds of the clock and of all processors, this process's children included, by name."""

    def __init__(self) -> None:
        self.found: dict[str, list[float]] = {}
        self.start()

    def start(self) -> None:
        """Start the clock again from zero."""
        self.last = self._now()

    def lap(self, name: str) -> None:
        """Add the time since the last lap to `name`."""
        now = self._now()
        before = self.found.get(name, [0.0, 0.0])
        self.found[name] = [b + n - last for b, n, last in zip(before, now, self.last)]
        self.last = now

    @staticmethod
    def _now() -> list[float]:
        times = os.times()
        return [time.perf_counter(), sum(times[:4])]


def ours(folder: Path, args: argparse.Namespace, clock: Clock) -> dict[str, Tensor]:
    """Run all of our extractors on each batch of files."""
    from foleypref.media.clip import read_channels
    from foleypref.scoring.scorers import ScoreItem
    from foleypref.scoring.scorers.panns import Panns
    from foleypref.scoring.scorers.passt import Passt
    from foleypref.scoring.scorers.vggish import Vggish

    panns, vggish, passt = (part.load(args.device) for part in (Panns(), Vggish(), Passt()))
    run: dict[str, Callable[[list[ScoreItem]], Tensor]] = {
        "panns": lambda items: panns.judge(items).embeddings["logits"],
        "vggish": lambda items: vggish.judge(items).embeddings["patches"],
        "passt": lambda items: passt.judge(items).embeddings["features"],
    }
    if not args.skip_video:
        from foleypref.published.imagebind import IBScore, load_imagebind
        from foleypref.published.synchformer import DeSync, load_synchformer

        bind, sync = IBScore(load_imagebind(), args.device), DeSync(load_synchformer(), args.device)
        run["imagebind"] = lambda items: bind.hear([(i.sound, i.sample_rate) for i in items]).cpu()
        run["synchformer"] = lambda items: sync.hear(
            [(i.sound, i.sample_rate) for i in items], args.seconds
        ).cpu()
    found: dict[str, list[Tensor]] = {name: [] for name in run}
    paths = sorted(folder.glob("*.wav"))
    clock.start()
    for begin in range(0, len(paths), args.batch):
        items = []
        for path in paths[begin : begin + args.batch]:
            sound, rate = read_channels(path)
            items.append(ScoreItem(path.stem, sound.mean(0), rate, channels=sound, seconds=args.seconds))
        clock.lap("reading")
        for name, extract in run.items():
            found[name].append(extract(items))
            clock.lap(name)
    return {name: torch.cat(rows) for name, rows in found.items()}


def official(folder: Path, args: argparse.Namespace, clock: Clock) -> dict[str, Tensor]:
    """Run av-benchmark's `extract`; laps are taken whenever it saves a result."""
    sys.path[:0] = [str(path) for path in args.official]
    import av_standins

    av_standins.install()
    from av_bench import extract as module

    av_standins.use_our_weights(Path(tempfile.mkdtemp()), not args.skip_video)
    names = {stem: name for name, stem in FILES.items()}
    data_set, save = module.AudioDataset, torch.save
    begun = []

    def first(*rest: Any, **settings: Any) -> Any:
        if not begun:
            begun.append(clock.start())
        return data_set(*rest, **settings)

    def save_and_time(value: Any, path: Path) -> None:
        save(value, path)
        if path.stem in names:
            clock.lap(names[path.stem])

    module.AudioDataset, torch.save = first, save_and_time
    with tempfile.TemporaryDirectory() as cache:
        module.extract(
            folder, Path(cache), audio_length=args.seconds, batch_size=args.batch,
            num_workers=args.workers, device=args.device, skip_video_related=args.skip_video, skip_clap=True,
        )  # fmt: skip
        clock.lap("end")
        stored = {
            name: torch.load(path) for name, s in FILES.items() if (path := Path(cache) / f"{s}.pth").exists()
        }
    stored["panns"] = {key: value["logits"] for key, value in stored["panns"].items()}
    return {name: torch.stack([rows[key] for key in sorted(rows)]) for name, rows in stored.items()}


def run_child(args: argparse.Namespace) -> None:
    """Run one side once, print its times as JSON, and keep its results for the comparison."""
    torch.manual_seed(0)
    clock = Clock()
    with torch.inference_mode():
        found = (ours if args.child == "ours" else official)(args.sounds, args, clock)
    torch.save(found, args.results / f"{args.child}.pth")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(json.dumps({"times": clock.found, "peak": peak}))


def compare(runs: dict[str, list[dict[str, Any]]], results: Path, sounds: int) -> None:
    """Print both sides and their ratio per extractor and in total, by clock and by processor time."""
    first, second = (torch.load(results / f"{side}.pth") for side in ("ours", "official"))
    print(
        f"{'':12}{'here':>8}{'there':>8}{'ratio':>7}   {'CPU here':>8}{'there':>8}{'ratio':>7}   differs by"
    )
    total = [[0.0, 0.0], [0.0, 0.0]]
    for name in ("reading", *first, "end"):
        sides = [
            [min(run["times"].get(name, [0.0, 0.0])[kind] for run in runs[side]) / sounds for kind in (0, 1)]
            for side in ("ours", "official")
        ]
        total = [[a + b for a, b in zip(*pair)] for pair in zip(total, sides)]
        far = ""
        if name in first:
            a, b = first[name], second[name]
            far = f"{float((a - b).abs().max() / b.abs().max()):.1e}"
        _row(name, sides, far)
    _row("all", total, "")
    peaks = {side: max(run["peak"] for run in found) for side, found in runs.items()}
    print(f"peak GiB: {peaks['ours']:.2f} here, {peaks['official']:.2f} there")


def _row(name: str, sides: list[list[float]], far: str) -> None:
    (clock, cpu), (their_clock, their_cpu) = sides
    ratios = [f"{b / a:.2f}" if a and b else "" for a, b in ((clock, their_clock), (cpu, their_cpu))]
    print(f"{name:12}{clock:8.3f}{their_clock:8.3f}{ratios[0]:>7}", end="   ")
    print(f"   {cpu:8.3f}{their_cpu:8.3f}{ratios[1]:>7}   {far}")


def main() -> None:
    """Compare both extractors and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sounds", type=Path, help="WAV files of at least --seconds")
    parser.add_argument("--official", type=Path, nargs="+", default=[], help="checkouts, see above")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--copies", type=int, default=1, help="of every file")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2, help="processes that read, there")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--skip-video", action="store_true", help="without ImageBind and Synchformer")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--results", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        run_child(args)
        return
    with tempfile.TemporaryDirectory() as folder:
        place, paths = Path(folder), sorted(args.sounds.resolve().glob("*.wav"))
        (place / "sounds").mkdir()
        for copy in range(args.copies):
            for path in paths:
                (place / "sounds" / f"{path.stem}-{copy}.wav").symlink_to(path)
        runs: dict[str, list[dict[str, Any]]] = {"ours": [], "official": []}
        command = [sys.executable, __file__, str(place / "sounds"), *sys.argv[2:], "--results", folder]
        for turn in range(args.repeats):
            for side in ("ours", "official") if turn % 2 == 0 else ("official", "ours"):
                done = subprocess.run(
                    [*command, "--child", side], capture_output=True, text=True, check=False
                )
                if done.returncode:
                    sys.exit(f"{side} failed:\n{done.stderr}")
                runs[side].append(json.loads(done.stdout.splitlines()[-1]))
        print(f"{args.copies * len(paths)} sounds of {args.seconds:g} s on {args.device}: seconds a sound")
        compare(runs, place, args.copies * len(paths))


if __name__ == "__main__":
    main()
