"""Golden checks of the IB-score: ImageBind's keys, tiny and full-size halves, sound and picture front ends.

Inputs are made as the companion .json states them. Of `scorers_frontends` the ImageBind and the picture parts
are checked here, all of them; the rest is others'. Which frames are picked: `check_mmaudio_conditions`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from foleypref.media.frame_rules import resize_short
from foleypref.networks.imagebind import ImageBind, ImageBindSizes, without_other_halves
from foleypref.networks.resample import HANN_FLOAT32, resample
from foleypref.networks.synchformer_visual import sync_pixels
from foleypref.published.imagebind import (
    SAMPLE_RATE,
    build_imagebind,
    clip_times,
    crops,
    imagebind_mels,
    similarity,
)
from tests.golden import recipes
from tests.golden.compare import integers, reals, texts

Quantities = Iterator[tuple[str, Tensor, Tensor]]

ROOT = Path(__file__).resolve().parents[2]
ABOUT = {"versions", "pins", "tensors"}  # of a companion: no quantities
SCALE = "modality_postprocessors.audio.1.log_logit_scale"
LEARNED_SCALE = "modality_postprocessors.text.1.log_logit_scale"  # those of the other halves are fixed

# Kind of sound -> (seconds, Hz, seed of each channel). The companion states only the first; the other
# seeds are those that agree to 1e-7, and no others do.
SOUNDS = {
    "mono": (8, 16000, (100,)),
    "stereo": (8, 16000, (100, 101)),
    "mono44": (8, 44100, (102,)),
    "short3s": (3, 16000, (103,)),
}


# -- the network -----------------------------------------------------------------------------------------


def normals(text: str) -> list[Tensor]:
    """Normal tensors of the stated shapes, from one generator or from one each."""
    seeds = [int(n) for n in re.findall(r"seed[( ](\d+)", text)]
    shapes = [[int(n) for n in call.strip(",").split(",")] for call in re.findall(r"randn\(([\d,]+)", text)]
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    if len(seeds) == 1:
        generators *= len(shapes)
    return [torch.randn(shape, generator=one) for shape, one in zip(shapes, generators, strict=True)]


def network(rule: str, sizes: ImageBindSizes | None = None) -> ImageBind:
    """A network filled by a rule; its scale is no weight and keeps the value it is made with."""
    with torch.device("meta"):
        shapes = ImageBind(sizes).state_dict()
    scale = ImageBind(tiny_sizes({})).state_dict()[SCALE]
    return build_imagebind(recipes.scorer_weights(shapes, rule) | {SCALE: scale}, sizes)


def tiny_sizes(config: dict[str, int]) -> ImageBindSizes:
    """The stated sizes of both halves."""
    return ImageBindSizes(
        vision_width=config.get("vision_embed_dim", 4),
        vision_depth=config.get("vision_num_blocks", 1),
        vision_heads=config.get("vision_num_heads", 1),
        audio_width=config.get("audio_embed_dim", 4),
        audio_depth=config.get("audio_num_blocks", 1),
        audio_heads=config.get("audio_num_heads", 1),
        embed_dim=config.get("out_embed_dim", 4),
    )


@torch.inference_mode()
def tiny(rule: str, golden: dict[str, Tensor], about: dict[str, Any]) -> Quantities:
    """Embeddings of clips, of one clip and of a still, the first six tokens, and what follows from them."""
    model, name = network(rule, tiny_sizes(about["tiny_config"])), f"tiny_{rule}"
    audio, vision = normals(about["inputs"])
    heard, seen = model.embed_audio(audio, 2), model.embed_video(vision, 3)
    yield f"{name}_audio", heard, golden[f"{name}_audio"]
    yield f"{name}_vision", seen, golden[f"{name}_vision"]
    single = golden[f"{name}_audio_single_clip0"]
    yield f"{name}_audio_single_clip0", model.embed_audio(audio[:1, :1]), single
    yield f"{name}_image", model.embed_video(vision[:1, :1, :, :1]), golden[f"{name}_image"]
    for half, clips in (("audio", audio), ("vision", vision)):
        tokens = model.modality_preprocessors[half](clips[0, :1])
        yield f"{name}_{half}_tokens_head", tokens[:, :6], golden[f"{name}_{half}_tokens_head"]
        states = model.modality_trunks[half](tokens)
        yield f"{name}_{half}_trunk_head", states[:, :6], golden[f"{name}_{half}_trunk_head"]
    ours = {
        "audio_norm": heard[0].norm(),
        "vision_norm": seen[0].norm(),
        "audio_inter_sample_cos": similarity(heard[0], heard[1]),
        "ib_cos": similarity(seen, heard),
    }
    assert set(about["cases"][name]) == set(ours)
    for key, value in ours.items():
        yield f"cases {name} {key}", value, reals(about["cases"][name][key])


@torch.inference_mode()
def huge(golden: dict[str, Tensor], about: dict[str, Any]) -> Quantities:
    """The published sizes: 2.9 GB of weights, a minute."""
    model = network("B")
    audio, vision = normals(about["huge_inputs"])
    yield "huge_B_audio", model.embed_audio(audio), golden["huge_B_audio"]
    yield "huge_B_vision", model.embed_video(vision, 2), golden["huge_B_vision"]


def shapes_and_scale(about: dict[str, Any]) -> Quantities:
    """Names and shapes of the tiny network, and the scale that every network is made with."""
    state = ImageBind(tiny_sizes(about["tiny_config"])).state_dict()
    ours = {key: value.shape for key, value in state.items()}
    yield "tiny_shapes_audio_vision", *texts(ours, about["tiny_shapes_audio_vision"])
    yield "logit_scale_audio", state[SCALE], reals(about["logit_scale_audio"])


def imagebind(path: Path) -> Quantities:
    """All of the network's file and of its companion."""
    golden, about = load_file(path), json.loads(path.with_suffix(".json").read_text())
    wanted = set(golden) | (set(about) - ABOUT)
    done = {"tiny_config", "inputs", "huge_inputs"}
    assert set(about["cases"]) == {"tiny_A", "tiny_B"}

    def run() -> Quantities:
        yield from shapes_and_scale(about)
        for rule in ("A", "B"):
            yield from tiny(rule, golden, about)
        yield from huge(golden, about)

    for name, ours, expected in run():
        done.add(name.split(" ")[0])
        yield name, ours, expected
    assert done == wanted, sorted(done ^ wanted)


