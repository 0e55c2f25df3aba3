"""LoRA on tiny random LTX-2 parts: where the adapters lie, a preference step, precision, merging."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F

from foleypref.flow.convention import Latents, noise_like_rows
from foleypref.models.backbones import Media
from foleypref.models.backbones.ltx2 import LTX2
from foleypref.models.lora import LoraSettings, WithoutAdapters, add_adapters
from foleypref.models.tools import with_network
from foleypref.training.objectives._pairs import PairBatch
from foleypref.training.objectives.flow_dpo import FlowDPO
from tests.ltx2_tiny import tiny_ltx2

CROSS = ("audio_to_video_attn", "video_to_audio_attn")


@pytest.fixture(scope="module")
def model() -> LTX2:
    return tiny_ltx2()


@pytest.fixture(scope="module")
def conditions(model: LTX2) -> dict[str, torch.Tensor]:
    return model.condition([Media(prompt="a dog barks"), Media(prompt="rain")])


def noise(model: LTX2, num: int = 2, first: int = 0) -> Latents:
    return noise_like_rows(model.spec.latents, list(range(first, first + num)))


def adapted(seed: int = 0) -> LTX2:
    model = tiny_ltx2()
    network = add_adapters(model.network, LoraSettings(r=4, lora_alpha=2.0), model.lora_targets, seed)
    return cast(LTX2, with_network(model, network.eval()))


def test_lora_lies_on_both_cross_modal_attentions_and_nowhere_else() -> None:
    names = [
        name.removeprefix("base_model.model.").removesuffix(".lora_A")
        for name, _ in adapted().network.named_modules()
        if name.endswith(".lora_A")
    ]
    layers = ("to_q", "to_k", "to_v", "to_out.0")
    assert sorted(names) == sorted(
        f"transformer_blocks.{block}.{attention}.{layer}"
        for block in range(2)
        for attention in CROSS
        for layer in layers
    )


def pair_batch(model: LTX2, conditions: dict[str, torch.Tensor]) -> PairBatch:
    return PairBatch(
        pairs=[],
        chosen=noise(model, first=10),
        rejected=noise(model, first=20),
        x0=noise(model),
        t=torch.tensor([0.3, 0.7]),
        conditions=conditions,
        groups=[[], []],
    )


def gradients(checkpointing: bool, conditions: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the gradients of one Flow-DPO step, after checking the loss at the start."""
    model = tiny_ltx2()
    cast(Any, model.network).gradient_checkpointing = checkpointing  # as training sets it
    network = add_adapters(model.network, LoraSettings(r=4), model.lora_targets, 0).eval()
    policy, reference = with_network(model, network), with_network(model, WithoutAdapters(network))
    objective = FlowDPO(beta={"audio": 1000.0, "video": 3000.0})
    loss = objective.loss(policy, reference, pair_batch(model, conditions))
    assert loss.value.item() == pytest.approx(2 * math.log(2), abs=1e-6)
    loss.value.backward()
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
    assert all("lora_" in name for name in trained)
    assert all(p.grad is None for name, p in network.named_parameters() if "lora_" not in name)
    return {name: cast(torch.Tensor, p.grad) for name, p in trained.items()}


def test_a_preference_step_moves_adapters_alone_and_checkpointing_changes_nothing(
    conditions: dict[str, torch.Tensor],
) -> None:
    plain, again = gradients(False, conditions), gradients(True, conditions)
    for attention in CROSS:
        assert any(plain[name].abs().max() > 0 for name in plain if attention in name)
    for name in plain:
        torch.testing.assert_close(again[name], plain[name])


def test_bfloat16_is_near_and_its_adapters_are_float32(conditions: dict[str, torch.Tensor]) -> None:
    exact, coarse = tiny_ltx2(), tiny_ltx2(dtype="bfloat16")
    assert {p.dtype for p in coarse.network.parameters()} == {torch.bfloat16}
    x, t = noise(exact), torch.tensor([0.3, 0.7])
    with torch.no_grad():
        v, w = exact.velocity(x, t, conditions), coarse.velocity(x, t, conditions)
    for key in v:
        assert w[key].dtype == torch.float32
        assert F.cosine_similarity(v[key].flatten(), w[key].flatten(), dim=0) > 0.99
    network = add_adapters(coarse.network, LoraSettings(r=4), coarse.lora_targets, 0)
    assert {p.dtype for p in network.parameters() if p.requires_grad} == {torch.float32}
    with torch.autocast("cpu", torch.bfloat16):
        loss = with_network(coarse, network.eval()).velocity(x, t, conditions)["audio"].square().mean()
    loss.backward()
    grads = [p.grad for p in network.parameters() if p.requires_grad]
    assert any(grad is not None and grad.abs().max() > 0 for grad in grads)


def test_merged_adapters_are_exported_and_load_again(
    tmp_path: Path, conditions: dict[str, torch.Tensor]
) -> None:
    from foleypref.models.lora import merged

    model = adapted()
    with torch.no_grad():
        for name, parameter in model.network.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1, generator=torch.Generator().manual_seed(len(name)))
        x, t = noise(model), torch.tensor([0.3, 0.7])
        before = model.velocity(x, t, conditions)
        with_network(model, merged(model.network)).export(str(tmp_path / "tuned.safetensors"))
        again = tiny_ltx2(weights=str(tmp_path / "tuned.safetensors"))
        after, base = again.velocity(x, t, conditions), tiny_ltx2().velocity(x, t, conditions)
    for key in before:
        torch.testing.assert_close(after[key], before[key], rtol=1e-4, atol=1e-4)
        assert (after[key] - base[key]).abs().max() > 1e-3
    assert again.fingerprint != tiny_ltx2().fingerprint
    with pytest.raises(ValueError, match=r"\.safetensors, which diffusers loads; found tuned\.pth"):
        again.export(str(tmp_path / "tuned.pth"))
