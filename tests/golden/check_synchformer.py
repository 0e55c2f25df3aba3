"""Golden checks of the Synchformer score: keys, front ends, both halves, the head, DeSync end to end.

Inputs are made as the companion .json states them. Of `scorers_frontends` the Synchformer part is checked
here, all of it; the rest is others'.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from foleypref.media.frame_rules import resize_short
from foleypref.networks.synchformer import Synchformer, offset_grid
from foleypref.networks.synchformer_audio import MEL_FRAMES
from foleypref.networks.synchformer_visual import sync_pixels
from foleypref.published.synchformer import (
    DeSync,
    SyncMel,
    audio_segments,
    build_synchformer,
    desync_s,
    offsets_s,
    window_segments,
)
from tests.golden import recipes
from tests.golden.compare import integers, reals

Quantities = Iterator[tuple[str, Tensor, Tensor]]

ABOUT = {"versions", "pins", "tensors"}  # of a companion: no quantities
# Differences of logits that all but agree: their last digits are rounding (1e-4 of them under rule A).
ROUNDING = {"A_logit_std_between_samples", "B_logit_std_between_samples"}


def stated(text: str) -> tuple[list[int], list[list[int]]]:
    """The seeds and the shapes or arguments that a companion states for an input, each in order."""
    seeds = [int(n) for n in re.findall(r"seed[ =](\d+)", text)]
    calls = re.findall(r"(?:randn|video_u8|wave)\(([\d,]+)", text)
    return seeds, [[int(n) for n in call.split(",") if n] for call in calls]


def normals(text: str) -> list[Tensor]:
    """Normal tensors from one generator, in the stated order."""
    (seed,), shapes = stated(text)
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def frames(text: str) -> Tensor:
    """The stated test video as (T, H, W, 3) uint8."""
    (seed,), (size,) = stated(text)
    return recipes.video_u8(*size, seed=seed).movedim(1, -1)


def network(rule: str) -> Synchformer:
    """The full network filled by a rule."""
    with torch.device("meta"):
        shapes = Synchformer().state_dict()
    return build_synchformer(recipes.scorer_weights(shapes, rule))


# -- the network -----------------------------------------------------------------------------------------


@torch.inference_mode()
def audio_and_head(
    model: Synchformer, rule: str, golden: dict[str, Tensor], about: dict[str, Any]
) -> Quantities:
    """Audio tokens (every 8th channel), logits of random tokens, and what follows from the logits."""
    (mel,) = normals(about["afeat_input"])
    ours = model.afeat_extractor.segments(0.5 * mel[:, :, 0])
    yield f"{rule}_afeats", ours[..., ::8], golden[f"{rule}_afeats"]
    logits = model.compare(*normals(about["pair_features"]))
    yield f"{rule}_logits", logits, golden[f"{rule}_logits"]
    yield f"{rule}_argmax", logits.argmax(1), integers(about[f"{rule}_argmax"])
    yield f"{rule}_abs_seconds", offsets_s(logits).abs(), reals(about[f"{rule}_abs_seconds"])


@torch.inference_mode()
def visual(model: Synchformer, rule: str, golden: dict[str, Tensor], about: dict[str, Any]) -> Quantities:
    """Visual tokens of one segment, every 8th channel."""
    video = sync_pixels(frames(about["vfeat_input"]))
    ours = model.vfeat_extractor.segments(video[None])
    yield f"{rule}_vfeats", ours[..., ::8], golden[f"{rule}_vfeats"]


def desync(model: Synchformer, case: dict[str, Any]) -> Quantities:
    """Both windows of clips of 24 segments."""
    logits = DeSync(model).logits(*normals(case["inputs"]))
    offsets = offsets_s(logits)
    expected = {"class_ids_first_last": integers, "desync": reals, "per_clip": reals}
    assert set(case) == {"inputs", *expected}, sorted(case)
    ours = (logits.argmax(-1).flatten(), desync_s(offsets).mean(), desync_s(offsets))
    for (key, kind), value in zip(expected.items(), ours):
        yield f"desync_24seg {key}", value, kind(case[key])


def end_to_end(model: Synchformer, golden: dict[str, Tensor], case: dict[str, Any]) -> Quantities:
    """A sound and a video of 8 s to tokens (every 32nd channel), logits and DeSync."""
    _, ((seconds, rate, seed),) = stated(case["audio"])
    sound, judge = recipes.wave(seconds, rate, seed), DeSync(model)
    heard = judge.hear([(sound[None].numpy(), rate)], seconds)
    seen = judge.see(frames(case["video"]).numpy(), seconds)[None]
    yield "e2e_B_afeats_s8", heard[..., ::32], golden["e2e_B_afeats_s8"]
    yield "e2e_B_vfeats_s8", seen[..., ::32], golden["e2e_B_vfeats_s8"]
    logits = judge.logits(seen, heard)
    for index, name in enumerate(("first14", "last14")):
        yield f"e2e_B_logits_{name}", logits[:, index], golden[f"e2e_B_logits_{name}"]
    yield "e2e classes", logits.argmax(-1)[0], integers(case["classes"])
    yield "e2e desync", desync_s(offsets_s(logits))[0], reals(case["desync"])
    assert set(case) == {"audio", "video", "classes", "desync"}, sorted(case)


def synchformer(path: Path) -> Quantities:
    """All of the network's file, and of its companion: minutes, for the 24 segments of video."""
    golden, about = load_file(path), json.loads(path.with_suffix(".json").read_text())
    wanted = set(golden) | (set(about) - ABOUT - ROUNDING)
    done = {"pair_features", "afeat_input", "vfeat_input"}

    def run() -> Quantities:
        yield "class_grid", offset_grid(), golden["class_grid"]
        for rule in ("A", "B"):
            model = network(rule)
            yield from audio_and_head(model, rule, golden, about)
            yield from visual(model, rule, golden, about)
        yield from desync(model, about["desync_24seg"])
        yield from end_to_end(model, golden, about["e2e"])

    for name, ours, expected in run():
        done.add(name.split(" ")[0])
        yield name, ours, expected
    assert done == wanted, sorted(done ^ wanted)


