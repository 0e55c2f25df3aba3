"""The convolution over time as matrix products, against torch's, and the gated MLP made of it."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from foleypref.networks.mmaudio_blocks import GatedMLP
from foleypref.networks.time_conv import ChannelLastConv1d, windows


def reference(conv: ChannelLastConv1d, x: Tensor) -> Tensor:
    """torch's own convolution."""
    k = conv.weight.shape[2]
    return F.conv1d(x.transpose(1, 2), conv.weight, conv.bias, padding=k // 2).transpose(1, 2)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("length", [1, 2, 5, 11])
@pytest.mark.parametrize("k", [1, 3, 7])
@pytest.mark.parametrize(("inputs", "outputs"), [(3, 5), (5, 3), (4, 4)])
def test_convolution_is_torchs(inputs: int, outputs: int, k: int, length: int, bias: bool) -> None:
    conv = ChannelLastConv1d(inputs, outputs, k, bias=bias).double()
    assert conv.weight.shape == (outputs, inputs, k)
    x = torch.randn(2, length, inputs, dtype=torch.float64, requires_grad=True)
    grad = torch.randn(2, length, outputs, dtype=torch.float64)
    wanted = [x, *conv.parameters()]
    ours, expected = conv(x), reference(conv, x)
    torch.testing.assert_close(ours, expected)
    gradients = torch.autograd.grad(ours, wanted, grad)
    torch.testing.assert_close(gradients, torch.autograd.grad(expected, wanted, grad))
    torch.testing.assert_close(conv(windows(x, k)), expected)


@pytest.mark.parametrize(("inputs", "outputs"), [(2, 3), (3, 2)])
def test_convolution_differentiates_twice(inputs: int, outputs: int) -> None:
    conv = ChannelLastConv1d(inputs, outputs, 3).double()
    x = torch.randn(1, 4, inputs, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(conv, x)


def test_bf16_terms_are_summed_in_float32() -> None:
    conv = ChannelLastConv1d(2, 1, 3, bias=False).to(torch.bfloat16)
    conv.weight.data.fill_(1.0)
    x = torch.tensor([[[1.0, 0.0], [256.0, 0.0], [1.0, 0.0]]], dtype=torch.bfloat16)
    assert conv(x).flatten().tolist() == [256.0, 258.0, 256.0]  # 257 is no bf16 number


def packed(weight: Tensor) -> bool:
    """Whether the product reads the weight without a copy."""
    outputs, inputs, _ = weight.shape
    return weight.permute((2, 0, 1) if inputs > outputs else (0, 2, 1)).is_contiguous()


@pytest.mark.parametrize("assign", [False, True])
def test_weights_keep_their_layout(assign: bool) -> None:
    for inputs, outputs in ((3, 5), (5, 3)):
        state = {"weight": torch.randn(outputs, inputs, 3)}
        conv = ChannelLastConv1d(inputs, outputs, 3, bias=False)
        assert packed(conv.weight)
        conv.load_state_dict(state, assign=assign)
        assert torch.equal(conv.weight, state["weight"])
        for other in (conv, copy.deepcopy(conv), copy.deepcopy(conv).to(torch.bfloat16)):
            assert packed(other.weight)
        conv(torch.randn(1, 4, inputs)).sum().backward()
        optimizer = torch.optim.AdamW(conv.parameters())
        optimizer.step()
        assert packed(conv.weight.grad)
        assert packed(optimizer.state[conv.weight]["exp_avg"])


def test_gated_mlp_is_its_formula() -> None:
    mlp = GatedMLP(8, 3)
    assert mlp.w1.weight.shape == (256, 8, 3)
    x = torch.randn(2, 6, 8)
    expected = reference(mlp.w2, F.silu(reference(mlp.w1, x)) * reference(mlp.w3, x))
    torch.testing.assert_close(mlp(x), expected)
    assert {d: GatedMLP(d).w1.out_features for d in (16, 96, 448, 896)} == {
        16: 256,
        96: 256,
        448: 1280,
        896: 2560,
    }
