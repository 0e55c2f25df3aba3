"""A weights folder of random networks at real size: everything but the sound is as with the published files.

    python benchmarks/random_weights.py OUT mmaudio-small-16k mmaudio-large-44k-v2 frieren-base

Keys and shapes are the official ones (tests/golden/*keys*.json). The files are safetensors copies
as users keep them: found by name, no hash known. CLIP takes 3.9 GB, the others 0.4 to 4.1 GB.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from foleypref.published.registry import files_for

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"
KEY_LISTS = {  # file -> list of keys, and where in it
    "v1-16.pth": ("mmaudio_keys_vae_16k", "keys"),
    "v1-44.pth": ("mmaudio_keys_vae_44k", "keys"),
    "best_netG.pt": ("mmaudio_keys_bigvgan_16k", "folded"),
    "frieren/best_netG.pt": ("mmaudio_keys_bigvgan_16k", "folded"),
    "bigvgan_generator.pt": ("mmaudio_keys_bigvgan_44k", "folded"),
    "synchformer_state_dict.pth": ("mmaudio_keys_synchformer_visual", "keys"),
    "DFN5B-CLIP-ViT-H-14-378/open_clip_pytorch_model.bin": ("mmaudio_keys_clip_vit_h14_378", "keys"),
    "frieren-noreflow.ckpt": ("frieren_checkpoint_keys", None),
    "cavp_epoch66.ckpt": ("frieren_cavp_keys", None),
}


def fill(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Fill with normal weights over the root of their fan-in, gains and deviations near 1, small biases."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for key, shape in shapes.items():
        value = torch.randn(shape, generator=generator)
        gain = key.endswith(".weight") and len(shape) == 1
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(0)
        elif gain or key.endswith(("_std", "running_var")):
            state[key] = 1 + 0.1 * value.abs()
        elif len(shape) > 1 and not key.endswith("_mean"):
            state[key] = value / max(1, torch.Size(shape[1:]).numel()) ** 0.5
        else:
            state[key] = 0.1 * value
    return state


def write(folder: Path, model: str) -> None:
    """Write the files that `model` runs on; existing ones are kept."""
    for entry in files_for(model):
        network = entry.name.removesuffix(".pth").removeprefix("mmaudio_")
        listed, kind = KEY_LISTS.get(entry.name, (f"mmaudio_keys_{network}", "keys"))
        path = (folder / entry.name).with_suffix(".safetensors")
        if path.exists():
            continue
        keys = json.loads((GOLDEN / f"{listed}.json").read_text())
        shapes = {key: v[0] if v and isinstance(v[0], list) else v for key, v in keys.get(kind, keys).items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(fill({key: tuple(shape) for key, shape in shapes.items()}), path)
        print(f"{path} {path.stat().st_size / 1e9:.2f} GB", flush=True)


def main() -> None:
    """Write a folder of random weights."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("models", nargs="+")
    args = parser.parse_args()
    for model in args.models:
        write(args.folder, model)


if __name__ == "__main__":
    main()