def keys(path: Path) -> Quantities:
    """Names and shapes of the official file, parameters of each part."""
    listed = json.loads(path.read_text())
    with torch.device("meta"):
        state = Synchformer().state_dict()
    left, right = (
        "\n".join(sorted(f"{key} {list(shape)}" for key, shape in shapes.items()))
        for shapes in ({key: value.shape for key, value in state.items()}, listed["shapes"])
    )
    yield "shapes", integers(list(left.encode())), integers(list(right.encode()))
    total = sum(value.numel() for value in state.values())
    for key, ours in (("n_parameters", total), ("n_elements", total), ("n_tensors", len(state))):
        yield key, integers(ours), integers(listed[key])
    for part, expected in listed["per_part"].items():
        ours = sum(value.numel() for key, value in state.items() if key.split(".")[0] == part)
        yield f"per_part {part}", integers(ours), integers(expected)
    assert sum(listed["per_part"].values()) == total
    assert set(listed) == {"model", "n_parameters", "n_elements", "n_tensors", "per_part", "shapes"}


# -- the front ends --------------------------------------------------------------------------------------


def frontends(path: Path) -> Quantities:
    """Everything of Synchformer's in the file of front ends, and the inputs it shares with the others."""
    golden, about = load_file(path), json.loads(path.with_suffix(".json").read_text())
    wanted = {key for key in (*golden, *about) if re.search(r"sync", key)}
    done = set()
    for name, ours, expected in (*_mel(golden, about), *_pixels(golden)):
        done.add(name)
        yield name, ours, expected
    assert wanted <= done, sorted(wanted - done)


def _mel(golden: dict[str, Tensor], about: dict[str, Any]) -> Quantities:
    _, ((seconds, rate),) = stated(about["wave16k_recipe"].replace(" ", ""))
    wave = recipes.wave(seconds, rate, stated(about["wave16k_recipe"])[0][0])
    yield "wave16k_first64", wave[:64], golden["wave16k_first64"]
    segments, front = audio_segments(wave), SyncMel()
    yield "sync_n_segments_8s", integers(len(segments)), integers(about["sync_n_segments_8s"])
    assert window_segments(seconds) == list(range(len(segments)))
    mel = front(segments)
    yield "sync_mel_first4", mel[:4], golden["sync_mel_first4"]
    yield "sync_mel_segment_mean", mel.mean((1, 2)), golden["sync_mel_segment_mean"]
    yield "sync_mel_segment_std", mel.std((1, 2)), golden["sync_mel_segment_std"]
    yield "sync_mel_filterbank_sum_per_mel", front.basis.sum(1), golden["sync_mel_filterbank_sum_per_mel"]
    padded = int((mel == mel[0, 0, -1]).all((0, 1)).sum())  # frames that are the same in every band
    yield (
        "sync_mel_frames_before_pad",
        integers(MEL_FRAMES - padded),
        integers(about["sync_mel_frames_before_pad"]),
    )


def _pixels(golden: dict[str, Tensor]) -> Quantities:
    video = recipes.video_u8(4, 48, 72)
    yield "video_u8_4x48x72", video, golden["video_u8_4x48x72"]
    cut = [torch.from_numpy(resize_short(frame.movedim(0, -1).numpy(), 32, crop=True)) for frame in video]
    yield "video_sync_transform_size32", sync_pixels(torch.stack(cut)), golden["video_sync_transform_size32"]
    whole = torch.from_numpy(resize_short(video[0].movedim(0, -1).contiguous().numpy(), 224, crop=False))
    yield (
        "video_upscaled_224_u8_every8",
        whole.movedim(-1, 0)[None, :, ::8, ::8],
        golden["video_upscaled_224_u8_every8"],
    )


CHECKS: dict[str, Callable[[Path], Quantities]] = {
    "scorers_synchformer.safetensors": synchformer,
    "scorers_synchformer_keys.json": keys,
    "scorers_frontends.safetensors": frontends,
}
