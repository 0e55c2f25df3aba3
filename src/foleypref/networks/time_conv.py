"""Convolutions over time of MMAudio and Frieren, channels last: as matrix products over windows.

Letters: B batch, N tokens of a stream, C channels, k kernel. Layers named as in the checkpoints.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _Windows(torch.autograd.Function):
    """w[n, j] = x[n + j - k // 2], zero beyond the ends: (B, N, C) -> (B, N, k C)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, k: int, flip: bool) -> Tensor:
        ctx.k, ctx.flip = k, flip
        padded = F.pad(x, (0, 0, k // 2, k // 2)).unfold(1, k, 1).transpose(2, 3)  # (B, N, k, C), a view
        return (padded.flip(2) if flip else padded.contiguous()).flatten(2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _Overlap.apply(grad, ctx.k, not ctx.flip), None, None


class _Overlap(torch.autograd.Function):
    """y[n] = Σ_j z[n + j - k // 2, j]: (B, N, k C) -> (B, N, C); windows' adjoint up to the order of k."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, k: int, flip: bool) -> Tensor:
        ctx.k, ctx.flip = k, flip
        z = z.unflatten(2, (k, -1))
        # bf16 terms are summed in float32, as a convolution would
        y = z[:, :, k // 2].to(torch.promote_types(z.dtype, torch.float32), copy=True)
        for j in range(k):
            shift = k // 2 - j if flip else j - k // 2
            if shift > 0:
                y[:, :-shift] += z[:, shift:, j]
            elif shift < 0:
                y[:, -shift:] += z[:, :shift, j]
        return y.to(z.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _Windows.apply(grad, ctx.k, not ctx.flip), None, None


def windows(x: Tensor, k: int) -> Tensor:
    """Lay the k neighbours of every token side by side, zeros beyond the ends: (B, N, C) -> (B, N, k C)."""
    if k == 1:
        return x
    device = x.device.type
    autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    if autocast and x.dtype == torch.float32:
        x = x.to(torch.get_autocast_dtype(device))  # before the k-fold copy, not after
    return _Windows.apply(x, k, False)


class ChannelLastConv1d(nn.Conv1d):
    """A "same" convolution over time as one matrix product: (B, N, in) -> (B, N, out), weight (out, in, k).

    Layers that read the same input share its copy: x may be given as `windows(x, k)`, (B, N, k in). For plain
    x with in > out, the product comes first: k narrow results are summed instead of copying k wide inputs.
    The weight is stored in the order in which the product reads it, (out, k, in) or (k, out, in).
    """

    # Against F.conv1d on the transposed view, forward: 1.0 to 1.2 times as fast in float32 and 1.3 to 2.3 in
    # bf16; with backward 1.15 to 1.35 and 1.3 to 1.9 (448 -> 1280 -> 448, 896 -> 2560 -> 896, k = 3, B 1 to 8
    # and L 250 or 345, one CPU thread). Where the weight has to be copied first: 0.8 to 1.15 and 0.7 to 2.0.

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int],
        stride: int | tuple[int] = 1,
        padding: int | tuple[int] | None = None,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        k = kernel_size if isinstance(kernel_size, int) else kernel_size[0]
        padding = k // 2 if padding is None else padding
        super().__init__(in_channels, out_channels, k, stride, padding, groups=groups, bias=bias)
        assert (self.padding, self.stride, groups, k % 2) == ((k // 2,), (1,), 1, 1), "the same length only"
        self._pack()

    def forward(self, x: Tensor) -> Tensor:
        """x (B, N, in) or its windows (B, N, k in) -> (B, N, out)."""
        k, has_windows = self.kernel_size[0], x.shape[-1] != self.in_channels
        if self.in_channels > self.out_channels and not has_windows:
            z = F.linear(x, self.weight.permute(2, 0, 1).flatten(0, 1))  # (B, N, k out)
            y = z if k == 1 else _Overlap.apply(z, k, False)
            return y if self.bias is None else y + self.bias.to(y.dtype)
        x = x if has_windows else windows(x, k)
        return F.linear(x, self.weight.transpose(1, 2).flatten(1), self.bias)

    def _pack(self) -> None:
        order = (2, 0, 1) if self.in_channels > self.out_channels else (0, 2, 1)
        back = (1, 2, 0) if self.in_channels > self.out_channels else (0, 2, 1)
        self.weight.data = self.weight.data.permute(order).contiguous().permute(back)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._pack()  # assign=True brings the file's layout


def projection(inputs: int, outputs: int, kernel: int, bias: bool) -> nn.Module:
    """Return a linear layer over `kernel` neighbouring tokens."""
    if kernel == 1:
        return nn.Linear(inputs, outputs, bias=bias)
    return ChannelLastConv1d(inputs, outputs, kernel, bias=bias)
