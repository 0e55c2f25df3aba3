"""MMAudio's network here and in the official repository, side by side in one run: seconds, memory, agreement.

    git clone https://github.com/hkchengrex/MMAudio && pip install einops torchdiffeq
    python benchmarks/mmaudio.py --official MMAudio --variant small_16k

Both sides get the same random weights and features, in a process each, by turns, and the best of `--repeats`
counts: on a machine with other work a ratio from one run means more than its seconds. A sample is `--steps`
guided Euler steps (official: two forwards per step; here: both halves in one) in `--dtype`; bfloat16 is the
official demo's. A training step is one flow-matching forward, backward and AdamW step in float32.
"per clip" is the speed-up over the official network at one clip a call.
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
from safetensors.torch import load_file, save_file
from torch import Tensor

from foleypref.flow.convention import guide, integrate
from foleypref.networks.mmaudio import VARIANTS, MMAudio, sequence_lengths

GUIDANCE = 4.5
TASKS = ("sample", "train")


def make_files(folder: Path, variant: str, batch: int) -> None:
    """Write random weights of a sensible scale, and features, noise and targets for `batch` clips of 8 s."""
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        shapes = {k: v.shape for k, v in MMAudio(**VARIANTS[variant]).state_dict().items()}
    state = {}
    for key, shape in shapes.items():
        fan_in = max(1, shape[1:].numel()) if len(shape) > 1 else 1
        state[key] = torch.randn(shape, generator=generator) / fan_in**0.5 * (1.0 if len(shape) > 1 else 0.1)
        if key.endswith(("norm.weight", "latent_std")):
            state[key] = 1 + state[key]
    save_file(state, folder / "weights.safetensors")
    lengths = sequence_lengths(8.0, 16000 if "16k" in variant else 44100)
    dim = VARIANTS[variant]["latent_dim"]
    shapes_in = {
        "x0": (batch, lengths.latent, dim), "x1": (batch, lengths.latent, dim),
        "clip": (batch, lengths.clip, 1024), "sync": (batch, lengths.sync, 768), "text": (batch, 77, 1024),
    }  # fmt: skip
    inputs = {key: torch.randn(shape, generator=generator) for key, shape in shapes_in.items()}
    for key in ("clip", "text"):
        inputs[key] /= 32.0
    inputs["t"] = torch.rand(batch, generator=generator)
    save_file(inputs, folder / "inputs.safetensors")


class Ours:
    """foleypref's own network and solver."""

    def __init__(self, variant: str, weights: dict[str, Tensor]) -> None:
        self.network = MMAudio(**VARIANTS[variant])
        self.network.load_state_dict(weights)

    def sample(self, x: dict[str, Tensor], steps: int) -> Tensor:
        """Take guided Euler steps, conditions prepared once, both halves in one forward."""
        n = len(x["x0"])
        null = self.network.null_features(n, x["clip"].shape[1], x["sync"].shape[1])
        features = [torch.cat([x[key], empty]) for key, empty in zip(("clip", "sync", "text"), null)]
        prepared = self.network.prepare(*features)

        def velocity(x_t: dict[str, Tensor], t: Tensor) -> dict[str, Tensor]:
            v = self.network(x_t["audio"], t, prepared)
            return guide({"audio": v[:n]}, {"audio": v[n:]}, GUIDANCE)

        return integrate(velocity, {"audio": x["x0"]}, steps, "euler")["audio"]

    def flow(self, x: dict[str, Tensor], x_t: Tensor) -> Tensor:
        """Compute one velocity, with its conditions."""
        prepared = self.network.prepare(x["clip"], x["sync"], x["text"])
        return self.network(x_t, x["t"], prepared)


class Official:
    """The official network and solver."""

    def __init__(self, variant: str, weights: dict[str, Tensor]) -> None:
        from mmaudio.model.flow_matching import FlowMatching
        from mmaudio.model.networks import get_my_mmaudio

        self.network: Any = get_my_mmaudio(variant)
        self.network.load_weights(weights)
        self.solver = FlowMatching

    def sample(self, x: dict[str, Tensor], steps: int) -> Tensor:
        """Take guided Euler steps as the official `generate` does."""
        conditions = self.network.preprocess_conditions(x["clip"], x["sync"], x["text"])
        empty = self.network.get_empty_conditions(len(x["x0"]))

        def velocity(t: Tensor, x_t: Tensor) -> Tensor:
            return self.network.ode_wrapper(t, x_t, conditions, empty, GUIDANCE)

        return self.solver(0.0, "euler", steps).to_data(velocity, x["x0"])

    def flow(self, x: dict[str, Tensor], x_t: Tensor) -> Tensor:
        """Compute one velocity, with its conditions."""
        return self.network(x_t, x["clip"], x["sync"], x["text"], x["t"])


