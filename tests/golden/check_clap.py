"""Golden checks of LAION-CLAP: front end, HTSAT towers of both sizes, projected embeddings, names of weights.

Weights are rule B by official key; the text tower has no vectors, so it is kept tiny and not looked at.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from foleypref.published.clap import AUDIO, SAMPLE_RATE, build_clap, ten_seconds
from foleypref.published.filling import rename
from foleypref.published.htsat import TOWER_NAMES
from tests.golden import recipes
from tests.golden.compare import texts

Quantities = Iterator[tuple[str, Tensor, Tensor]]

SIZES = {"base": (128, (2, 2, 12, 2), (4, 8, 16, 32)), "tiny": (96, (2, 2, 6, 2), (4, 8, 16, 32))}
JOINT, TEXT_WIDTH, POSITIONS = 512, 64, 80
VERDICTS = {  # of the run that made the file: what they compare is compared here by itself
    "missing_in_conversion",
    "n_missing",
    "unexpected",
    "shape_mismatch",
    "mel_maxdiff_hf_vs_torchlibrosa_dB",
    "embedding_maxdiff_same_mel",
    "final_embed_cosine_hf_pipeline_vs_laion",
}


def htsat_shapes(width: int, depths: tuple[int, ...], heads: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of an official audio tower."""
    shapes: dict[str, tuple[int, ...]] = {
        "spectrogram_extractor.stft.conv_real.weight": (513, 1, 1024),
        "spectrogram_extractor.stft.conv_imag.weight": (513, 1, 1024),
        "logmel_extractor.melW": (513, 64),
        "bn0.num_batches_tracked": (),
        "patch_embed.proj.weight": (width, 1, 4, 4),
        "patch_embed.proj.bias": (width,),
    }
    shapes |= {f"bn0.{name}": (64,) for name in ("weight", "bias", "running_mean", "running_var")}
    shapes |= _norm("patch_embed.norm", width)
    for stage, (depth, count) in enumerate(zip(depths, heads)):
        wide = width * 2**stage
        side = 64 // 2**stage  # windows of 8 x 8 tokens
        for block in range(depth):
            place = f"layers.{stage}.blocks.{block}"
            shapes |= _block(place, wide, count)
            if block % 2 and side > 8:
                shapes[f"{place}.attn_mask"] = ((side // 8) ** 2, 64, 64)
        if stage < len(depths) - 1:
            place = f"layers.{stage}.downsample"
            shapes |= {f"{place}.reduction.weight": (2 * wide, 4 * wide)} | _norm(f"{place}.norm", 4 * wide)
    shapes |= _norm("norm", wide)
    return shapes | {
        "tscam_conv.weight": (527, wide, 2, 3),
        "tscam_conv.bias": (527,),
        **_linear("head", 527, 527),
    }


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _linear(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _block(place: str, width: int, heads: int) -> dict[str, tuple[int, ...]]:
    layers = {"attn.qkv": (1, 3), "attn.proj": (1, 1), "mlp.fc1": (1, 4), "mlp.fc2": (4, 1)}
    shapes: dict[str, tuple[int, ...]] = {
        f"{place}.attn.relative_position_bias_table": (225, heads),
        f"{place}.attn.relative_position_index": (64, 64),
    }
    for name, (inputs, outputs) in layers.items():
        shapes |= _linear(f"{place}.{name}", inputs * width, outputs * width)
    return shapes | _norm(f"{place}.norm1", width) | _norm(f"{place}.norm2", width)


def text_shapes(vocabulary: int, width: int = TEXT_WIDTH, layers: int = 1) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a small RoBERTa, as the official file has them below `text_branch.`."""
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (vocabulary, width),
        "embeddings.position_embeddings.weight": (POSITIONS, width),
        "embeddings.token_type_embeddings.weight": (1, width),
        **_norm("embeddings.LayerNorm", width),
        **_linear("pooler.dense", width, width),
    }
    for layer in range(layers):
        place = f"encoder.layer.{layer}"
        for name in ("query", "key", "value"):
            shapes |= _linear(f"{place}.attention.self.{name}", width, width)
        shapes |= _linear(f"{place}.attention.output.dense", width, width)
        shapes |= _linear(f"{place}.intermediate.dense", width, 2 * width)
        shapes |= _linear(f"{place}.output.dense", 2 * width, width)
        shapes |= _norm(f"{place}.attention.output.LayerNorm", width)
        shapes |= _norm(f"{place}.output.LayerNorm", width)
    return shapes


def relative_positions(side: int = 8) -> Tensor:
    """Where in the table of biases two places of a window look: row offset, then column offset."""
    rows, columns = torch.arange(side**2) // side, torch.arange(side**2) % side
    down, right = (x[:, None] - x[None] + side - 1 for x in (rows, columns))
    return down * (2 * side - 1) + right


def official_state(
    width: int, depths: tuple[int, ...], heads: tuple[int, ...], vocabulary: int = 11, device: str = "cpu"
) -> dict[str, Tensor]:
    """Rule B under the names of a whole official file; tables of positions are what they always are."""
    shapes = {AUDIO + name: shape for name, shape in htsat_shapes(width, depths, heads).items()}
    shapes |= {f"text_branch.{name}": shape for name, shape in text_shapes(vocabulary).items()}
    for tower, inputs in (("audio", width * 2 ** (len(depths) - 1)), ("text", TEXT_WIDTH)):
        shapes |= _linear(f"{tower}_projection.0", inputs, JOINT) | _linear(
            f"{tower}_projection.2", JOINT, JOINT
        )
    shapes |= {
        "logit_scale_a": (),
        "logit_scale_t": (),
        **_linear("audio_transform.sequential.0", JOINT, JOINT),
    }
    state = {name: torch.zeros(shape, device=device) for name, shape in shapes.items()}
    if device != "meta":
        state = recipes.scorer_weights(state, "B")
    tables = {name: relative_positions() for name in state if name.endswith("relative_position_index")}
    return state | tables | {f"{AUDIO}bn0.num_batches_tracked": torch.tensor(0)}


def waves() -> Tensor:
    """The two inputs, 8 s filled up to 10 s."""
    sounds = (recipes.wave(8, SAMPLE_RATE, 120), recipes.wave(8, SAMPLE_RATE, 121, f0=1760))
    return torch.stack([ten_seconds(sound) for sound in sounds])


@torch.no_grad()
def clap(path: Path) -> Quantities:
    """Front end (every 8th frame), pooled embedding, and the projected one of length 1; both sizes."""
    golden = load_file(path)
    cases = json.loads(path.with_suffix(".json").read_text())["cases"]
    for size, config in SIZES.items():
        model = build_clap(official_state(*config))
        mel = model.mel(waves())
        pooled = model.model.audio_model(input_features=mel).pooler_output
        vectors = model.embed_audio(waves())
        yield f"{size}_mel", mel[:, 0, ::8], golden.pop(f"{size}_mel_every8")
        yield f"{size}_embedding", pooled, golden.pop(f"{size}_laion_embedding")
        yield f"{size}_projected", vectors, golden.pop(f"{size}_laion_projected_normalised")
        cosine = F.cosine_similarity(vectors[0], vectors[1], dim=0)
        yield f"{size}_cosine", cosine, torch.tensor(cases[size]["inter_sample_cos"])
    assert not golden, f"not checked: {sorted(golden)}"


def clap_keys(path: Path) -> Quantities:
    """Names and shapes of the official towers, all understood; shapes and sizes of ours."""
    about = json.loads(path.read_text())
    yield "base_shapes", *texts(htsat_shapes(*SIZES["base"]), about["base_shapes"])
    for size, config in SIZES.items():
        listed = about["cases"][size]
        shapes = htsat_shapes(*config)
        yield f"{size}_keys", torch.tensor(len(shapes)), torch.tensor(listed.pop("n_laion_keys"))
        empty = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
        _, unknown = rename(empty, TOWER_NAMES)
        yield f"{size}_unknown", torch.tensor(len(unknown)), torch.tensor(0)
        model = build_clap(official_state(*config, device="meta"))
        parameters = sum(x.numel() for x in model.model.audio_model.parameters())
        yield f"{size}_size", torch.tensor(parameters), torch.tensor(listed.pop("n_parameters_audio_tower"))
        mel = torch.tensor(model.mel(waves()).shape)
        for source in ("laion", "hf"):
            yield f"{size}_mel_{source}", mel, torch.tensor(listed.pop(f"mel_shape_{source}"))
        rest = set(listed) - VERDICTS - {"inter_sample_cos", "embedding_absmax"}  # these with the tensors
        assert not rest, f"not checked: {sorted(rest)}"


CHECKS: dict[str, Callable[[Path], Quantities]] = {
    "scorers_clap.safetensors": clap,
    "scorers_clap.json": clap_keys,
}
