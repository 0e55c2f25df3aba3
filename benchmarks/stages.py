"""One video through a model at real size: seconds and peak memory of every stage, then of a Flow-DPO step.

    python benchmarks/random_weights.py weights mmaudio-small-16k
    FOLEYPREF_WEIGHTS=weights python benchmarks/stages.py VIDEO.mp4 --model mmaudio-small-16k

Weights may be random: neither time nor memory depends on their values. A stage whose operations are counted
is held against a matrix product of 2,048 by 2,048 on the same machine: on a CPU by processor seconds, which
other work does not change much.
"""

from __future__ import annotations

import argparse
import math
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch

from foleypref.flow.convention import noise_like_rows
from foleypref.models.backbones import Conditions, Model
from foleypref.models.costs import Cost
from foleypref.models.lora import LoraSettings, WithoutAdapters, add_adapters
from foleypref.models.tools import frozen_copy, sample_latents, with_network
from foleypref.settings.parts import build
from foleypref.training.objectives._pairs import PairBatch
from foleypref.training.objectives.flow_dpo import FlowDPO


@contextmanager
def stage(name: str, tflop: float = 0.0) -> Iterator[None]:
    """Print the seconds, the process's highest memory so far, and the rate for `tflop` operations."""
    begin, worked = time.perf_counter(), time.process_time()
    yield
    seconds, worked = time.perf_counter() - begin, time.process_time() - worked
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        peak = f"{torch.cuda.max_memory_allocated() / 1024**3:.2f} GiB on the device"
    else:
        peak = f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2:.2f} GiB"
    print(f"{name:34}{seconds:9.2f} s {worked:9.2f} CPU s   peak so far {peak}", flush=True)
    if tflop:
        rate = tflop / (seconds if torch.cuda.is_available() else worked)
        product = matrix_rate()
        print(f"{'':34}{tflop:.2f} TFLOP at {rate:.3f} a second, {rate / product:.0%} of a matrix product's")


@cache
def matrix_rate() -> float:
    """Return the TFLOP per second of float32 products; on a CPU, per second of processor time."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    a, rounds = torch.randn(2048, 2048, device=device), 8
    best = 0.0
    for _ in range(5):
        begin = time.perf_counter() if device == "cuda" else time.process_time()
        for _ in range(rounds):
            b = a @ a
        if device == "cuda":
            b[0, 0].item()
        end = time.perf_counter() if device == "cuda" else time.process_time()
        best = max(best, rounds * 2 * 2048**3 / (end - begin) / 1e12)
    return best


def sound(model: Any, video: Path, num_steps: int, cost: Cost) -> tuple[Conditions, dict[str, torch.Tensor]]:
    """Run everything that `foleypref generate` does for one window, stage by stage."""
    with stage("frames"):
        media = model.read(video, 0.0, "rain on a tin roof", audio=False)
    with torch.inference_mode():
        with stage("encoders, loading and running"):
            model.condition([media])
        with stage("encoders, running", cost.features):
            conditions = model.condition([media])
        with stage(f"{num_steps} guided Euler steps", 2 * num_steps * cost.network_pass):
            latents = sample_latents(model, conditions, [0], num_steps=num_steps, guidance_scale=4.5)
    decoded(model, latents, cost)
    return conditions, latents


def decoded(model: Any, latents: dict[str, torch.Tensor], cost: Cost) -> None:
    """Decode latents to sound, twice."""
    with torch.inference_mode():
        with stage("VAE and vocoder, with loading"):
            model.decode(latents)
        with stage("VAE and vocoder", cost.decoding):
            wave = model.decode(latents)
    print(f"{wave.shape[1] / model.spec.sample_rate:.2f} s of sound")


def dpo_steps(model: Any, conditions: Conditions, latents: dict[str, torch.Tensor], adapters: bool) -> None:
    """Take two Flow-DPO steps on one pair; the first loss must be ln 2."""
    rejected = {key: value.clone().flip(1) for key, value in latents.items()}
    noise = {key: torch.randn(value.shape, device=value.device) for key, value in latents.items()}
    t = torch.tensor([0.4], device=next(iter(noise.values())).device)
    clones = {key: value.clone() for key, value in latents.items()}
    kept = {key: value.clone() for key, value in conditions.items()}
    batch = PairBatch([], clones, rejected, noise, t, kept, [[]])
    if not adapters:
        reference: Model = frozen_copy(model)
    else:
        network = add_adapters(model.network, LoraSettings(), model.lora_targets, seed=0)
        model, reference = with_network(model, network), with_network(model, WithoutAdapters(network))
    parameters = [p for p in model.network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=5e-6)
    kind = "LoRA" if adapters else "full"
    print(f"{kind}: {sum(p.numel() for p in parameters):,} trained parameters")
    for index in range(2):
        with stage(f"Flow-DPO step {index}, {kind}, one pair"):
            loss = FlowDPO().loss(model, reference, batch)
            loss.value.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        print(f"  loss {loss.value.item():.9f} (ln 2 is {math.log(2):.9f})")


def main() -> None:
    """Run the stages that were asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("video", type=Path, nargs="?", help="none: noise is decoded, and that is all")
    parser.add_argument("--model", default="mmaudio-small-16k")
    parser.add_argument("--num-steps", type=int, default=25)
    parser.add_argument("--duration", type=float, help="seconds, where the model's own are too many")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--train", choices=("none", "full", "lora"), default="none")
    args = parser.parse_args()
    model: Any = build("models", args.model)
    with stage("network, loading"):
        model.load(args.device)
    if args.duration:
        model = model.with_duration(args.duration)
    if args.video is None:
        decoded(model, noise_like_rows(model.spec.latents, [0]), model.cost())
        return
    conditions, latents = sound(model, args.video, args.num_steps, model.cost())
    if args.train != "none":
        dpo_steps(model, conditions, latents, adapters=args.train == "lora")


if __name__ == "__main__":
    main()
