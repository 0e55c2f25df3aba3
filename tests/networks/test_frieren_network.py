"""Frieren's flow network against golden vectors of the official code, closed forms and its sheet's traps."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from foleypref.flow import convention as flow
from foleypref.networks import frieren as network_file
from foleypref.networks.frieren import (
    Block,
    ConvFeedForward,
    FinalLayer,
    Frieren,
    SelfAttention,
    TimeEmbedder,
    network_time,
)
from tests.golden import check_frieren as check
from tests.golden.check_frieren import TINY, Guided, network_of
from tests.golden.check_frieren_parts import Quantities
from tests.golden.compare import LIMIT, relative_error

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = [(path, run) for pattern, run in check.CHECKS.items() for path in sorted(GOLDEN.glob(pattern))]


@pytest.fixture(scope="module")
def network() -> Frieren:
    """The tiny network by rule b."""
    return network_of(TINY, "b")


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    """What the official code made of it."""
    return load_file(GOLDEN / "frieren_tiny_b.safetensors")


def inputs(golden: dict[str, Tensor]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """x_t (B, T, C), t (B,) and conditions."""
    return golden["x"].mT, torch.tensor([0.1, 0.4, 0.8]), {"cavp": golden["feat"]}


# -- golden -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "run"), CASES, ids=[path.name for path, _ in CASES])
def test_golden(path: Path, run: Callable[[Path], Quantities]) -> None:
    errors = [(relative_error(ours, expected), name) for name, ours, expected in run(path)]
    assert max(errors) <= (LIMIT, ""), max(errors)


def test_every_check_has_its_golden_file() -> None:
    """Except those at real size, which are kept elsewhere."""
    missing = [pattern for pattern in check.CHECKS if not list(GOLDEN.glob(pattern))]
    assert missing == ["frieren_real*.safetensors"]


@pytest.mark.parametrize("rule", ["a", "b"])
def test_golden_forwards_are_met_closely_enough_to_see_an_eps(rule: str) -> None:
    golden = load_file(GOLDEN / f"frieren_tiny_{rule}.safetensors")
    for name, ours, expected in check.forwards(golden, network_of(TINY, rule)):
        assert relative_error(ours, expected) <= 5e-6, name


def test_a_golden_file_of_real_form_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefixes, thinned activations, mean and deviation; a wrong number is seen and so is one left out."""
    sizes = {**TINY, "hidden_dim": 64, "max_len": 300, "depth": 1}
    monkeypatch.setattr(network_file, "RELEASED", sizes)
    path = tmp_path / "frieren_real.safetensors"
    stored = real_form(sizes)
    save_file(stored, path)
    errors = {name: relative_error(ours, expected) for name, ours, expected in check.real(path)}
    assert set(stored) - {"x", "x0", "feat"} == {name for name in errors if not name.startswith("quantities")}
    assert max(errors.values()) <= LIMIT
    wanted = ("a.out_t1000", "b.act480.t_emb.meanstd", "b.act480.block0.sub", "a.sample.euler4_cfg4.5.traj")
    for key in wanted:
        save_file(stored | {key: stored[key] * 1.001}, path)
        assert wrong_in(path) == [key]
    save_file(stored | {"a.other": torch.zeros(1)}, path)
    assert wrong_in(path) == ["quantities left out ['a.other']"]


def wrong_in(path: Path) -> list[str]:
    """The quantities of a file at real size that are over the limit."""
    return [name for name, ours, expected in check.real(path) if relative_error(ours, expected) > LIMIT]


@torch.no_grad()
def real_form(sizes: dict[str, int]) -> dict[str, Tensor]:
    """What a file at real size holds, of a small network."""
    draw = torch.Generator().manual_seed(0)
    x, x0 = (torch.randn(1, sizes["latent_dim"], 32, generator=draw) for _ in range(2))
    features = F.normalize(torch.randn(1, 4, sizes["feature_dim"], generator=draw), dim=-1)
    stored = {"x": x, "x0": x0, "feat": features}
    for rule in "ab":
        network = network_of(sizes, rule)
        found = {"cond": network.cond_stage_model["embedder"](features)[:, ::4]}
        for time in (0, 480, 1000):
            run = lambda at=time: check.estimated(network, x, torch.tensor([at]), features)  # noqa: B023, E731
            out, parts = check.activations(network, run, 1)
            found[f"out_t{time}"] = out
            if time != 480:
                continue
            for name in ("t_emb", "c_emb", "pos_emb", "block0"):
                value = parts[name]
                found[f"act480.{name}.sub"] = value[:, ::8, ::8] if value.ndim == 3 else value
                found[f"act480.{name}.meanstd"] = torch.stack([value.mean(), value.std()])
        found["cfg_4.5_t0.48"] = Guided(network, features).at(x, torch.tensor([0.48]))
        velocity, states = Guided(network, features), [x0]
        for _ in range(4):
            t = torch.tensor([(len(states) - 1) / 4])
            states.append(states[-1] + 0.25 * velocity({"audio": states[-1]}, t)["audio"])
        key = "sample.euler4_cfg4.5"
        found |= {key: states[-1], f"{key}.traj": torch.stack(states)}
        found[f"{key}.t_int"] = torch.tensor([0, 250, 500, 750])
        stored |= {f"{rule}.{name}": value.clone().contiguous() for name, value in found.items()}
    return stored


