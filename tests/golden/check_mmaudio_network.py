"""Golden checks of MMAudio's flow network: blocks, flows, guidance, solver, one training step with gradients.

Integration, guidance and interpolation are those of `flow/convention.py`. Files at real size name their
inputs, the tiny and micro ones carry them; sizes come from a file's metadata, else from the variant in its
name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from foleypref.flow import convention as flow
from foleypref.flow.convention import Latents
from foleypref.networks.mmaudio import (
    VARIANTS,
    Features,
    MMAudio,
    sequence_lengths,
    stretch_index,
    time_frequencies,
)
from foleypref.networks.mmaudio_blocks import rotation_table
from foleypref.published.mmaudio_parts import LatentStatistics
from tests.golden import recipes

Quantities = Iterator[tuple[str, Tensor, Tensor]]
CPU = torch.device("cpu")
INPUTS = ("in.", "train.t", "train.x0", "train.a_mean", "train.a_std", "train.a_randn")
INFORMATIVE = (
    "out.flow_bf16",
    "out.euler4_bf16",
    "out.t_embed_bf16",
)  # the official rounding, which is not ours


class Golden(dict[str, Tensor]):
    """Tensors of a file and the network they speak of; lists which have been compared."""

    def __init__(self, path: Path) -> None:
        with safe_open(path, "pt") as file:
            super().__init__({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118
            self.metadata: dict[str, str] = file.metadata() or {}
        self.config: dict[str, int] = json.loads(self.metadata["config"])
        self.network = filled(network_arguments(self.config))

    def features(self, suffix: str = "") -> Features:
        """Return the stored inputs as features."""
        return Features(*(self[f"in.{name}_f{suffix}"] for name in ("clip", "sync", "text")))

    def null(self, batch: int) -> Features:
        """The network's null features at the file's lengths."""
        return self.network.null_features(batch, self.config["clip_seq_len"], self.config["sync_seq_len"])


def network_arguments(config: dict[str, Any]) -> dict[str, Any]:
    """Constructor arguments from a file's `config`."""
    plain = {key: value for key, value in config.items() if not key.endswith("_seq_len")}
    return plain | {"text_len": config["text_seq_len"]}


def filled(arguments: dict[str, Any], v2: bool | None = None) -> MMAudio:
    """A network with weights by rule W1."""
    with torch.device("meta"):
        network = MMAudio(**(arguments if v2 is None else arguments | {"v2": v2}))
    state = {key: recipes.mmaudio_weight(key, value.shape) for key, value in network.state_dict().items()}
    network.load_state_dict(state, assign=True)
    return network


def record(network: nn.Module, names: dict[str, str], run: Callable[[], Any]) -> tuple[Any, dict[str, Any]]:
    """Return the result of `run` and the outputs of submodules (our name -> module) while it ran."""
    outputs: dict[str, Any] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda _module, _inputs, output: outputs.__setitem__(name, output)

    handles = [network.get_submodule(path).register_forward_hook(keep(name)) for name, path in names.items()]
    try:
        return run(), outputs
    finally:
        for handle in handles:
            handle.remove()


def predict(golden: Golden, features: Features, latent: Tensor, t: Tensor) -> Tensor:
    """One velocity, conditions and all."""
    return golden.network(latent, t, golden.network.prepare(*features))


def small(path: Path) -> Quantities:
    """Everything in a tiny or micro file, and that nothing in it was left out."""
    golden, seen = Golden(path), set()
    with torch.no_grad():
        parts = [
            weights(golden),
            tables(golden),
            blocks(golden),
            flows(golden),
            guided(golden),
            solved(golden),
        ]
        for part in parts:
            for name, ours, expected in part:
                seen.add(name)
                yield name, ours, expected
    for name, ours, expected in training_step(golden):
        seen.add(name)
        yield name, ours, expected
    left = [
        key for key in golden if key not in seen and not key.startswith(INPUTS) and key not in INFORMATIVE
    ]
    yield "quantities left out", torch.tensor(len(left)), torch.tensor(0)


def weights(golden: Golden) -> Quantities:
    """The state dict that a micro file carries is what rule W1 makes."""
    for key, value in golden.network.state_dict().items():
        if f"sd.{key}" in golden:
            yield f"sd.{key}", value, golden[f"sd.{key}"]


