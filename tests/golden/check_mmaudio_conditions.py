"""Golden checks of what MMAudio is conditioned on: frame rules, resizing, CLIP, Synchformer's visual branch.

Vectors at real size have the same form as the tiny ones; sizes come from metadata, else from the file's name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from foleypref.media.decoding import FramePicker
from foleypref.media.frame_rules import (
    CLIP_FPS,
    SYNC_FPS,
    FirstAtOrAfter,
    clip_frame,
    shortened,
    sync_frame,
)
from foleypref.networks.synchformer_visual import PREFIX, SynchformerVisual, sync_pixels, visual_weights
from foleypref.published.clip import ClipEncoders, ClipSizes, load_clip
from foleypref.published.clip_tokens import clip_tokenizer
from tests.golden import recipes
from tests.golden.compare import texts

Quantities = Iterator[tuple[str, Tensor, Tensor]]


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file."""
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118


# -- Synchformer -----------------------------------------------------------------------------------------


def synchformer_state(network: SynchformerVisual) -> dict[str, Tensor]:
    """Rule W1 under the official keys of the whole Synchformer file."""
    return {
        PREFIX + key: recipes.mmaudio_weight(PREFIX + key, value.shape)
        for key, value in network.state_dict().items()
    }


def recorded(network: SynchformerVisual, run: Callable[[], Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the result of `run` and the outputs of the parts named in the file, tokens before width."""
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda _module, _inputs, output: seen.__setitem__(name, output)

    parts: dict[str, nn.Module] = {"patch_embed_3d": network.patch_embed_3d.proj, "norm": network.norm}
    for index, block in enumerate(network.blocks):
        parts |= {f"block{index}": block}
        parts |= {f"block{index}.{name}": block.get_submodule(name) for name in ("attn", "timeattn")}
    handles = [part.register_forward_hook(keep(name)) for name, part in parts.items()]
    try:
        out = run()
    finally:
        for handle in handles:
            handle.remove()
    return out, seen | {"patch_embed_3d": seen["patch_embed_3d"].flatten(2).transpose(1, 2)}


@torch.no_grad()
def synchformer(path: Path) -> Quantities:
    """One segment with its inner parts (a corner of each), and overlapping segments laid end to end."""
    golden, about = read(path)
    tiny = "tiny" in path.stem
    sizes = [int(n) for n in re.findall(r"\d+", about.get("config", ""))] or (
        [48, 2, 4] if tiny else [768, 12, 12]
    )
    name = "sync_video_tiny" if tiny else "sync_video_real"
    shape = (1, 40 if tiny else 32, 3, 224, 224)
    if stated := re.search(r"name (\w+) shape \(([\d, ]+)\)", about.get("input", "")):
        name, shape = stated[1], tuple(int(n) for n in stated[2].split(","))  # type: ignore[assignment]
    network = SynchformerVisual(*sizes).eval()
    network.load_state_dict(visual_weights(synchformer_state(network)))
    video = recipes.mmaudio_input(name, shape, 0.5).clamp(-1, 1)
    if "in.video_slice" in golden:
        yield "in.video_slice", video[0, :, :, ::56, ::56], golden["in.video_slice"]
    segment, seen = recorded(network, lambda: network.segment(video[:, :16]))
    yield "out.segment0", segment[:, None], golden["out.segment0"]
    for key in (key for key in golden if key.startswith("mid.")):
        expected = golden[key]
        yield key, seen[key.removeprefix("mid.")][:1, : expected.shape[1], : expected.shape[2]], expected
    yield "out.features", network(video, segments_at_once=2), golden["out.features"]


@torch.no_grad()
def scorer_visual(path: Path) -> Quantities:
    """The visual half of the Synchformer score at full size, every 8th or 32nd channel: the same network."""
    golden, _ = read(path)
    network = SynchformerVisual().eval()
    weights = {PREFIX + key: value for key, value in network.state_dict().items()}
    short = sync_pixels(recipes.video_u8(16, 224, 224, seed=23).movedim(1, -1))[None]
    for rule in ("A", "B"):
        network.load_state_dict(visual_weights(recipes.scorer_weights(weights, rule)))
        yield f"{rule}_vfeats", network.segments(short)[..., ::8], golden[f"{rule}_vfeats"]
    long = sync_pixels(recipes.video_u8(200, 224, 224, seed=25).movedim(1, -1))[None]
    yield "e2e_B_vfeats_s8", network.segments(long)[..., ::32], golden["e2e_B_vfeats_s8"]


def synchformer_keys(path: Path) -> Quantities:
    """Names and shapes of the official file."""
    listed = json.loads(path.read_text())
    with torch.device("meta"):
        state = SynchformerVisual().state_dict()
    ours = {PREFIX + key: list(value.shape) for key, value in state.items()}
    yield "keys", *texts(ours, {key: shape for key, (shape, _) in listed["keys"].items()})
    yield "n_keys", torch.tensor(len(ours)), torch.tensor(listed["n_keys"])
    total = sum(value.numel() for value in state.values())
    yield "n_elements", torch.tensor(total), torch.tensor(listed["n_elements"])


# -- CLIP ------------------------------------------------------------------------------------------------


def open_clip_shapes(sizes: ClipSizes) -> dict[str, tuple[int, ...]]:
    """Names and shapes of an OpenCLIP file of these sizes."""
    places = (sizes.image_size // sizes.patch_size) ** 2 + 1
    text, image = sizes.text_width, sizes.image_width
    shapes: dict[str, tuple[int, ...]] = {
        "positional_embedding": (sizes.num_tokens, text),
        "text_projection": (text, sizes.embed_dim),
        "logit_scale": (),
        "token_embedding.weight": (sizes.vocab_size, text),
        "visual.class_embedding": (image,),
        "visual.positional_embedding": (places, image),
        "visual.proj": (image, sizes.embed_dim),
        "visual.conv1.weight": (image, 3, sizes.patch_size, sizes.patch_size),
    }
    norms = {"ln_final": text, "visual.ln_pre": image, "visual.ln_post": image}
    for tower, width, depth in (("", text, sizes.text_depth), ("visual.", image, sizes.image_depth)):
        for block in (f"{tower}transformer.resblocks.{index}." for index in range(depth)):
            norms |= {f"{block}ln_1": width, f"{block}ln_2": width}
            shapes |= {f"{block}attn.in_proj_weight": (3 * width, width)}
            shapes |= {f"{block}attn.in_proj_bias": (3 * width,)}
            linears = {"attn.out_proj": (width, width), "mlp.c_fc": (4 * width, width)}
            for name, shape in (linears | {"mlp.c_proj": (width, 4 * width)}).items():
                shapes |= {f"{block}{name}.weight": shape, f"{block}{name}.bias": shape[:1]}
    for name, width in norms.items():
        shapes |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    return shapes


def clip_of(about: dict[str, str]) -> tuple[ClipEncoders, dict[str, Any]]:
    """The CLIP whose configuration a golden file states, filled by rule W1, and that configuration."""
    config = json.loads(about["config"])
    sizes = ClipSizes(
        image_size=config["image_size"] // config["patch"] * config["patch"],  # what the patches reach
        patch_size=config["patch"],
        image_width=config["vwidth"],
        image_depth=config["vlayers"],
        image_heads=config["vwidth"] // config["head_width"],
        text_width=config["twidth"],
        text_depth=config["tlayers"],
        text_heads=config["theads"],
        embed_dim=config["embed_dim"],
        num_tokens=config["tctx"],
        vocab_size=config["vocab"],
    )
    shapes = open_clip_shapes(sizes)
    assert set(shapes) == set(json.loads(about["keys"]))
    state = {key: recipes.mmaudio_weight(key, shape) for key, shape in shapes.items()}
    return load_clip(state, sizes), config


@torch.no_grad()
def clip(path: Path) -> Quantities:
    """All text states and image vectors, normalised and not; images larger than the patches reach."""
    golden, about = read(path)
    encoders, _ = clip_of(about)
    yield "out.text", encoders.encode_text(golden["ids"]), golden["out.text"]
    raw = golden["out.text_unnormalized"]
    yield "out.text_unnormalized", encoders.encode_text(golden["ids"], normalize=False)[: len(raw)], raw
    yield "out.img", encoders.encode_image(golden["in.img"]), golden["out.img"]
    vectors = encoders.encode_image(golden["in.img"], normalize=False)
    yield "out.img_unnormalized", vectors, golden["out.img_unnormalized"]


def clip_keys(path: Path) -> Quantities:
    """The official names and shapes are taken as they are, every one of them, and nothing else is wanted."""
    listed = json.loads(path.read_text())
    shapes = {key: shape for key, (shape, _) in listed["keys"].items()}
    yield "keys", *texts(open_clip_shapes(ClipSizes()), shapes)
    encoders = load_clip({key: torch.empty(shape, device="meta") for key, shape in shapes.items()})
    left_out = shapes["text_projection"][0] * shapes["text_projection"][1] + 1  # and the logit scale
    total = sum(value.numel() for value in encoders.state_dict().values()) + left_out
    yield "n_elements", torch.tensor(total), torch.tensor(listed["n_elements"])


def clip_tokens(path: Path) -> Quantities:
    """Token ids of eight prompts."""
    golden = json.loads(path.read_text())
    for prompt, ours, expected in zip(golden["prompts"], clip_tokenizer()(golden["prompts"]), golden["ids"]):
        yield f"ids of {prompt[:30]!r}", ours, torch.tensor(expected)


# -- frames ----------------------------------------------------------------------------------------------


def frame_index(path: Path) -> Quantities:
    """The frames that the "demo" rule picks, and the remaining duration and lengths of both streams."""
    for name, case in json.loads(path.read_text()).items():
        if "fps" not in case:  # the 72 frames at 24 fps again, with 8 s asked for
            source, end_s, expected = json.loads(path.read_text())["24"], 8.0, case
        else:
            source, end_s, expected = case, case["end_sec"], case["load_video"]
        rate = Fraction(source["fps"])
        picked = []
        for fps in (CLIP_FPS, SYNC_FPS):
            picker = FirstAtOrAfter(fps, end_s, lambda frame, _: frame)
            for index in range(source["n_frames"]):
                picker.push(index, index / rate)
            picked.append(picker.frames)
        covered = shortened(end_s, len(picked[0]), len(picked[1]), "demo")
        if "fps" in case:
            yield f"{name} clip_idx", torch.tensor(picked[0]), torch.tensor(case["clip_idx"])
            yield f"{name} sync_idx", torch.tensor(picked[1]), torch.tensor(case["sync_idx"])
        exact = torch.float64
        yield f"{name} duration", *(torch.tensor(x, dtype=exact) for x in (covered, expected["duration"]))
        lengths = [int(CLIP_FPS * covered), int(SYNC_FPS * covered)]
        expected_lengths = [expected["clip"][0], expected["sync"][0]]
        yield f"{name} lengths", torch.tensor(lengths), torch.tensor(expected_lengths)


def filter_frames(path: Path) -> Quantities:
    """Which frames ffmpeg's `fps` filter picks: the "training" rule."""
    for name, case in json.loads(path.read_text())["cases"].items():
        rate, total = re.fullmatch(r"([\d/]+)fps_(\d+)frames", name).groups()  # type: ignore[union-attr]
        seconds = int(int(total) / Fraction(rate))
        for fps, key in ((0.5, "at_0.5"), (25, "at_25")):
            picker = FramePicker(fps, seconds, lambda frame, _: frame.index)
            for index in range(int(total)):
                time = index / Fraction(rate)
                picker.push(SimpleNamespace(index=index, duration=1, time_base=1 / Fraction(rate)), time)
            picker.finish()
            yield f"{name} {key}", torch.tensor(picker.frames), torch.tensor(case[key])


def resize(path: Path) -> Quantities:
    """Both resizes, bit for bit: every third pixel of 384x384, and the 224x224 centre crop."""
    golden, _ = read(path)
    big = golden["big.base"][0].repeat_interleave(10, 0).repeat_interleave(10, 1)[:480, :640]
    sources = {"big": big} | {name: golden[f"{name}.in"][0].permute(1, 2, 0) for name in ("tall", "wide")}
    for name, pixels in sources.items():
        for key, frame, step in (("clip_u8", clip_frame, 3), ("sync_u8", sync_frame, 1)):
            ours = torch.from_numpy(frame(pixels.contiguous().numpy()))
            yield f"{name}.{key}", ours.permute(2, 0, 1)[None, :, ::step, ::step], golden[f"{name}.{key}"]


CHECKS: dict[str, Callable[[Path], Quantities]] = {
    "mmaudio_synchformer_*.safetensors": synchformer,
    "mmaudio_keys_synchformer_visual.json": synchformer_keys,
    "mmaudio_clip_tiny.safetensors": clip,
    "mmaudio_keys_clip_vit_h14_378.json": clip_keys,
    "mmaudio_clip_tokens.json": clip_tokens,
    "mmaudio_preprocess_frame_index.json": frame_index,
    "mmaudio_preprocess_resize.safetensors": resize,
    "scorers_fps_frames.json": filter_frames,
    "scorers_synchformer.safetensors": scorer_visual,
}