def keys(path: Path) -> Quantities:
    """Our halves take their tensors from the official file; all that is dropped belongs to other halves."""
    listed = json.loads(path.read_text())
    shapes: dict[str, list[int]] = listed["shapes"]
    with torch.device("meta"):
        model = ImageBind()
        official = {key: torch.empty(shape) for key, shape in shapes.items()}
    state, kept = model.state_dict(), without_other_halves(official)
    yield "shapes", *texts(*({k: v.shape for k, v in some.items()} for some in (state, kept)))
    yield "n_tensors", integers(len(official)), integers(listed["n_tensors"])
    dropped = {key: value.numel() for key, value in official.items() if key not in kept}
    for half, expected in listed["elements_per_modality"].items():
        counts = dropped if half not in ("vision", "audio") else {k: v.numel() for k, v in state.items()}
        total = sum(n for key, n in counts.items() if f".{half}." in key)
        yield f"elements_per_modality {half}", integers(total), integers(expected)
    total = sum(value.numel() for value in state.values()) + sum(dropped.values())
    yield "n_elements", integers(total), integers(listed["n_elements"])
    fixed = [k for k in dropped if k.endswith((".mask", ".log_logit_scale")) and k != LEARNED_SCALE]
    parameters = sum(p.numel() for p in model.parameters()) + sum(dropped.values())
    ours = parameters - sum(dropped[key] for key in fixed)
    yield "n_parameters", integers(ours), integers(listed["n_parameters"])
    done = {"model", "shapes", "n_tensors", "elements_per_modality", "n_elements", "n_parameters"}
    assert set(listed) == done, sorted(set(listed) ^ done)


# -- the front ends --------------------------------------------------------------------------------------


def sound(kind: str) -> Tensor:
    """One of `SOUNDS`, (C, N) at 16 kHz."""
    seconds, rate, seeds = SOUNDS[kind]
    sounds = torch.stack([recipes.wave(seconds, rate, seed) for seed in seeds])
    return resample(sounds, rate, SAMPLE_RATE, HANN_FLOAT32)


