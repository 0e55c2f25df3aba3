"""MMAudio's flow network against golden vectors of the official code, closed forms and its layout's traps."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from foleypref.flow import convention as flow
from foleypref.networks import mmaudio, mmaudio_blocks
from foleypref.networks.mmaudio import VARIANTS, Features, MMAudio, sequence_lengths, stretch_index
from foleypref.networks.mmaudio_blocks import (
    SelfAttention,
    modulate,
    rotate,
    rotation_table,
)
from foleypref.published.mmaudio_parts import LatentStatistics
from tests.golden import check_mmaudio_network as check
from tests.golden import recipes
from tests.golden.check_mmaudio_network import Golden
from tests.golden.compare import LIMIT, relative_error
from tests.networks.mmaudio_golden import CPU, GOLDEN, SMALL, flow_of, rms_error

CASES = [(path, run) for pattern, run in check.CHECKS.items() for path in sorted(GOLDEN.glob(pattern))]


# -- golden -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "run"), CASES, ids=[path.name for path, _ in CASES])
def test_golden(path: Path, run: Callable[[Path], check.Quantities]) -> None:
    errors = [(relative_error(ours, expected), name) for name, ours, expected in run(path)]
    assert max(errors) <= (LIMIT, ""), max(errors)


def test_every_check_has_its_golden_file() -> None:
    """Except those at real size, which are kept elsewhere."""
    missing = [pattern for pattern in check.CHECKS if not list(GOLDEN.glob(pattern))]
    assert missing == ["mmaudio_real_*.safetensors"]


@pytest.mark.parametrize("named", [True, False], ids=["by variant", "by metadata"])
def test_files_at_real_size_are_read(named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their form at a small size: inputs by name and scale, 8 s, weights by rule."""
    name = "small_16k" if named else "other"
    sizes = {**SMALL, "text_len": 77} if named else SMALL
    latent, clip, sync, text = (250, 64, 192, 77) if named else (20, 6, 16, 5)
    monkeypatch.setattr(check, "VARIANTS", {"small_16k": sizes})
    network = check.filled(sizes)
    features = (
        recipes.mmaudio_input(f"clip_f_{name}", (1, clip, 12), 0.03125),
        recipes.mmaudio_input(f"sync_f_{name}", (1, sync, 10), 1.0),
        recipes.mmaudio_input(f"text_f_{name}", (1, text, 14), 0.03125),
    )
    x, t = recipes.mmaudio_input(f"latent_{name}", (1, latent, 4), 1.0), torch.tensor([0.25])
    with torch.no_grad():
        tensors = {
            "in.t": t,
            "out.flow": network(x, t, network.prepare(*features)),
            "out.flow_empty": network(x, t, network.prepare(*network.null_features(1, clip, sync))),
        }
    config = {k: v for k, v in sizes.items() if k != "text_len"}
    config |= dict(
        zip([f"{k}_seq_len" for k in ("latent", "clip", "sync", "text")], (latent, clip, sync, text))
    )
    path = tmp_path / f"mmaudio_real_{name}.safetensors"
    save_file(tensors, path, None if named else {"config": json.dumps(config)})
    assert [key for key, _, _ in check.real(path)] == ["out.flow", "out.flow_empty"]
    assert max(relative_error(ours, expected) for _, ours, expected in check.real(path)) <= LIMIT
    save_file(tensors | {"out.flow": 1.05 * tensors["out.flow"]}, path, {"config": json.dumps(config)})
    assert max(relative_error(ours, expected) for _, ours, expected in check.real(path)) > 0.01


# -- traps --------------------------------------------------------------------------------------------------


