"""CAVP: contrastive audio-visual features, one vector per video frame at 4 fps; Frieren's view of the video.

Diff-Foley's first stage (arXiv 2306.17203). Its visual side is a ResNet-50 that convolves over time only in
the last two stages. Weight names are those of `cavp_epoch66.ckpt`, whose audio side is left out.

Letters: B videos, T frames, N = B T, C channels, E features (512).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FPS, SIDE = 4, 224
GROUP = 40  # frames that see each other: ten seconds, as all features were made
UNIT_EPS = 1e-12
UNUSED = ("spec_encoder.", "logit_scale")
"""Prefixes of the file's other weights: the audio side and the loss's temperature."""

_PICTURE = ("video_encoder.", "video_project_head.")


def cavp_pixels(frames: Tensor) -> Tensor:
    """Convert frames (..., 224, 224, 3) uint8 to (..., 3, 224, 224) in [0, 1]; no mean is subtracted."""
    return frames.movedim(-1, -3) / 255


def visual_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the visual side of a CAVP state dict, without `module.` in its names and without `UNUSED`.

    Unknown weights stay, so that loading reports them. Raises ValueError if there is no visual side.
    """
    plain = {name.replace("module.", ""): value for name, value in state.items()}
    if not any(name.startswith(_PICTURE) for name in plain):
        raise ValueError(
            f"no 'video_encoder.*' weight among {len(state)} ({', '.join(sorted(state)[:3])}, ...); "
            "give cavp_epoch66.ckpt"
        )
    return {name: value for name, value in plain.items() if not name.startswith(UNUSED)}


class _ConvNorm(nn.Module):
    """A convolution over space or over time, without bias, and its frozen norm; frames are batch rows."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, *, time: bool = False
    ) -> None:
        super().__init__()
        size = (kernel, 1, 1) if time else (1, kernel, kernel)
        self.stride, self.padding, self.time = stride, kernel // 2, time
        self.conv = nn.Conv3d(inputs, outputs, size, bias=False)  # for its weight's name and shape
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """x (N, C, H, W), `frames` per video -> (N, C out, H / stride, W / stride)."""
        if not self.time:
            return self.bn(F.conv2d(x, self.conv.weight[:, :, 0], None, self.stride, self.padding))
        taps = self.conv.weight[..., 0, 0].movedim(2, 0).flatten(0, 1)[..., None, None]  # (3 C out, C, 1, 1)
        before, here, after = F.conv2d(x, taps).unflatten(0, (-1, frames)).chunk(3, dim=2)  # (B, T, C out, …)
        y = here.clone()
        y[:, 1:] += before[:, :-1]  # nothing is before the first frame of a group or after its last
        y[:, :-1] += after[:, 1:]
        return self.bn(y.flatten(0, 1))


class _Bottleneck(nn.Module):
    """1×1, 3×3, 1×1, added to the input; the first 1×1 also sees the frames before and after if `time`."""

    def __init__(self, inputs: int, inner: int, stride: int, *, time: bool, first: bool) -> None:
        super().__init__()
        self.conv1 = _ConvNorm(inputs, inner, 3 if time else 1, time=time)
        self.conv2 = _ConvNorm(inner, inner, 3, stride)
        self.conv3 = _ConvNorm(inner, 4 * inner, 1)
        if first:
            self.downsample = _ConvNorm(inputs, 4 * inner, 1, stride)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        y = F.relu(self.conv1(x, frames))
        y = F.relu(self.conv2(y, frames))
        y = self.conv3(y, frames)
        return F.relu(y + (self.downsample(x, frames) if hasattr(self, "downsample") else x))


class SlowOnly(nn.Module):
    """ResNet-50 on every frame, with three taps over time per block in stages 3 and 4; T is never reduced."""

    def __init__(self, width: int = 64, depths: Sequence[int] = (3, 4, 6, 3)) -> None:
        super().__init__()
        self.conv1 = _ConvNorm(3, width, 7, 2)
        inputs = width
        for stage, depth in enumerate(depths):
            inner = width * 2**stage
            blocks = nn.ModuleList()
            for index in range(depth):
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(_Bottleneck(inputs, inner, stride, time=stage >= 2, first=index == 0))
                inputs = 4 * inner
            setattr(self, f"layer{stage + 1}", blocks)
        self.out_dim, self.num_stages = inputs, len(depths)

    def forward(self, video: Tensor) -> Tensor:
        """video (B, T, 3, H, W) -> (B, T, 32 width)."""
        frames = video.shape[1]
        x = video.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        x = F.max_pool2d(F.relu(self.conv1(x, frames)), 3, 2, 1)
        for stage in range(self.num_stages):
            for block in self.get_submodule(f"layer{stage + 1}").children():
                x = block(x, frames)
        return x.mean((2, 3)).unflatten(0, (-1, frames))


class CAVP(nn.Module):
    """The visual side: frames to vectors. Use it in `eval` mode, with the norms' stored statistics."""

    def __init__(self, width: int = 64, depths: Sequence[int] = (3, 4, 6, 3), embed_dim: int = 512) -> None:
        super().__init__()
        self.video_encoder = SlowOnly(width, depths)
        self.video_project_head = nn.Linear(self.video_encoder.out_dim, embed_dim)

    def forward(self, video: Tensor) -> Tensor:
        """One group of frames per video, (B, T, 3, H, W) in [0, 1] -> vectors (B, T, E), not normalised."""
        return self.video_project_head(self.video_encoder(video))

    def features(self, video: Tensor) -> Tensor:
        """Compute unit vectors (T, E) of a video (T, 3, 224, 224) in [0, 1], in groups of 40 frames.

        Groups do not see each other and the last may be shorter, so a frame's vector depends on where its
        video was cut.
        """
        groups = [F.normalize(self(group[None])[0], dim=-1, eps=UNIT_EPS) for group in video.split(GROUP)]
        return torch.cat(groups)
