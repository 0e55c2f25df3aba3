"""What a full run of an MMAudio variant costs, counted: operations, disk, and hours at a given rate.

    python benchmarks/mmaudio_cost.py --model large-44k-v2 --clips 50000 --candidates 5 --tflops 200

Operations are counted by torch on the real networks at real size (on the meta device: no weights, no memory),
matrix products and convolutions only. Hours follow from `--tflops`, the sustained rate that your device
reaches: an assumption of the reader's, not a measurement.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from foleytune.networks.mmaudio import VARIANTS, MMAudio, sequence_lengths
from foleytune.networks.synchformer_visual import SynchformerVisual
from foleytune.published.clip import ClipEncoders, ClipSizes
from foleytune.published.mmaudio_audio import SIZES, empty_vae, empty_vocoder

META = torch.device("meta")
SECONDS = 8.0
FLOAT16 = 2  # bytes


def count(run: Callable[[], object]) -> float:
    """Floating-point operations of `run`, in units of 1e12."""
    counter = FlopCounterMode(display=False)
    with counter:
        run()
    return counter.get_total_flops() / 1e12


def zeros(*shape: int) -> Tensor:
    """Shape without memory."""
    return torch.zeros(shape, device=META)


class Costs:
    """Operations (1e12) of every part of one variant for one clip of 8 s."""

    def __init__(self, variant: str) -> None:
        rate = 16000 if variant.endswith("16k") else 44100
        self.lengths, self.rate = sequence_lengths(SECONDS, rate), rate
        arguments = VARIANTS[variant.replace("-", "_")]
        self.dim = arguments["latent_dim"]
        with META:
            self.network = MMAudio(**arguments)
        self.parameters = sum(p.numel() for p in self.network.parameters())

    def features(self) -> tuple[float, float]:
        """CLIP (64 frames and one prompt) and Synchformer (24 segments)."""
        with META:
            clip, sync = ClipEncoders(ClipSizes()).eval(), SynchformerVisual()
        ids = torch.zeros(1, 77, dtype=torch.long, device=META)
        with torch.no_grad():
            first = count(lambda: clip.encode_image(zeros(self.lengths.clip, 3, 384, 384)))
            first += count(lambda: clip.encode_text(ids))
            second = count(lambda: sync(zeros(1, int(25 * SECONDS), 3, 224, 224)))
        return first, second

    def guided_step(self) -> float:
        """One Euler step of one candidate, both halves."""
        n = self.lengths
        given = (zeros(2, n.clip, 1024), zeros(2, n.sync, 768), zeros(2, 77, 1024))
        with torch.no_grad():
            prepared = self.network.prepare(*given)
            return count(lambda: self.network(zeros(1, n.latent, self.dim), zeros(1), prepared))

    def pair(self) -> float:
        """One Flow-DPO pair: winner and loser through the policy and back, through the reference forward."""
        n = self.lengths
        given = (zeros(2, n.clip, 1024), zeros(2, n.sync, 768), zeros(2, 77, 1024))

        def velocity() -> Tensor:
            return self.network(zeros(2, n.latent, self.dim), zeros(2), self.network.prepare(*given))

        with torch.no_grad():
            reference = count(velocity)
        return reference + count(lambda: velocity().sum().backward())

    def decoding(self) -> float:
        """VAE and vocoder for one candidate."""
        vae, vocoder = empty_vae(SIZES[self.rate]), empty_vocoder(SIZES[self.rate])
        latents = zeros(1, self.dim, self.lengths.latent)
        mel = zeros(1, SIZES[self.rate].num_mels, 2 * self.lengths.latent)
        with torch.no_grad():
            return count(lambda: vae.decode(latents)) + count(lambda: vocoder(mel))


def main() -> None:
    """Count and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="large-44k-v2")
    parser.add_argument("--clips", type=int, default=50_000)
    parser.add_argument("--candidates", type=int, default=5)
    parser.add_argument("--num-steps", type=int, default=25)
    parser.add_argument("--pairs", type=int, default=12_000 * 8)
    parser.add_argument("--tflops", type=float, default=200.0, help="sustained, of your device and dtype")
    args = parser.parse_args()
    costs = Costs(args.model)
    clip, sync = costs.features()
    made = args.clips * args.candidates
    rows = [
        ("CLIP, 64 frames and a prompt", clip, args.clips),
        ("Synchformer, 24 segments", sync, args.clips),
        (f"{args.num_steps} guided Euler steps", args.num_steps * costs.guided_step(), made),
        ("VAE and vocoder", costs.decoding(), made),
        ("Flow-DPO pair", costs.pair(), args.pairs),
    ]
    print(f"mmaudio-{args.model}: {costs.parameters / 1e6:.0f} M parameters, {SECONDS:g} s clips")
    print(f"{'part':32}{'TFLOP each':>12}{'times':>12}{'PFLOP':>12}{f'h at {args.tflops:g} TFLOP/s':>20}")
    for name, each, times in rows:
        hours = each * times / args.tflops / 3600
        print(f"{name:32}{each:>12.3f}{times:>12,}{each * times / 1e3:>12,.0f}{hours:>20.2f}")
    n = costs.lengths
    row = FLOAT16 * (n.clip * 1024 + n.sync * 768 + 77 * 1024 + 2)
    latents = FLOAT16 * n.latent * costs.dim
    print(f"features: {row:,} bytes a clip, {row * args.clips / 1e9:.1f} GB for {args.clips:,}")
    print(f"latents: {latents:,} bytes a candidate, {latents * made / 1e9:.1f} GB for {made:,}")


if __name__ == "__main__":
    main()