def test_trap_1_q_k_and_v_are_the_fastest_index(tiny: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    dim, heads, d = 12, 3, 4
    attention = SelfAttention(dim, heads)
    with torch.no_grad():
        attention.qkv.weight.zero_()
        attention.qkv.bias.copy_(torch.arange(3 * dim))
    qk, v = attention(torch.zeros(1, 5, dim), None)
    row = 3 * torch.arange(dim, dtype=torch.float32).reshape(heads, d)  # of head h and channel c, kind q
    normed = torch.stack([F.rms_norm(row + kind, (d,)) for kind in (0, 1)])
    torch.testing.assert_close(v, (row + 2)[None, :, None].expand(1, -1, 5, -1))
    torch.testing.assert_close(qk, normed[:, None, :, None].expand(-1, 1, -1, 5, -1))

    def usual(self: SelfAttention, x: Tensor, table: Tensor | None) -> mmaudio_blocks.QKV:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = self.q_norm(q), self.k_norm(k)
        return mmaudio_blocks.QKV(
            torch.stack([q, k] if table is None else [rotate(q, table), rotate(k, table)]), v
        )

    monkeypatch.setattr(SelfAttention, "forward", usual)
    assert rms_error(flow_of(tiny), tiny["out.flow"]) > 0.2


def test_trap_2_rope_turns_adjacent_pairs(tiny: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    length, dim = 7, 6
    table = rotation_table(length, dim, 1.5, CPU)
    x = torch.zeros(length, dim)
    x[:, 2] = 1.0  # the first of pair 1
    angle = 1.5 * torch.arange(length) * 10000 ** (-2 / 6)
    expected = torch.zeros(length, dim)
    expected[:, 2], expected[:, 3] = angle.cos(), angle.sin()
    torch.testing.assert_close(rotate(x, table), expected)

    def halves(x: Tensor, table: Tensor) -> Tensor:
        (a, b), (cos, sin) = x.chunk(2, -1), table.unbind(-1)
        return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)

    monkeypatch.setattr(mmaudio_blocks, "rotate", halves)
    assert rms_error(flow_of(tiny), tiny["out.flow"]) > 0.02


def test_trap_2_clip_positions_are_stretched_over_the_latents(
    tiny: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.testing.assert_close(
        rotation_table(8, 16, 30 / 8, CPU)[4], rotation_table(16, 16, 1.0, CPU)[15], atol=1e-6, rtol=0
    )
    monkeypatch.setattr(mmaudio, "rotation_table", lambda n, d, _, device: rotation_table(n, d, 1.0, device))
    assert rms_error(flow_of(tiny), tiny["out.flow"]) > 0.005


@pytest.mark.parametrize(("v2", "size", "top"), [(False, 256, 1.0), (True, 64, 10000.0)])
def test_trap_3_timestep_frequencies_of_both_versions(v2: bool, size: int, top: float) -> None:
    golden = Golden(GOLDEN / f"mmaudio_tiny_v{1 + v2}.safetensors")
    seen: list[Tensor] = []
    golden.network.t_embed.mlp.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    golden.network.t_embed(torch.tensor([0.25]), torch.float32)
    angle = 0.25 * top * 10000.0 ** (-2 * torch.arange(size // 2, dtype=torch.float64) / size)
    expected = torch.cat([angle.cos(), angle.sin()])[None].float()
    torch.testing.assert_close(
        seen[0], expected, atol=5e-4 if v2 else 1e-6, rtol=0
    )  # 2500 radians in float32


def test_trap_4_the_final_layer_does_not_see_the_frame_wise_condition(tiny: Golden) -> None:
    network, inputs = tiny.network, {}
    last = network.fused_blocks[-1]
    handles = [
        network.final_layer.register_forward_pre_hook(lambda _, found: inputs.update(x=found[0], g=found[1])),
        last.register_forward_pre_hook(lambda _, found: inputs.update(e=found[1][:, found[3]])),
    ]
    flow_of(tiny)
    for handle in handles:
        handle.remove()
    assert inputs["g"].shape[1] == 1
    assert relative_error(network.final_layer(inputs["x"], inputs["g"]), tiny["out.flow"]) <= LIMIT
    assert rms_error(network.final_layer(inputs["x"], inputs["e"]), tiny["out.flow"]) > 0.1


def test_trap_5_sync_is_stretched_with_float32_ties(monkeypatch: pytest.MonkeyPatch) -> None:
    for sync_len in range(8, 264, 8):
        for latent_len in (1, 20, 31, 157, 216, 250, 345, 431):
            source = torch.arange(sync_len, dtype=torch.float32)[None, None]
            expected = F.interpolate(source, latent_len, mode="nearest-exact")[0, 0].long()
            assert torch.equal(stretch_index(sync_len, latent_len), expected)
    exact = ((2 * torch.arange(345) + 1) * 192) // (2 * 345)
    wrong = (stretch_index(192, 345) != exact).nonzero().flatten().tolist()
    assert wrong == [57, 172]
    network = check.filled(SMALL)
    features = Features(torch.randn(1, 64, 12), torch.randn(1, 192, 10), torch.randn(1, 5, 14))
    x, t = torch.randn(1, 345, 4), torch.full((1,), 0.3)
    with torch.no_grad():
        right = network(x, t, network.prepare(*features))
        monkeypatch.setattr(mmaudio, "stretch_index", lambda *_: exact)
        other = network(x, t, network.prepare(*features))
    assert rms_error(other[:, wrong], right[:, wrong]) > 0.1


def test_trap_6_epsilons() -> None:
    attention = SelfAttention(8, 1)
    with torch.no_grad():
        attention.qkv.weight.zero_()
        attention.qkv.bias.fill_(1e-4)
    for dtype in (torch.float32, torch.bfloat16):
        qk, _ = attention.to(dtype)(torch.zeros(1, 1, 8, dtype=dtype), None)
        value = float(attention.qkv.bias[0].detach())
        expected = value / math.sqrt(value**2 + 2.0**-23)
        assert qk.float().mean().item() == pytest.approx(
            expected, rel=1e-5 if dtype == torch.float32 else 0.01
        )
    x = torch.tensor([[[1e-3, -1e-3]]])
    expected = x / math.sqrt(1e-6 + 1e-5)
    torch.testing.assert_close(modulate(x, torch.zeros(2), torch.zeros(2)), expected)


def test_trap_9_guidance_starts_at_strength_1(tiny: Golden) -> None:
    """From there on the house's formula is the official one; below, official guidance is off."""
    x, t = {"audio": tiny["in.latent"]}, torch.full((2,), 0.3)
    with torch.no_grad():
        conditional = check.guided_velocity(tiny, 0.0)(x, t)
        null = {"audio": check.predict(tiny, tiny.null(2), tiny["in.latent"], t)}
    assert relative_error(conditional["audio"], tiny["out.cfg_0.5"]) <= LIMIT
    assert relative_error(flow.guide(conditional, null, 1.0)["audio"], tiny["out.cfg_1.0"]) <= LIMIT
    assert relative_error(flow.guide(conditional, null, 0.5)["audio"], tiny["out.cfg_0.5"]) > 0.1


def test_trap_16_without_a_checkpoint_latent_statistics_are_nan() -> None:
    network = MMAudio(**SMALL)
    assert network.latent_mean.isnan().all()
    assert network.latent_std.isnan().all()
    network.latent_mean.fill_(2.0)
    network.latent_std.fill_(4.0)
    statistics = LatentStatistics(network.latent_mean, network.latent_std)
    latents = torch.full((1, 3, 4), 10.0)
    assert torch.equal(statistics.normalise(latents), torch.full((1, 3, 4), 2.0))
    assert torch.equal(statistics.unnormalise(statistics.normalise(latents)), latents)
    assert torch.equal(latents, torch.full((1, 3, 4), 10.0)), "changed in place"


# -- conditions ---------------------------------------------------------------------------------------------


def test_prepared_rows_concatenate_and_index(tiny: Golden) -> None:
    network, x, t = tiny.network, tiny["in.latent"], tiny["in.t"]
    with torch.no_grad():
        given, null = (network.prepare(*f) for f in (tiny.features(), tiny.null(2)))
        assert all(isinstance(value, Tensor) and len(value) == 2 for value in given.values())
        both = {key: torch.cat([given[key], null[key]]) for key in given}
        velocity = network(x.repeat(2, 1, 1), t.repeat(2), both)
        row = network(x[1:], t[1:], {key: value[1:2] for key, value in both.items()})
        shared = network(x, t, both)
    assert relative_error(velocity[:2], tiny["out.flow"]) <= LIMIT
    assert relative_error(velocity[2:], tiny["out.flow_empty"]) <= LIMIT
    assert relative_error(shared, velocity) <= LIMIT  # x_t serves both groups
    assert relative_error(row, tiny["out.flow"][1:]) <= LIMIT


def test_unprepared_conditions_mark_rows_without_video_or_text(tiny: Golden) -> None:
    """Feature rows that are marked absent do not matter, whatever they hold."""
    features, null, t = tiny.features(), tiny.null(2), tiny["in.t"]
    absent, present = torch.zeros(2, 1), torch.ones(2, 1)
    cases = {
        "out.flow": (features, present, present),
        "out.flow_empty": (features, absent, absent),
        "out.flow_null_video": (
            Features(*map(torch.zeros_like, features))._replace(text=features.text),
            absent,
            present,
        ),
        "out.flow_null_text": (features._replace(text=torch.full_like(null.text, 7.0)), present, absent),
    }
    for name, (given, video, text) in cases.items():
        conditions = {**given._asdict(), "has_video": video, "has_text": text}
        with torch.no_grad():
            velocity = tiny.network(tiny["in.latent"], t, conditions)
        assert relative_error(velocity, tiny[name]) <= LIMIT, name


def test_null_features_are_learned_but_for_the_empty_prompt() -> None:
    network = check.filled(SMALL)
    clip, sync, text = network.null_features(3, 6, 16)
    assert (clip.shape, sync.shape, text.shape) == ((3, 6, 12), (3, 16, 10), (3, 5, 14))
    (clip.sum() + sync.sum()).backward()
    assert float(network.empty_clip_feat.grad.mean()) == 3 * 6
    assert float(network.empty_sync_feat.grad.mean()) == 3 * 16
    assert not text.requires_grad


def test_sync_comes_in_whole_segments() -> None:
    network = check.filled(SMALL)
    with pytest.raises(ValueError, match="13 tokens"):
        network.prepare(torch.zeros(1, 6, 12), torch.zeros(1, 13, 10), torch.zeros(1, 5, 14))
    prepared = network.prepare(*network.null_features(1, 6, 16))
    with pytest.raises(AssertionError, match="2 rows of x_t, 1 of conditions"):
        network(torch.zeros(2, 19, 4), torch.zeros(2), prepared)


def test_lengths_refuse_what_no_network_takes() -> None:
    assert sequence_lengths(0.64, 44100) == (28, 5, 8, 28672)
    with pytest.raises(ValueError, match=r"is 0\.63"):
        sequence_lengths(0.63, 44100)
    with pytest.raises(ValueError, match="48000"):
        sequence_lengths(8.0, 48000)


# -- training -----------------------------------------------------------------------------------------------


def test_checkpointing_recomputes_every_block_and_changes_no_gradient(tiny: Golden) -> None:
    network, calls = copy.deepcopy(tiny.network), []
    for block in (*network.joint_blocks, *network.fused_blocks):
        block.register_forward_pre_hook(lambda *_: calls.append(1))
    gradients: list[list[Tensor]] = []
    for switch in (False, True):
        network.gradient_checkpointing = switch
        network.zero_grad(set_to_none=True)
        prepared = network.prepare(*tiny.features())
        network(tiny["in.latent"], tiny["in.t"], prepared).square().mean().backward()
        gradients.append([p.grad for p in network.parameters() if p.grad is not None])
    assert len(calls) == 3 * 4
    assert all(map(torch.equal, *gradients))


def test_the_last_joint_block_leaves_clip_and_text_alone(tiny: Golden) -> None:
    tokens = [torch.randn(2, n, 64) for n in (30, 8, 7)]
    c = torch.randn(2, 1, 64)
    tables = rotation_table(30, 16, 1.0, CPU), rotation_table(8, 16, 30 / 8, CPU)
    latent, clip, text = tiny.network.joint_blocks[-1](tokens, c, c, tables)
    assert clip is tokens[1]
    assert text is tokens[2]
    assert not torch.equal(latent, tokens[0])


@pytest.mark.slow
def test_compiles_as_one_graph(tiny: Golden) -> None:
    prepared = {key: value.detach() for key, value in tiny.network.prepare(*tiny.features()).items()}
    torch.compiler.reset()
    compiled = torch.compile(tiny.network, backend="aot_eager", fullgraph=True, dynamic=False)
    with torch.no_grad():
        velocity = compiled(tiny["in.latent"], tiny["in.t"], prepared)
    assert relative_error(velocity, tiny["out.flow"]) <= LIMIT


def test_lora_adapts_convolutions_and_merges() -> None:
    peft = pytest.importorskip("peft")
    network = check.filled(SMALL)
    x, t, features = torch.randn(1, 20, 4), torch.full((1,), 0.4), network.null_features(1, 6, 16)
    before = network(x, t, network.prepare(*features)).detach()
    config = peft.LoraConfig(r=2, target_modules=r"(joint|fused)_blocks\..*(attn\.qkv|linear1|ffn\.w[123])")
    adapted = peft.get_peft_model(network, config)
    prepared = {k: v.detach() for k, v in adapted.prepare(*features).items()}
    assert torch.equal(adapted(x, t, prepared), before)
    adapters = [p for p in adapted.parameters() if p.requires_grad]
    shapes = {tuple(p.shape) for p in adapters}
    assert {(2, 16, 3), (256, 2, 1), (2, 256, 3), (16, 2, 1), (48, 2)} <= shapes
    with torch.no_grad():
        for parameter in adapters:
            parameter.normal_(std=0.1)
    changed = adapted(x, t, prepared).detach()
    merged = adapted.merge_and_unload()
    assert rms_error(changed, before) > 0.05
    assert rms_error(merged(x, t, prepared).detach(), changed) < 1e-5


def test_every_variant_runs_on_the_meta_device() -> None:
    for name, sizes in VARIANTS.items():
        lengths = sequence_lengths(8.0, 16000 if name.endswith("16k") else 44100)
        with torch.device("meta"):
            network = MMAudio(**sizes)
            features = network.null_features(2, lengths.clip, lengths.sync)
            x, t = torch.zeros(2, lengths.latent, sizes["latent_dim"]), torch.zeros(2)
            velocity = network(x, t, network.prepare(*features))
        assert velocity.shape == x.shape, name
