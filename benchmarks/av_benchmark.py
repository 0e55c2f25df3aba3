"""Scorers here and in av-benchmark's own code, side by side in one run: seconds a sound, memory, agreement.

    git clone https://github.com/hkchengrex/av-benchmark && pip install torchlibrosa librosa
    FOLEYTUNE_WEIGHTS=weights python benchmarks/av_benchmark.py SOUNDS --official av-benchmark

Its PANNs and VGGish run wherever torchaudio imports; the rest of it wants packages that only a CUDA machine
has. Both sides read the same files, mix, resample and cut them, get the same weights, and take turns; the
best of `--repeats` counts. There every extractor reads all files again; here one read serves both.
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
from pathlib import Path
from typing import Any

import numpy as np
import torch

SECONDS, BATCH = 4.0, 16  # evaluated; av-benchmark wants all sounds at least as long


def ours(paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """PANNs' logits and VGGish's patches."""
    from foleytune.media import read_channels
    from foleytune.scorers import ScoreItem
    from foleytune.scorers.panns import Panns
    from foleytune.scorers.vggish import Vggish

    panns, vggish = Panns().load(), Vggish().load()
    yield_ready()
    logits, patches = [], []
    for begin in range(0, len(paths), BATCH):
        items = []
        for path in paths[begin : begin + BATCH]:
            sound, rate = read_channels(path)
            items.append(ScoreItem(path.stem, sound.mean(0), rate, channels=sound, seconds=SECONDS))
        logits.append(panns.embed(items)["logits"])
        patches.append(vggish.embed(items)["patches"])
    return torch.cat(logits).numpy(), torch.cat(patches).numpy()


def official(paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """The same by av-benchmark's networks, loader arithmetic and order: one pass over the files each."""
    import soundfile
    import torchaudio
    from av_bench.panns import Cnn14
    from av_bench.vggish.vggish import VGGish

    from foleytune.published.taggers import PANNS, VGGISH
    from foleytune.published.weights import load_published

    state = load_published(PANNS["16k"])
    home = Path(tempfile.mkdtemp())  # its constructor reads the published files from the home folder
    place = home / ".cache" / "audioldm_eval" / "ckpt"
    place.mkdir(parents=True)
    for name in ("Cnn14_16k_mAP=0.438.pth", "Cnn14_mAP=0.431.pth"):
        torch.save({"model": {key: value.clone() for key, value in state.items()}}, place / name)
    os.environ["HOME"] = str(home)
    sizes = {"window_size": 512, "hop_size": 160, "mel_bins": 64, "fmin": 50, "fmax": 8000}
    panns = Cnn14(features_list=["2048", "logits"], sample_rate=16000, classes_num=527, **sizes).eval()
    vggish = VGGish(pretrained=False, postprocess=False).eval()
    vggish.load_state_dict(load_published(VGGISH), strict=False)
    resamplers: dict[int, Any] = {}

    def read(path: Path) -> torch.Tensor:
        wave, rate = soundfile.read(path, dtype="float32", always_2d=True)
        mono = torch.from_numpy(wave.T).mean(0)
        mono = mono - mono.mean()
        if rate not in resamplers:
            resamplers[rate] = torchaudio.transforms.Resample(rate, 16000)
        return resamplers[rate](mono)[: int(16000 * SECONDS)]

    def batches() -> Any:
        for begin in range(0, len(paths), BATCH):
            yield torch.stack([read(path) for path in paths[begin : begin + BATCH]])

    yield_ready()
    logits = torch.cat([panns(batch)["logits"] for batch in batches()])
    patches = torch.cat([vggish(batch) for batch in batches()])
    return logits.numpy(), patches.numpy()


_BEGIN = [0.0]


def yield_ready() -> None:
    """Loading is done: the clock starts."""
    _BEGIN[0] = time.perf_counter()


def run_child(side: str, paths: list[Path]) -> None:
    """One side once; prints JSON."""
    with torch.inference_mode():
        logits, patches = (ours if side == "ours" else official)(paths)
    seconds = time.perf_counter() - _BEGIN[0]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    sums = [float(np.abs(x).mean()) for x in (logits, patches)]
    print(json.dumps({"seconds": seconds, "peak": peak, "sums": sums}))


def main() -> None:
    """Compare, print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sounds", type=Path)
    parser.add_argument("--official", type=Path, required=True, help="checkout of hkchengrex/av-benchmark")
    parser.add_argument("--copies", type=int, default=4, help="times that the files are gone over")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    paths = sorted(args.sounds.glob("*.wav")) * args.copies
    if args.child:
        sys.path.insert(0, str(args.official))
        run_child(args.child, paths)
        return
    found: dict[str, list[dict[str, Any]]] = {"ours": [], "official": []}
    command = [sys.executable, __file__, str(args.sounds), "--official", str(args.official)]
    for turn in range(args.repeats):
        for side in ("ours", "official") if turn % 2 == 0 else ("official", "ours"):
            child = [*command, "--copies", str(args.copies), "--child", side]
            done = subprocess.run(child, capture_output=True, text=True, env=os.environ, check=False)
            if done.returncode:
                sys.exit(f"{side} failed:\n{done.stderr}")
            found[side].append(json.loads(done.stdout.splitlines()[-1]))
    best = {side: min(run["seconds"] for run in runs) for side, runs in found.items()}
    for side, runs in found.items():
        rate = len(paths) / best[side]
        print(f"{side:10}{best[side]:8.2f} s  {rate:6.1f} sounds/s  peak {runs[0]['peak']:.2f} GiB")
    a, b = found["ours"][0]["sums"], found["official"][0]["sums"]
    agree = max(abs(x - y) / abs(y) for x, y in zip(a, b))
    print(f"{best['official'] / best['ours']:.2f} times as fast; results agree within {agree:.1e}")


if __name__ == "__main__":
    main()