# -- time ---------------------------------------------------------------------------------------------------


def test_time_is_cut_off_in_float32_and_not_rounded() -> None:
    asked = torch.tensor([0.0, 0.29, 0.9999, 0.6666, 5 * 0.04 - 2e-8, 1.0])
    assert network_time(asked).tolist() == [0, 290, 999, 666, 199, 1000]
    # in float64 the float32 number 0.29 is 289.99999
    assert int(torch.tensor(0.29).double() * 1000) == 289


def test_twenty_five_euler_steps_ask_the_official_times() -> None:
    asked: list[int] = []

    def velocity(x: flow.Latents, t: Tensor) -> flow.Latents:
        asked.append(int(network_time(t)[0]))
        return x

    flow.integrate(velocity, {"": torch.zeros(1, 1)}, 25)
    assert [asked[step] for step in (4, 5, 6, 9, 10, 11)] == [160, 199, 240, 359, 399, 440]


@torch.no_grad()
def test_the_velocity_is_a_staircase_in_time(network: Frieren, golden: dict[str, Tensor]) -> None:
    x, _, conditions = inputs(golden)
    at = lambda t: network(x, torch.full((3,), t), conditions)  # noqa: E731
    assert torch.equal(at(0.5), at(0.5009))
    assert not torch.allclose(at(0.5), at(0.5011))


def test_cosines_come_before_sines() -> None:
    table = TimeEmbedder.sinusoid(torch.tensor([0, 1]))
    assert table.shape == (2, 256)
    assert torch.equal(table[0], torch.cat([torch.ones(128), torch.zeros(128)]))
    expected = [torch.cos(torch.tensor(1.0)), torch.cos(torch.tensor(10000 ** (-1 / 128)))]
    torch.testing.assert_close(table[1, :2], torch.stack(expected))
    torch.testing.assert_close(table[1, -1], torch.tensor(10000 ** (-127 / 128)).sin())


# -- conditions ---------------------------------------------------------------------------------------------


@torch.no_grad()
def test_no_video_is_zeros_before_the_condition_stage(network: Frieren, golden: dict[str, Tensor]) -> None:
    null = network.prepare_conditions({"cavp": torch.zeros_like(golden["feat"])})["frames"]
    bias = network.cond_stage_model["embedder"][0].bias  # type: ignore[index]
    torch.testing.assert_close(null, network.estimator.prepare(bias.expand(3, 6, -1)))
    wrong = network.estimator.prepare(torch.zeros(3, 6, len(bias)))
    assert (null - wrong).abs().max() > 0.1 * null.abs().max()


