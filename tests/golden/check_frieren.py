"""Golden checks of Frieren's flow network: activations, guidance, solvers, losses with gradients, key lists.

Files hold rule a (norm gains near zero: shows a wrong eps) and rule b (shows wrong structure). A file at
released size, `frieren_real`, has the form of the tiny ones with activations thinned out.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from foleypref.flow import convention as flow
from foleypref.flow.convention import Latents
from foleypref.flow.solvers import integrate_dopri5, integrate_released_rk4
from foleypref.networks import frieren as network_file
from foleypref.networks.frieren import Frieren, TimeEmbedder, network_time
from foleypref.networks.frieren_vae import FrierenVAE
from foleypref.published import frieren_parts
from foleypref.published.reading import read_state
from tests.golden.check_frieren_parts import (
    TINY_VAE,
    Quantities,
    all_of,
    autoencoded,
    filled,
    listed,
    shapes_of,
)
from tests.golden.check_mmaudio_audio import record

TINY = {
    "latent_dim": 8, "feature_dim": 24, "context_dim": 48, "hidden_dim": 64, "num_heads": 4, "depth": 2,
    "max_len": 100,
}  # fmt: skip
GUIDANCE = 4.5


def network_of(sizes: dict[str, int], rule: str) -> Frieren:
    """A flow network by a rule, which goes by the names inside estimator and condition stage."""

    def inner(name: str) -> str:
        for prefix in frieren_parts.NETWORK:
            name = name.removeprefix(prefix)
        return name

    network: Frieren = filled(Frieren(**sizes), rule, inner)
    return network


# -- the flow network ---------------------------------------------------------------------------------------


class Guided:
    """A network's guided velocity of latents laid out as upstream, (B, C, T); notes the times it is asked."""

    def __init__(self, network: Frieren, features: Tensor, scale: float | None = GUIDANCE) -> None:
        self.network, self.scale, self.times = network, scale, list[int]()
        both = features if scale is None else torch.cat([features, torch.zeros_like(features)])
        self.prepared = network.prepare_conditions({"cavp": both})

    def __call__(self, x: Latents, t: Tensor) -> Latents:
        self.times.append(int(network_time(t)[0]))
        return {"audio": self.at(x["audio"], t)}

    def at(self, x: Tensor, t: Tensor) -> Tensor:
        """Velocity (B, C, T) at t (B,)."""
        v = self.network(x.mT, t, self.prepared).mT
        if self.scale is None:
            return v
        v, null = ({"": part} for part in v.chunk(2))
        return flow.guide(v, null, self.scale)[""]


def estimated(network: Frieren, x: Tensor, time: Tensor, features: Tensor) -> Tensor:
    """One forward with a time on the scale of 0…1000, laid out as upstream."""
    prepared = network.prepare_conditions({"cavp": features})["frames"]
    return network.estimator(x.mT, time, prepared).mT


