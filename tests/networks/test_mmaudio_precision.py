"""MMAudio's flow network in bfloat16, under autocast and with cached tables."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from foleypref.networks.mmaudio_blocks import (
    SelfAttention,
    rotate,
    rotation_table,
)
from tests.golden import check_mmaudio_network as check
from tests.golden.check_mmaudio_network import Golden
from tests.networks.mmaudio_golden import CPU, SMALL, flow_of, rms_error


def test_bf16_weights_stay_near_float32(tiny: Golden) -> None:
    network = copy.deepcopy(tiny.network).to(torch.bfloat16)
    assert rms_error(flow_of(tiny, network)[1], tiny["out.flow"][1]) < 0.03  # t = 0.37, not exact in bf16


def test_bf16_time_would_ruin_v2(tiny_v2: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    rounded = tiny_v2["in.t"].bfloat16().float()
    monkeypatch.setitem(tiny_v2, "in.t", rounded)
    network = copy.deepcopy(tiny_v2.network).to(torch.bfloat16)
    assert rms_error(flow_of(tiny_v2, network)[1], tiny_v2["out.flow"][1]) > 0.3
    with pytest.raises(AssertionError, match="bfloat16"):
        network.t_embed(rounded.bfloat16(), torch.bfloat16)


def test_autocast_stays_near_float32(tiny: Golden) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        velocity = flow_of(tiny)
    assert velocity.dtype == torch.float32
    assert 1e-4 < rms_error(velocity, tiny["out.flow"]) < 0.03


def test_rotations_stay_float32_and_out_of_the_state_dict() -> None:
    network = check.filled(SMALL).to(torch.bfloat16)
    seen: list[Tensor] = []
    network.fused_blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[2]))
    prepared = network.prepare(*network.null_features(1, 6, 16))
    network(torch.zeros(1, 20, 4), torch.zeros(1), prepared)
    assert seen[0].dtype == torch.float32
    assert not [key for key in network.state_dict() if "rot" in key or "freqs" in key]


def test_queries_and_keys_are_rounded_to_bf16_once() -> None:
    attention, x = SelfAttention(16, 1).to(torch.bfloat16), torch.randn(1, 50, 16, dtype=torch.bfloat16)
    table = rotation_table(50, 16, 1.0, CPU)
    qk, v = attention(x, table)
    split = attention.qkv(x).unflatten(-1, (1, 16, 3)).permute(4, 0, 2, 1, 3)
    expected = rotate(F.rms_norm(split[:2].float(), (16,), eps=2.0**-23), table)
    assert expected.dtype == torch.float32
    assert torch.equal(qk, expected.bfloat16())
    assert torch.equal(v, split[2])


def test_tables_made_in_inference_mode_serve_training() -> None:
    network = check.filled(SMALL)
    x, t = torch.zeros(1, 23, 4), torch.zeros(1)
    with torch.inference_mode():
        network(x, t, network.prepare(*network.null_features(1, 7, 16)))
    network(x, t, network.prepare(*network.null_features(1, 7, 16))).sum().backward()