def tables(golden: Golden) -> Quantities:
    """Rotations as 2 x 2 matrices, frequencies of the timestep embedding."""
    c, network = golden.config, golden.network
    latent, clip = c["latent_seq_len"], c["clip_seq_len"]
    long_latent, long_clip, _ = json.loads(golden.metadata["long_lens"])
    yield "rot.latent", _matrices(latent, network.head_dim, 1.0), golden["rot.latent"]
    yield "rot.clip", _matrices(clip, network.head_dim, latent / clip), golden["rot.clip"]
    yield (
        "rot.clip_long",
        _matrices(long_clip, network.head_dim, long_latent / long_clip),
        golden["rot.clip_long"],
    )
    embed = network.t_embed
    ours = time_frequencies(embed.frequency_dim, embed.multiplier, CPU)
    yield "t_embed.freqs", ours, golden["t_embed.freqs"]


def _matrices(length: int, dim: int, scale: float) -> Tensor:
    cos, sin = rotation_table(length, dim, scale, CPU).unbind(-1)
    rows = torch.stack([cos, -sin], dim=-1), torch.stack([sin, cos], dim=-1)
    return torch.stack(rows, dim=-2)[None]  # (1, N, d / 2, 2, 2)


def blocks(golden: Golden) -> Quantities:
    """Projected conditions, null ones too, and every block's output."""
    network, latent = golden.network, golden["in.latent"]
    joint, fused = len(network.joint_blocks), len(network.fused_blocks)
    names = {
        "clip_f_c": "clip_cond_proj",
        "text_f_c": "text_cond_proj",
        "mid.global_cond_mlp": "global_cond_mlp",
    }
    names |= {"mid.t_embed": "t_embed", "mid.audio_input_proj": "audio_input_proj"}
    names |= {f"joint{i}": f"joint_blocks.{i}" for i in range(joint)}
    names |= {f"mid.fused{i}": f"fused_blocks.{i}" for i in range(fused)}
    for prefix, features in (("empty", golden.null(1)), ("pre", golden.features())):
        prepared, inside = record(network, names, lambda f=features: network.prepare(*f))
        stretched = prepared["sync"][:, stretch_index(prepared["sync"].shape[1], latent.shape[1])]
        for name, ours in {**prepared, "sync": stretched}.items():
            if name == "global":
                continue
            yield f"{prefix}.{name}_f", ours, golden[f"{prefix}.{name}_f"]
        for name in ("clip_f_c", "text_f_c"):
            yield f"{prefix}.{name}", inside[name], golden[f"{prefix}.{name}"]
    yield "mid.global_cond_mlp", inside["mid.global_cond_mlp"], golden["mid.global_cond_mlp"]
    velocity, inside = record(network, names, lambda: network(latent, golden["in.t"], prepared))
    for i in range(joint):
        for stream, ours in zip(("latent", "clip", "text"), inside[f"joint{i}"], strict=True):
            yield f"mid.joint{i}.{stream}", ours, golden[f"mid.joint{i}.{stream}"]
    for name in ("mid.t_embed", "mid.audio_input_proj", *(f"mid.fused{i}" for i in range(fused))):
        yield name, inside[name], golden[name]
    yield "out.flow", velocity, golden["out.flow"]


def flows(golden: Golden) -> Quantities:
    """Every combination of null conditions, another prompt, a single row, another length."""
    given, null, t = golden.features(), golden.null(2), golden["in.t"]
    cases = {
        "empty": null,
        "null_clip": given._replace(clip=null.clip),
        "null_video": given._replace(clip=null.clip, sync=null.sync),
        "null_text": given._replace(text=null.text),
        "neg": null._replace(text=golden["in.neg_text_f"]),
    }
    for name, features in cases.items():
        yield (
            f"out.flow_{name}",
            predict(golden, features, golden["in.latent"], t),
            golden[f"out.flow_{name}"],
        )
    single = Features(*(feature[:1] for feature in given))
    yield "out.flow_b1", predict(golden, single, golden["in.latent"][:1], t[:1]), golden["out.flow_b1"]
    yield (
        "out.flow_long",
        predict(golden, golden.features("_long"), golden["in.latent_long"], t),
        golden["out.flow_long"],
    )


def guided_velocity(golden: Golden, scale: float, negative: Tensor | None = None) -> flow.VelocityFn:
    """Guidance as the official code has it: from strength 1 on; below, only the conditional velocity."""
    network = golden.network
    given, null = golden.features(), golden.null(2)
    if negative is not None:
        null = null._replace(text=negative)
    halves = (network.prepare(*given), network.prepare(*null))
    both = {key: torch.cat([half[key] for half in halves]) for key in halves[0]}

    def velocity(x: Latents, t: Tensor) -> Latents:
        if scale < 1:
            return {"audio": network(x["audio"], t, halves[0])}
        v = network(x["audio"], t, both)
        conditional, unconditional = v.chunk(2)
        return flow.guide({"audio": conditional}, {"audio": unconditional}, scale)

    return velocity


