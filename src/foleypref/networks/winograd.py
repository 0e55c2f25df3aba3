"""Winograd's minimal filtering for 3x3 convolutions on a CPU: 16 products for 4 pixels in place of 36.

F(2x2, 3x3) of Lavin & Gray (arXiv 1509.09308): exact algebra, and in float32 as accurate as the plain sum.
It pays when channels are many and pictures small, because products then take nearly all the time; on a GPU
cuDNN chooses its own algorithm.

Letters: B pictures, C channels in, O channels out, H, W pixels, h, w tiles of 2x2 pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

FILTER = ((1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, 1.0))  # G: a filter of 3 at 4 points

AT_ONCE = 2**22  # numbers held at once: 16 MB, because every operation maps memory above 32 MB anew


class WinogradConv(nn.Module):
    """A 3x3 `nn.Conv2d` with stride 1 and padding 1, computed faster; its filters take 16/9 of the memory.

    Raises ValueError for another kind of convolution.
    """

    filters: Tensor

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        if (conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups) != (
            (3, 3), (1, 1), (1, 1), (1, 1), 1
        ):  # fmt: skip
            raise ValueError(f"give a 3x3 convolution with stride and padding 1, not {conv}")
        points = torch.tensor(FILTER, dtype=torch.float64)
        both = torch.kron(points, points)  # (16, 9), of rows and columns
        filters = torch.empty(16, *conv.weight.shape[:2])
        for part, out in zip(conv.weight.split(64), filters.split(64, 1)):  # to save memory
            out.copy_((both @ part.double().flatten(2).mT).movedim(1, 0))
        self.register_buffer("filters", filters, persistent=False)  # (16, O, C)
        self.bias = conv.bias

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B O H W"]:
        """x (B, C, H, W) -> (B, O, H, W)."""
        tiles = -(-x.shape[2] // 2) * -(-x.shape[3] // 2)
        at_once = max(1, AT_ONCE // (16 * tiles * max(self.filters.shape[1:])))
        return torch.cat([self._few(part) for part in x.split(at_once)])

    def _few(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        points = _points(x.transpose(0, 1))  # (4, 4, C, B, h, w)
        products = torch.bmm(self.filters, points.flatten(0, 1).flatten(2))  # (16, O, B·h·w)
        out = _pixels(products.view(4, 4, -1, *points.shape[3:]))[..., :height, :width]
        return (out if self.bias is None else out + self.bias[:, None, None, None]).transpose(0, 1)


def _points(x: Tensor) -> Tensor:
    """Transform overlapping 4x4 tiles of (C, B, H, W) to the 16 points: (4, 4, C, B, h, w)."""
    h, w = -(-x.shape[2] // 2), -(-x.shape[3] // 2)
    x = F.pad(x, (1, 1 + 2 * w - x.shape[3], 1, 1 + 2 * h - x.shape[2]))
    d = [x[:, :, i : i + 2 * h - 1 : 2] for i in range(4)]
    points = x.new_empty(4, 4, *x.shape[:2], h, w)
    for rows, out in zip((d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]), points):
        e = [rows[..., j : j + 2 * w - 1 : 2] for j in range(4)]
        torch.sub(e[0], e[2], out=out[0])
        torch.add(e[1], e[2], out=out[1])
        torch.sub(e[2], e[1], out=out[2])
        torch.sub(e[1], e[3], out=out[3])
    return points


def _pixels(m: Tensor) -> Tensor:
    """Transform products at the points (4, 4, O, B, h, w) back to pixels (O, B, 2·h, 2·w)."""
    _, _, channels, pictures, h, w = m.shape
    pixels = m.new_empty(channels, pictures, h, 2, w, 2)
    for row, n in enumerate((m[0] + m[1] + m[2], m[1] - m[2] - m[3])):
        torch.add(n[0] + n[1], n[2], out=pixels[:, :, :, row, :, 0])
        torch.sub(n[1] - n[2], n[3], out=pixels[:, :, :, row, :, 1])
    return pixels.view(channels, pictures, 2 * h, 2 * w)
