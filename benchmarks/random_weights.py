"""A weights folder of random networks at real size: everything but the sound is as with the published files.

    python benchmarks/random_weights.py OUT mmaudio-small-16k mmaudio-large-44k-v2

Keys and shapes are the official ones (tests/golden/mmaudio_keys_*.json). The files are safetensors copies
as users keep them: found by name, no hash known. CLIP takes 3.9 GB, the others 0.4 to 4.1 GB.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from foleytune.published.registry import files_for

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"
KEY_LISTS = {
    "v1-16.pth": ("vae_16k", "keys"),
    "v1-44.pth": ("vae_44k", "keys"),
    "best_netG.pt": ("bigvgan_16k", "folded"),
    "bigvgan_generator.pt": ("bigvgan_44k", "folded"),
    "synchformer_state_dict.pth": ("synchformer_visual", "keys"),
    "DFN5B-CLIP-ViT-H-14-378/open_clip_pytorch_model.bin": ("clip_vit_h14_378", "keys"),
}


def fill(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Normal weights over the root of their fan-in, gains and deviations near 1, small biases."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for key, shape in shapes.items():
        value = torch.randn(shape, generator=generator)
        if key.endswith("_std") or (key.endswith(".weight") and len(shape) == 1):
            state[key] = 1 + 0.1 * value.abs()
        elif len(shape) > 1 and not key.endswith("_mean"):
            state[key] = value / max(1, torch.Size(shape[1:]).numel()) ** 0.5
        else:
            state[key] = 0.1 * value
    return state


def write(folder: Path, model: str) -> None:
    """The files that `model` runs on; those that are there are kept."""
    for entry in files_for(model):
        listed, kind = KEY_LISTS.get(
            entry.name, (entry.name.removesuffix(".pth").removeprefix("mmaudio_"), "keys")
        )
        path = (folder / entry.name).with_suffix(".safetensors")
        if path.exists():
            continue
        keys = json.loads((GOLDEN / f"mmaudio_keys_{listed}.json").read_text())[kind]
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(fill({key: tuple(shape) for key, (shape, *_) in keys.items()}), path)
        print(f"{path} {path.stat().st_size / 1e9:.2f} GB", flush=True)


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("models", nargs="+")
    args = parser.parse_args()
    for model in args.models:
        write(args.folder, model)


if __name__ == "__main__":
    main()