def activations(network: Frieren, run: Callable[[], Tensor], depth: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the result of `run`, and the activations that golden files name, in their layout."""
    names = {"t_emb": "t_embedder", "c_emb": "c_embedder", "proj_in": "proj_in", "x_proj": "x_proj"}
    names |= {"c_proj": "c_proj"}
    for index in range(depth):
        block, inner = f"blocks.{index}", f"blocks.{index}.transformer_blocks.0"
        names |= {f"block{index}": block, f"block{index}.gn": f"{block}.norm"}
        names |= {f"block{index}.{part}": f"{inner}.{part}" for part in ("attn1", "attn2", "ff")}
    estimator = network.estimator
    first: list[Tensor] = []
    handle = estimator.blocks[0].register_forward_pre_hook(lambda _, inputs: first.append(inputs[0]))
    out, seen = record(estimator, list(names.values()), run)
    handle.remove()
    found = {name: seen[module] for name, module in names.items()} | {"pos_emb": first[0]}
    upstream = {"proj_in"} | {
        n for n in found if n.startswith("block") and not n.endswith(("attn1", "attn2", "gn"))
    }
    found |= {name: found[name].mT for name in upstream}
    return out, found | {"c_proj": found["c_proj"].repeat_interleave(network_file.FRAME_LATENTS, 1)}


@torch.no_grad()
def forwards(golden: dict[str, Tensor], network: Frieren) -> Quantities:
    """Conditions, null, every activation, other lengths and times, guidance."""
    x, features = golden["x"], golden["feat"]
    yield from sinusoid(golden)
    yield "cond", network.cond_stage_model["embedder"](features), golden["cond"]
    yield "uncond", network.cond_stage_model["embedder"](torch.zeros_like(features[:1])), golden["uncond"]
    out, found = activations(
        network, lambda: estimated(network, x, golden["t"], features), len(network.estimator.blocks)
    )
    yield "out", out, golden["out"]
    for name in (name for name in golden if name.startswith("act.")):
        yield name, found[name.removeprefix("act.")], golden[name]
    yield "out_t_frac", estimated(network, x, golden["t_frac"], features), golden["out_t_frac"]
    short = estimated(network, x[..., :40], golden["t"], features[:, :5])
    yield "out_ctx_len_5_frames", short, golden["out_ctx_len_5_frames"]
    for scale in (0.0, 1.0, GUIDANCE):
        v = Guided(network, features, scale).at(x, torch.full((len(x),), 0.5))
        yield f"cfg_{scale}_t0.5", v, golden[f"cfg_{scale}_t0.5"]


def sinusoid(golden: dict[str, Tensor]) -> Quantities:
    """By the angles, up to 1000: a frequency's last bit differs by CPU and moves their sines by 6e-5."""
    half = network_file.FREQUENCIES // 2
    ours, expected = TimeEmbedder.sinusoid(golden["t"]), golden["sinusoid"]
    yield "sinusoid of small times", ours[:2], expected[:2]
    largest = golden["t"].float()[:, None] * torch.ones(half)
    apart = torch.atan2(expected[:, half:], expected[:, :half]) - torch.atan2(ours[:, half:], ours[:, :half])
    apart = torch.remainder(apart + torch.pi, 2 * torch.pi) - torch.pi
    yield "sinusoid angle", largest + apart, largest


@torch.no_grad()
def sampled(golden: dict[str, Tensor], network: Frieren, rule: str) -> Quantities:
    """Every solver's times and result, and where Euler passes."""
    start = {"audio": golden["x0"]}
    solvers: dict[str, Callable[[Any], Latents]] = {
        f"euler{num}": partial(flow.integrate, x0=start, num_steps=num) for num in (1, 4, 25)
    }
    solvers["rk4_2"] = partial(integrate_released_rk4, x0=start, num_steps=2)
    for name, solve in solvers.items():
        velocity = Guided(network, golden["feat"])
        key = f"sample.{name}_cfg4.5"
        yield key, solve(velocity)["audio"], golden[key]
        yield f"{key}.t_int", torch.tensor(velocity.times), golden[f"{key}.t_int"]
    yield from passed(golden, network, "")
    unguided = flow.integrate(Guided(network, golden["feat"], None), start, 4)["audio"]
    yield "sample.euler4_nocfg", unguided, golden["sample.euler4_nocfg"]
    yield from adaptive(golden, network, rule)


def passed(golden: dict[str, Tensor], network: Frieren, prefix: str) -> Quantities:
    """x before each of Euler's four steps, and the end."""
    velocity = Guided(network, golden["feat"])
    states: list[Tensor] = []

    def watched(x: Latents, t: Tensor) -> Latents:
        states.append(x["audio"])
        return velocity(x, t)

    end = flow.integrate(watched, {"audio": golden["x0"]}, 4)["audio"]
    key = f"{prefix}sample.euler4_cfg4.5"
    yield key, end, golden[key]
    yield f"{key}.traj", torch.stack([*states, end]), golden[f"{key}.traj"]
    yield f"{key}.t_int", torch.tensor(velocity.times), golden[f"{key}.t_int"]


def adaptive(golden: dict[str, Tensor], network: Frieren, rule: str) -> Quantities:
    """dopri5 over four intervals; under rule b, where the velocity is a steep staircase in t, less closely.

    There the step sizes blow up differences of the last bit, to a thousandth of time at t = 0.8. So the times
    up to 0.48 are compared exactly, upstream's being taken within 0.02 of a whole number; later ones are
    upstream's where ours are a thousandth away at most, and the end is compared to 1e-3.
    """
    key = "sample.dopri5_4_cfg4.5"
    theirs = golden[f"{key}.t_int"]
    if rule == "a":
        velocity = Guided(network, golden["feat"])
        yield key, integrate_dopri5(velocity, {"audio": golden["x0"]}, num_intervals=4)["audio"], golden[key]
        yield f"{key}.t_int", torch.tensor(velocity.times), theirs
        return
    half = int((theirs > 480).nonzero()[0])
    near, inner, times = 0.02, Guided(network, golden["feat"]), list[int]()

    def followed(x: Latents, t: Tensor) -> Latents:
        thousandth, at = float(t[0] * 1000), len(times)
        margin = near if at < half else 1.0
        their = int(theirs[at]) if at < len(theirs) else 0
        snapped = their - margin <= thousandth < their + 1 + margin
        times.append(their if snapped else int(thousandth))
        # the middle of a thousandth is cut to it whatever float32 makes of it
        return inner(x, torch.full_like(t, min(times[-1] + 0.5, 1000) / 1000))

    end = integrate_dopri5(followed, {"audio": golden["x0"]}, num_intervals=4)["audio"]
    yield key, golden[key] + (end - golden[key]) / 100, golden[key]  # a limit of 1e-5 there is 1e-3 here
    yield f"{key}.t_int", torch.tensor(times[:half]), theirs[:half]
    yield f"{key} evaluations", torch.tensor(len(times)), torch.tensor(len(theirs))


# -- training -----------------------------------------------------------------------------------------------


def training_weight(i: Tensor) -> Tensor:
    """Upstream's weight of a base-stage error: the density of logit-normal times at i / 1000."""
    t = (i / 1000).clamp(1e-5, 1 - 1e-5)
    return 0.398942 / (t * (1 - t)) * torch.exp(-0.5 * torch.logit(t) ** 2)


def losses(path: Path) -> Quantities:
    """Upstream's three losses and their gradients, made of our velocity."""
    golden = load_file(path)
    yield from all_of(golden, (part(golden) for part in (_weights, _flow_loss, _reflow_loss, _distil_loss)))


def _weights(golden: dict[str, Tensor]) -> Quantities:
    yield "lognorm_weight_0_999", training_weight(torch.arange(1000)), golden["lognorm_weight_0_999"]


def _x_t(golden: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    # a quarter of a thousandth later than i / 1000: what is cut off
    t = golden["t"] / 1000
    x_t = flow.interpolate({"": golden["x0"]}, {"": golden["x1"]}, t)[""]
    return x_t, t + 0.00025


def _flow_loss(golden: dict[str, Tensor]) -> Quantities:
    network = network_of(TINY, "b")
    x_t, t = _x_t(golden)
    v = Guided(network, golden["feat"], None).at(x_t, t)
    errors = flow.squared_error(v, golden["x1"] - golden["x0"])
    yield "flow.v_pred", v, golden["flow.v_pred"]
    yield "flow.per_sample_mse", errors, golden["flow.per_sample_mse"]
    yield "flow.loss_simple", errors.mean()[None], golden["flow.loss_simple"]
    loss = (training_weight(golden["t"]) * errors).mean()
    yield "flow.loss", loss[None], golden["flow.loss"]
    yield from _gradients(golden, network, loss, "flow")


def _reflow_loss(golden: dict[str, Tensor]) -> Quantities:
    network = network_of(TINY, "b")
    x_t, t = _x_t(golden)
    v = Guided(network, golden["feat"]).at(x_t, t)
    errors = flow.squared_error(v, golden["x1"] - golden["x0"])
    yield "reflow.loss_simple", errors.mean()[None], golden["reflow.loss_simple"]
    loss = (training_weight(golden["t"]) * errors).mean()
    yield "reflow.loss", loss[None], golden["reflow.loss"]
    yield from _gradients(golden, network, loss, "reflow")


def _distil_loss(golden: dict[str, Tensor]) -> Quantities:
    network = network_of(TINY, "b")
    x0 = golden["x0"]
    x1 = x0 + Guided(network, golden["feat"]).at(x0, torch.zeros(len(x0)))
    loss = flow.squared_error(x1, golden["x1"]).mean()
    yield "distill.loss", loss[None], golden["distill.loss"]
    yield from _gradients(golden, network, loss, "distill")


def _gradients(golden: dict[str, Tensor], network: Frieren, loss: Tensor, stage: str) -> Quantities:
    loss.backward()
    found = {name: parameter.grad for name, parameter in network.named_parameters()}
    gradients = [gradient.double().square().sum() for gradient in found.values() if gradient is not None]
    yield f"{stage}.grad_norm", torch.stack(gradients).sum().sqrt()[None], golden[f"{stage}.grad_norm"]
    names = {
        "blocks.0.attn1.to_q": "model.diffusion_model.blocks.0.transformer_blocks.0.attn1.to_q.weight",
        "embedder.0.bias": "cond_stage_model.embedder.0.bias",
        "final_layer.conv1d.weight": "model.diffusion_model.final_layer.conv1d.weight",
    }
    for theirs, ours in names.items():
        gradient = found[ours]
        assert gradient is not None
        yield f"{stage}.grad.{theirs}", gradient, golden[f"{stage}.grad.{theirs}"]


# -- whole files --------------------------------------------------------------------------------------------


def tiny(path: Path) -> Quantities:
    """Everything in a tiny file; its rule is in its name."""
    golden, rule = load_file(path), path.stem[-1]
    network = network_of(TINY, rule)
    vae = filled(FrierenVAE(**TINY_VAE), rule)
    parts = (forwards(golden, network), sampled(golden, network, rule), autoencoded(golden, vae))
    yield from all_of(golden, parts)


@torch.no_grad()
def real(path: Path) -> Quantities:
    """The released size by both rules."""
    golden = load_file(path)
    yield from all_of(golden, (released(golden, rule) for rule in "ab"))


def released(golden: dict[str, Tensor], rule: str) -> Quantities:
    """Forwards, thinned activations, guidance and a short sample by one rule."""
    network = network_of(network_file.RELEASED, rule)
    x, features, prefix = golden["x"], golden["feat"], f"{rule}."
    yield f"{rule}.cond", network.cond_stage_model["embedder"](features)[:, ::4], golden[f"{rule}.cond"]
    for time in (0, 480, 1000):
        at = torch.full((len(x),), time)
        run = partial(estimated, network, x, at, features)
        out, found = activations(network, run, len(network.estimator.blocks))
        yield f"{rule}.out_t{time}", out, golden[f"{rule}.out_t{time}"]
        for key in (key for key in golden if key.startswith(f"{rule}.act{time}.")):
            name, kind = key.removeprefix(f"{rule}.act{time}.").rsplit(".", 1)
            if kind == "sub":
                thin = found[name][:, ::8, ::8] if found[name].ndim == 3 else found[name]
                yield key, thin, golden[key]
            else:
                yield key, nearer(found[name], golden[key]), golden[key]
    v = Guided(network, features).at(x, torch.full((len(x),), 0.48))
    yield f"{rule}.cfg_4.5_t0.48", v, golden[f"{rule}.cfg_4.5_t0.48"]
    yield from passed(golden, network, prefix)


def nearer(values: Tensor, expected: Tensor) -> Tensor:
    """Mean and standard deviation, with n or n - 1 underneath: which of the two, the file does not say."""
    found = [torch.stack([values.mean(), values.std(correction=n)]) for n in (0, 1)]
    return min(found, key=lambda pair: float((pair - expected).abs().max()))


# -- lists --------------------------------------------------------------------------------------------------


def checkpoint_keys(path: Path) -> Quantities:
    """The whole released checkpoint, but for the tables that nothing uses."""
    theirs = json.loads(path.read_text())
    tables = [name for name in theirs if name.startswith(frieren_parts.DIFFUSION_TABLES)]
    yield "unused", torch.tensor(len(tables)), torch.tensor(12)
    ours = shapes_of(frieren_parts.empty_network()) | shapes_of(frieren_parts.empty_vae(), frieren_parts.VAE)
    yield "keys", *listed(ours, {name: shape for name, shape in theirs.items() if name not in tables})


def network_keys(path: Path) -> Quantities:
    """Estimator and condition stage, without their prefixes."""
    theirs = json.loads(path.read_text())
    network = frieren_parts.empty_network()
    parts: tuple[nn.Module, ...] = (network.estimator, network.cond_stage_model)
    for (name, shapes), part in zip(theirs.items(), parts):
        yield name, *listed(shapes_of(part), shapes)
    total = sum(parameter.numel() for parameter in network.parameters())
    yield "parameters", torch.tensor(total), torch.tensor(159_276_692)


def sampler_times(path: Path) -> Quantities:
    """The whole times that the network is asked at, of Euler and of the released RK4."""
    x0 = {"": torch.zeros(1, 1)}
    for name, theirs in json.loads(path.read_text()).items():
        times: list[int] = []

        def asked(x: Latents, t: Tensor, times: list[int] = times) -> Latents:
            times.append(int(network_time(t)[0]))
            return x

        solver, num = name.split(":")
        solve = {"euler": flow.integrate, "rk4": integrate_released_rk4}[solver]
        solve(asked, x0, int(num))
        yield name, torch.tensor(times), torch.tensor(theirs)


def lightning(path: Path) -> Quantities:
    """A Lightning 1.4.2 file, whose callbacks are named by classes, reads without that library."""
    theirs = {
        "betas": [1000], "cond_stage_model.embedder.0.weight": [4, 3],
        "cond_stage_model.embedder.0.bias": [4],
        "model.diffusion_model.x_proj.weight": [2, 4], "model.diffusion_model.x_proj.bias": [2],
        "first_stage_model.quant_conv.weight": [4, 4, 1],
    }  # fmt: skip
    yield "keys", *listed({name: tuple(value.shape) for name, value in read_state(path).items()}, theirs)


CHECKS: dict[str, Callable[[Path], Quantities]] = {
    "frieren_tiny_?.safetensors": tiny,
    "frieren_real*.safetensors": real,
    "frieren_losses.safetensors": losses,
    "frieren_checkpoint_keys.json": checkpoint_keys,
    "frieren_network_keys.json": network_keys,
    "frieren_sampler_times.json": sampler_times,
    "frieren_pl14_layout.ckpt": lightning,
}
