"""Winograd's filtering: what a plain convolution gives, at any size; other convolutions are refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from foleypref.networks.winograd import WinogradConv


def convolution(channels: int, to: int, seed: int = 0, **settings: object) -> nn.Conv2d:
    torch.manual_seed(seed)
    settings = {"kernel_size": 3, "padding": 1} | settings
    return nn.Conv2d(channels, to, **settings).requires_grad_(False)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 5), (8, 8), (25, 2), (4, 7)])
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_the_convolution(size: tuple[int, int], *, bias: bool) -> None:
    conv = convolution(24, 70, bias=bias)
    x = torch.randn(3, 24, *size)
    truth = nn.functional.conv2d(
        x.double(), conv.weight.double(), conv.bias.double() if conv.bias is not None else None, padding=1
    )
    found = WinogradConv(conv)(x)
    assert found.shape == truth.shape
    assert (found - truth).abs().max() < 2e-6 * truth.abs().max()


def test_it_rounds_no_worse_than_the_plain_sum() -> None:
    conv, x = convolution(512, 64), torch.randn(2, 512, 10, 6)
    truth = nn.functional.conv2d(x.double(), conv.weight.double(), conv.bias.double(), padding=1)  # type: ignore[union-attr]
    plain, ours = ((one - truth).square().mean().sqrt() for one in (conv(x), WinogradConv(conv)(x)))
    assert ours < 4 * plain


@pytest.mark.parametrize(
    "settings",
    [{"stride": 2}, {"padding": 0}, {"kernel_size": 5}, {"dilation": 2}, {"groups": 2}],
)
def test_another_convolution_is_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="give a 3x3 convolution with stride and padding 1, not Conv2d"):
        WinogradConv(convolution(4, 4, **settings))