def guided(golden: Golden) -> Quantities:
    """Guidance at t = 0.3, both sides of strength 1, with a negative prompt."""
    x, t = {"audio": golden["in.latent"]}, torch.full((2,), 0.3)
    for scale in (4.5, 1.0, 0.5):
        yield f"out.cfg_{scale}", guided_velocity(golden, scale)(x, t)["audio"], golden[f"out.cfg_{scale}"]
    ours = guided_velocity(golden, 4.5, golden["in.neg_text_f"])(x, t)["audio"]
    yield "out.cfg_4.5_neg", ours, golden["out.cfg_4.5_neg"]


def statistics_of(network: MMAudio) -> LatentStatistics:
    """The latent statistics that a checkpoint carries."""
    return LatentStatistics(network.latent_mean, network.latent_std)


def solved(golden: Golden) -> Quantities:
    """Euler from noise to data and back, before and after un-normalising."""
    velocity = guided_velocity(golden, 4.5)
    path: list[Tensor] = []

    def watched(x: Latents, t: Tensor) -> Latents:
        path.append(x["audio"])
        return velocity(x, t)

    def backwards(x: Latents, t: Tensor) -> Latents:
        return {"audio": -velocity(x, 1 - t)["audio"]}

    ours = {
        "4": flow.integrate(watched, {"audio": golden["in.x0"]}, 4)["audio"],
        "25": flow.integrate(velocity, {"audio": golden["in.x0"]}, 25)["audio"],
    }
    yield "out.euler4_traj", torch.stack([*path, ours["4"]]), golden["out.euler4_traj"]
    for name, latents in ours.items():
        yield f"out.euler{name}", latents, golden[f"out.euler{name}"]
        unnormalised = statistics_of(golden.network).unnormalise(latents)
        yield f"out.euler{name}_unnorm", unnormalised, golden[f"out.euler{name}_unnorm"]
    prior = flow.integrate(backwards, {"audio": golden["out.euler25"]}, 4)["audio"]
    yield "out.euler4_to_prior", prior, golden["out.euler4_to_prior"]


def training_step(golden: Golden) -> Quantities:
    """Flow matching with the stored draws: data, path, velocity, loss and gradients."""
    network = golden.network
    network.zero_grad(set_to_none=True)
    given, t = golden.features(), golden["train.t"]
    present = {
        key: 1.0
        - torch.tensor(json.loads(golden.metadata[key.replace("has", "null")]), dtype=torch.float32)[:, None]
        for key in ("has_video", "has_text")
    }
    drawn = golden["train.a_mean"] + golden["train.a_std"] * golden["train.a_randn"]
    x1, x0 = {"audio": statistics_of(network).normalise(drawn)}, {"audio": golden["train.x0"]}
    x_t = flow.interpolate(x0, x1, t)["audio"]
    velocity = network(x_t, t, {**given._asdict(), **present})
    loss = flow.squared_error(velocity, flow.target_velocity(x0, x1)["audio"])
    loss.mean().backward()
    yield "train.x1", x1["audio"], golden["train.x1"]
    yield "train.xt", x_t, golden["train.xt"]
    yield "train.pred_v", velocity, golden["train.pred_v"]
    yield "train.loss", loss, golden["train.loss"]
    gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    for key in (key for key in golden if key.startswith("grad.") and key != "grad.norms"):
        yield key, gradients[key.removeprefix("grad.")], golden[key]
    names: list[str] = json.loads(golden.metadata["grad_norm_names"])
    assert set(names) == set(gradients), "other parameters are trained"
    yield "grad.norms", torch.stack([gradients[name].double().norm() for name in names]), golden["grad.norms"]