@torch.no_grad()
def test_every_frame_stands_for_eight_latents(network: Frieren, golden: dict[str, Tensor]) -> None:
    x, t, conditions = inputs(golden)
    seen: list[Tensor] = []
    handle = network.estimator.blocks[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    network(x, t, conditions)
    handle.remove()
    positions = network.estimator.pos_emb.weight[:49]
    half = (seen[0] - positions)[:, 1:, 32:]  # of the width, without the time token
    frames = network.prepare_conditions(conditions)["frames"]
    for latent in (0, 7, 8, 47):
        torch.testing.assert_close(half[:, latent], frames[:, latent // 8], rtol=1e-4, atol=1e-5)
    token = network.estimator.t_embedder(network_time(t), torch.float32)
    torch.testing.assert_close(seen[0][:, 0], token + positions[0])


@torch.no_grad()
def test_one_x_t_serves_all_groups_of_conditions(network: Frieren, golden: dict[str, Tensor]) -> None:
    x, t, conditions = inputs(golden)
    null = {"cavp": torch.zeros_like(conditions["cavp"])}
    both = {"cavp": torch.cat([conditions["cavp"], null["cavp"]])}
    expected = torch.cat([network(x, t, conditions), network(x, t, null)])
    for given in (both, network.prepare_conditions(both)):
        torch.testing.assert_close(network(x, t, given), expected, rtol=1e-4, atol=1e-5)


def test_conditions_reach_the_blocks_by_their_sum_alone() -> None:
    """The second attention is no cross-attention: its keys are as wide as the tokens."""
    block = Block(64, 4)
    assert block.transformer_blocks[0].attn2.to_k.weight.shape == (64, 64)  # type: ignore[union-attr]
    with torch.no_grad():
        assert block(torch.randn(2, 9, 64)).shape == (2, 9, 64)


# -- parts, against what torch has ---------------------------------------------------------------------------


@torch.no_grad()
def test_attention_is_plain_with_the_heads_own_scale() -> None:
    torch.manual_seed(0)
    attention, x = SelfAttention(24, 3), torch.randn(2, 5, 24)
    q, k, v = (
        layer(x).unflatten(-1, (3, 8)).transpose(1, 2)
        for layer in (attention.to_q, attention.to_k, attention.to_v)
    )
    out = (q @ k.transpose(-1, -2) * 8**-0.5).softmax(-1) @ v
    torch.testing.assert_close(attention(x), attention.to_out(out.transpose(1, 2).flatten(2)))
    assert all(layer.bias is None for layer in (attention.to_q, attention.to_k, attention.to_v))


@torch.no_grad()
def test_feed_forward_is_a_gated_convolution_with_the_exact_gelu() -> None:
    torch.manual_seed(0)
    forward, x = ConvFeedForward(8), 3 * torch.randn(2, 12, 8)
    first: Any = forward.net[0].proj
    second: Any = forward.net[2]
    value, gate = F.conv1d(x.mT, first.weight, first.bias, padding=4).chunk(2, dim=1)
    out = F.conv1d(value * F.gelu(gate), second.weight, second.bias, padding=4).mT
    torch.testing.assert_close(forward(x), out, rtol=1e-4, atol=1e-6)
    by_tanh = value * F.gelu(gate, approximate="tanh")
    other = F.conv1d(by_tanh, second.weight, second.bias, padding=4).mT
    assert (other - out).abs().max() > 2 * (forward(x) - out).abs().max()


def test_eps_and_groups_are_as_released() -> None:
    norms = [m for m in Block(64, 4).modules() if isinstance(m, nn.GroupNorm | nn.LayerNorm)]
    assert [(m.eps, getattr(m, "num_groups", None)) for m in norms] == [(1e-6, 32), *[(1e-5, None)] * 3]
    final = FinalLayer(64, 8).norm_final
    assert (final.eps, final.num_groups) == (1e-5, 16)
    context: Any = Frieren(**TINY).estimator.c_embedder.get_submodule("mlp")
    assert (context[1].approximate, context[3].eps) == ("tanh", 1e-5)


# -- in use -------------------------------------------------------------------------------------------------


def test_more_latents_than_positions_are_refused() -> None:
    network = Frieren(**{**TINY, "max_len": 104})  # the time token needs one of them
    assert network(torch.zeros(1, 96, 8), torch.zeros(1), {"cavp": torch.zeros(1, 12, 24)}).shape == (
        1,
        96,
        8,
    )
    with pytest.raises(ValueError, match="104 latents are more than the network's 103"):
        network(torch.zeros(1, 104, 8), torch.zeros(1), {"cavp": torch.zeros(1, 13, 24)})


def test_checkpointed_gradients_are_the_same(network: Frieren, golden: dict[str, Tensor]) -> None:
    x, t, conditions = inputs(golden)
    found = []
    for checkpointing in (False, True):
        other = copy.deepcopy(network)
        other.gradient_checkpointing = checkpointing
        other(x, t, conditions).square().mean().backward()
        found.append({name: p.grad for name, p in other.named_parameters()})
    assert all(value is not None for value in found[0].values())
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient)


@torch.no_grad()
def test_bfloat16_keeps_time_exact_and_the_caller_in_float32(
    network: Frieren, golden: dict[str, Tensor]
) -> None:
    x, t, conditions = inputs(golden)
    rough = copy.deepcopy(network).to(torch.bfloat16)
    exact, found = network(x, t, conditions), rough(x, t, conditions)
    assert found.dtype == torch.float32
    assert (found - exact).norm() < 0.03 * exact.norm()
    late = [rough(x, torch.full((3,), t), conditions) for t in (0.9985, 0.9995)]
    assert not torch.equal(*late)  # 998 and 999 are one number in bfloat16