def mels_of_all() -> dict[str, Tensor]:
    """Return the log-mel pictures of all `SOUNDS`."""
    return {kind: imagebind_mels(sound(kind)).contiguous() for kind in SOUNDS}


def mels_by_plain_fft() -> dict[str, Tensor]:
    """Run `mels_of_all` in another process, in which MKL's FFT rounds alike on every x86 processor.

    Quiet bands show how float32 FFTs round: with MKL's code for AVX2 or AVX-512, upstream's own pictures
    differ from these vectors by up to 4e-5, with its plain code by 1e-7. A process chooses its code once.
    """
    paths = os.pathsep.join([str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "MKL_CBWR": "COMPATIBLE", "PYTHONPATH": paths}
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "mels.safetensors")
        subprocess.run([sys.executable, "-m", __name__, file], check=True, cwd=ROOT, env=environment)
        return load_file(file)


def frontends(path: Path) -> Quantities:
    """Everything of ImageBind's and of pictures in the file of front ends."""
    golden, about = load_file(path), json.loads(path.with_suffix(".json").read_text())
    wanted = {key for key in (*golden, *about) if re.search(r"imagebind|video|wave16k_", key)}
    done = {"video_recipe", "wave16k_recipe"}
    for name, ours, expected in (*_clips(golden, about), *_mels(golden, about), *_pixels(golden, about)):
        done.add(name.split(" ")[0])
        yield name, ours, expected
    assert done == wanted, sorted(done ^ wanted)


def _clips(golden: dict[str, Tensor], about: dict[str, Any]) -> Quantities:
    assert about["wave16k_recipe"] == "wave(8, 16000, seed=100)"
    wave = sound("mono")[0]
    yield "wave16k_first64", wave[:64], golden["wave16k_first64"]
    sums = torch.stack([wave.double().sum(), wave.double().square().sum()])
    yield "wave16k_sum_sumsq", sums, reals(about["wave16k_sum_sumsq"])
    for seconds, expected in about["imagebind_clip_timepoints"].items():
        ours = [[float(time) for time in clip] for clip in clip_times(float(seconds))]
        yield f"imagebind_clip_timepoints {seconds}", reals(ours), reals(expected)


def _mels(golden: dict[str, Tensor], about: dict[str, Any]) -> Quantities:
    for kind, mels in mels_by_plain_fft().items():
        name = f"imagebind_mel_{kind}"
        step = 1 if kind == "mono" else 4
        yield name, mels[:, 0, ::step, ::step], golden[name]
        if f"{name}_shape" in about:
            yield f"{name}_shape", integers([1, *mels.shape]), integers(about[f"{name}_shape"])


def _pixels(golden: dict[str, Tensor], about: dict[str, Any]) -> Quantities:
    (size,) = re.findall(r"video_u8\(([\d, ]+)\)", about["video_recipe"])
    video = recipes.video_u8(*(int(n) for n in size.split(",")))
    yield "video_u8_4x48x72", video, golden["video_u8_4x48x72"]
    frames = video.movedim(1, -1).contiguous()

    def resized(frames: Tensor, side: int, *, crop: bool = False) -> Tensor:
        return torch.stack([torch.from_numpy(resize_short(f.numpy(), side, crop=crop)) for f in frames])

    name = "video_ib_transform_size32_3crops"
    yield name, crops(resized(frames, 32)), golden[name]
    portrait = frames[:1].transpose(1, 2).contiguous()
    yield f"{name}_portrait", crops(resized(portrait, 32)), golden[f"{name}_portrait"]
    cut = sync_pixels(resized(frames, 32, crop=True))
    yield "video_sync_transform_size32", cut, golden["video_sync_transform_size32"]
    large = resized(frames[:1], 224).movedim(-1, 1)[:, :, ::8, ::8]
    yield "video_upscaled_224_u8_every8", large, golden["video_upscaled_224_u8_every8"]


CHECKS: dict[str, Callable[[Path], Quantities]] = {
    "scorers_imagebind.safetensors": imagebind,
    "scorers_imagebind_keys.json": keys,
    "scorers_frontends.safetensors": frontends,
}

if __name__ == "__main__":
    save_file(mels_of_all(), sys.argv[1])