def real(path: Path) -> Quantities:
    """One velocity at real size, given and null conditions; inputs by rule I1, named after the variant."""
    variant = path.stem.removeprefix("mmaudio_real_")
    with safe_open(path, "pt") as file:
        golden = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata = file.metadata() or {}
    if variant in VARIANTS:
        rate = 16000 if variant.endswith("16k") else 44100
        latent_len, clip_len, sync_len, _ = sequence_lengths(8.0, rate)
        arguments, text_len = VARIANTS[variant], 77
    else:
        config = json.loads(metadata["config"])
        latent_len, clip_len, sync_len, text_len = (
            config[f"{name}_seq_len"] for name in ("latent", "clip", "sync", "text")
        )
        arguments = network_arguments(config)
    network = filled(arguments)
    dims = [getattr(network, f"empty_{name}_feat").shape[-1] for name in ("clip", "sync", "string")]
    unit = float(torch.tensor(1024**-0.5, dtype=torch.float32))
    given = Features(
        recipes.mmaudio_input(f"clip_f_{variant}", (1, clip_len, dims[0]), unit),
        recipes.mmaudio_input(f"sync_f_{variant}", (1, sync_len, dims[1])),
        recipes.mmaudio_input(f"text_f_{variant}", (1, text_len, dims[2]), unit),
    )
    latent = recipes.mmaudio_input(f"latent_{variant}", (1, latent_len, network.latent_mean.shape[-1]))
    null = network.null_features(1, clip_len, sync_len)
    with torch.no_grad():
        for name, features in (("out.flow", given), ("out.flow_empty", null)):
            prepared = network.prepare(*features)
            yield name, network(latent, golden["in.t"].reshape(1), prepared), golden[name]


def keys(path: Path) -> Quantities:
    """Names, shapes, trained and frozen entries of a released network."""
    listed = json.loads(path.read_text())
    with torch.device("meta"):
        network = MMAudio(**VARIANTS[path.stem.removeprefix("mmaudio_keys_")])
    state = network.state_dict()
    yield "keys", *_texts(shapes_of(state), {key: tuple(value[0]) for key, value in listed["keys"].items()})
    frozen = {key: () for key in state if key not in dict(network.named_parameters())}
    yield "frozen", *_texts(frozen, dict.fromkeys(listed["frozen"], ()))
    yield "n_keys", torch.tensor(len(state)), torch.tensor(listed["n_keys"])
    count = sum(value.numel() for value in state.values())
    yield "n_elements", torch.tensor(count), torch.tensor(listed["n_elements"])


def tiny_keys(path: Path) -> Quantities:
    """Names, shapes and check sums of the tiny networks."""
    listed = json.loads(path.read_text())
    for name, expected in listed["keys"].items():
        state = filled(network_arguments(listed["config"]), v2=name == "v2").state_dict()
        yield (
            f"{name} keys",
            *_texts(shapes_of(state), {key: tuple(value[0]) for key, value in expected.items()}),
        )
        sums = {key: (value.double().sum(), value.double().abs().sum()) for key, value in state.items()}
        ours = torch.tensor([sums[key] for key in sorted(sums)])
        theirs = listed["checksums_sum_abssum"][name]
        yield f"{name} sums", ours, torch.tensor([theirs[key] for key in sorted(theirs)], dtype=ours.dtype)


def shapes_of(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor by key."""
    return {key: tuple(value.shape) for key, value in state.items()}


def _texts(ours: dict[str, tuple[int, ...]], listed: dict[str, tuple[int, ...]]) -> tuple[Tensor, Tensor]:
    """Two listings as bytes, so that they compare as integers do: exactly."""
    first, second = (
        torch.tensor(list("\n".join(sorted(f"{key} {list(shape)}" for key, shape in each.items())).encode()))
        for each in (ours, listed)
    )
    return first, second


def sequence_config(path: Path) -> Quantities:
    """Lengths of 19 durations at both rates."""
    for rate, duration, *expected in json.loads(path.read_text())["rows"]:
        yield (
            f"{duration} s at {rate}",
            torch.tensor(sequence_lengths(duration, rate)),
            torch.tensor(expected),
        )


def sync_index(path: Path) -> Quantities:
    """Which sync token each latent frame gets."""
    for name, expected in json.loads(path.read_text()).items():
        sync_len, latent_len = map(int, name.split("->"))
        yield name, stretch_index(sync_len, latent_len), torch.tensor(expected)


CHECKS: dict[str, Callable[[Path], Quantities]] = {
    "mmaudio_tiny_v*.safetensors": small,
    "mmaudio_micro_v*.safetensors": small,
    "mmaudio_real_*.safetensors": real,
    "mmaudio_tiny_keys.json": tiny_keys,
    "mmaudio_keys_small_*.json": keys,
    "mmaudio_keys_medium_*.json": keys,
    "mmaudio_keys_large_*.json": keys,
    "mmaudio_sequence_config.json": sequence_config,
    "mmaudio_sync_upsample_index.json": sync_index,
}