def run_child(side: str, task: str, variant: str, folder: Path, steps: int, dtype: torch.dtype) -> None:
    """Measure one side once; print seconds, peak memory above the start and a check sum as JSON."""
    weights = load_file(folder / "weights.safetensors")
    inputs = load_file(folder / "inputs.safetensors")
    implementation = {"ours": Ours, "official": Official}[side](variant, weights)
    del weights
    network = implementation.network.train(task == "train")
    if task == "sample":
        network.to(dtype)
        inputs = {key: value if key == "t" else value.to(dtype) for key, value in inputs.items()}
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-6) if task == "train" else None

    def step() -> Tensor:
        if optimizer is None:
            with torch.inference_mode():
                return implementation.sample(inputs, steps)
        x_t = torch.lerp(inputs["x0"], inputs["x1"], inputs["t"][:, None, None])
        error = implementation.flow(inputs, x_t) - (inputs["x1"] - inputs["x0"])
        loss = error.square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    seconds, first = _time(step)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    value = first.double().square().mean().sqrt().item()
    print(json.dumps({"seconds": seconds, "peak_gib": peak, "value": value}))


def _time(step: Callable[[], Tensor], runs: int = 2) -> tuple[float, Tensor]:
    """Return the best time of `runs`, and the result of the run before them, which is not timed."""
    first = step()
    best = float("inf")
    for _ in range(runs):
        begin = time.perf_counter()
        step()
        best = min(best, time.perf_counter() - begin)
    return best, first


def main() -> None:
    """Compare both implementations and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--official", type=Path, required=True, help="checkout of hkchengrex/MMAudio")
    parser.add_argument("--variant", default="small_16k", choices=sorted(VARIANTS))
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--steps", type=int, default=4, help="Euler steps of a sample")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="of a sample")
    parser.add_argument("--child", nargs=2, metavar=("SIDE", "TASK"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        sys.path.insert(0, str(args.official))
        run_child(*args.child, args.variant, args.folder, args.steps, getattr(torch, args.dtype))
        return
    print(f"{args.variant}, {torch.get_num_threads()} threads; a sample: {args.steps} steps in {args.dtype}")
    print(
        f"{'task':8}{'batch':>6}{'ours s':>10}{'official s':>12}{'speed-up':>10}{'per clip':>10}"
        f"{'GiB':>14}{'agree':>10}"
    )
    one: dict[str, float] = {}
    for batch in args.batches:
        with tempfile.TemporaryDirectory() as name:
            make_files(Path(name), args.variant, batch)
            for task in args.tasks:
                _row(args, task, batch, Path(name), one)


def _row(args: argparse.Namespace, task: str, batch: int, folder: Path, one: dict[str, float]) -> None:
    found: dict[str, list[dict[str, float]]] = {"ours": [], "official": []}
    for turn in range(args.repeats):
        for side in ("ours", "official") if turn % 2 == 0 else ("official", "ours"):
            found[side].append(_spawn(args, side, task, folder))
    best = {side: min(run["seconds"] for run in runs) for side, runs in found.items()}
    one.setdefault(task, best["official"] / batch)
    peak = {side: min(run["peak_gib"] for run in runs) for side, runs in found.items()}
    a, b = found["ours"][0]["value"], found["official"][0]["value"]
    same, single = best["official"] / best["ours"], one[task] * batch / best["ours"]
    memory = f"{peak['ours']:.2f}/{peak['official']:.2f}"
    print(
        f"{task:8}{batch:>6}{best['ours']:>10.2f}{best['official']:>12.2f}{same:>9.2f}x{single:>9.2f}x"
        f"{memory:>14}{abs(a - b) / abs(b):>10.1e}",
        flush=True,
    )


def _spawn(args: argparse.Namespace, side: str, task: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--official", str(args.official), "--variant", args.variant]
    command += [
        "--steps",
        str(args.steps),
        "--dtype",
        args.dtype,
        "--child",
        side,
        task,
        "--folder",
        str(folder),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    if done.returncode:
        sys.exit(f"{side} {task} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
