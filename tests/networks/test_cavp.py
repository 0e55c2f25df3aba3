"""CAVP against golden vectors of the official code, 3-D convolutions, and its groups of frames."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from foleypref.models.backbones.frieren import cavp_frame
from foleypref.networks.cavp import CAVP, GROUP, _ConvNorm, cavp_pixels, visual_weights
from tests.golden import check_frieren_parts as check
from tests.golden.check_frieren_parts import filled
from tests.golden.compare import LIMIT, relative_error

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = [
    pytest.param(path, run, id=path.name, marks=[pytest.mark.slow] if path.suffix == ".safetensors" else [])
    for pattern, run in check.CHECKS.items()
    for path in sorted(GOLDEN.glob(pattern))
    if "cavp" in path.name
]


@pytest.fixture(scope="module")
def cavp() -> CAVP:
    """As deep as the released one and a sixteenth as wide."""
    network: CAVP = filled(CAVP(width=4, embed_dim=16), "b").requires_grad_(False)
    return network


def video(num: int, seed: int = 0) -> Tensor:
    """A video (num, 3, 32, 32) in [0, 1]."""
    return torch.rand(num, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("path", "run"), CASES)
def test_golden(path: Path, run: Callable[[Path], check.Quantities]) -> None:
    errors = [(relative_error(ours, expected), name) for name, ours, expected in run(path)]
    assert max(errors) <= (LIMIT, ""), max(errors)


def test_the_golden_files_are_there() -> None:
    assert len(CASES) == 2


@pytest.mark.parametrize(
    ("kernel", "stride", "time"), [(3, 2, False), (7, 2, False), (1, 1, False), (3, 1, True)]
)
def test_convolutions_are_those_of_three_dimensions(kernel: int, stride: int, time: bool) -> None:
    ours = filled(_ConvNorm(6, 10, kernel, stride, time=time), "b")
    size = (3, 1, 1) if time else (1, kernel, kernel)
    whole = nn.Conv3d(6, 10, size, (1, stride, stride), tuple(k // 2 for k in size), bias=False)
    norm = nn.BatchNorm3d(10).eval()
    whole.load_state_dict(ours.conv.state_dict())
    norm.load_state_dict(ours.bn.state_dict())
    x = torch.randn(2, 5, 6, 9, 8, generator=torch.Generator().manual_seed(0))  # (B, T, C, H, W)
    with torch.no_grad():
        expected = norm(whole(x.transpose(1, 2))).transpose(1, 2).flatten(0, 1)
        torch.testing.assert_close(ours(x.flatten(0, 1), 5), expected, rtol=1e-4, atol=1e-5)


def test_features_are_of_length_one_and_one_a_frame(cavp: CAVP) -> None:
    found = cavp.features(video(5))
    assert found.shape == (5, 16)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(5))


def test_a_frame_sees_nine_frames_either_side(cavp: CAVP) -> None:
    network, frames = copy.deepcopy(cavp).double(), video(GROUP).double()  # the ninth frame says 1e-9
    changed = frames.clone()
    changed[20] = 1 - changed[20]
    moved = (network.features(changed) != network.features(frames)).any(1)
    assert moved.nonzero().flatten().tolist() == list(range(11, 30))


def test_groups_of_forty_do_not_see_each_other(cavp: CAVP) -> None:
    frames = video(45)
    found = cavp.features(frames)
    apart = torch.cat([cavp.features(frames[:40]), cavp.features(frames[40:])])
    torch.testing.assert_close(found, apart)
    together = torch.nn.functional.normalize(cavp(frames[None])[0], dim=-1)
    assert (together - found)[31:].abs().amax() > 1e-3
    torch.testing.assert_close(together[:31], found[:31], rtol=1e-4, atol=1e-5)


def test_several_videos_are_several_groups(cavp: CAVP) -> None:
    first, second = video(4), video(4, seed=1)
    both = cavp(torch.stack([first, second]))
    torch.testing.assert_close(both, torch.cat([cavp(first[None]), cavp(second[None])]), rtol=1e-4, atol=1e-5)


def test_pixels_are_divided_by_255_and_nothing_else() -> None:
    frames = torch.tensor([0, 51, 255], dtype=torch.uint8).expand(2, 4, 4, 3)
    pixels = cavp_pixels(frames)
    assert pixels.shape == (2, 3, 4, 4)
    assert pixels[0, :, 0, 0].tolist() == [0.0, pytest.approx(0.2), 1.0]


def test_frames_are_shrunk_as_the_golden_one_bit_for_bit() -> None:
    golden = load_file(GOLDEN / "frieren_cavp.safetensors")
    assert np.array_equal(cavp_frame(golden["pre.frame_u8"].numpy()), golden["pre.resized_u8"].numpy())
    stripes = np.zeros((448, 640, 3), np.uint8)
    stripes[::2] = 200
    assert int(cavp_frame(stripes)[20:200].min()) > 60  # without averaging, lines would vanish


def test_weights_are_found_under_any_wrapper_and_the_rest_is_left_by_name(cavp: CAVP) -> None:
    plain = cavp.state_dict()
    wrapped = {
        name.replace("video_encoder.", "video_encoder.module."): value for name, value in plain.items()
    }
    wrapped = {f"module.{name}": value for name, value in wrapped.items()}
    extra = {
        "spec_encoder.fc1.weight": torch.zeros(1),
        "logit_scale": torch.zeros(()),
        "other.x": torch.zeros(1),
    }
    assert visual_weights(wrapped | extra).keys() == plain.keys() | {"other.x"}
    with pytest.raises(ValueError, match=r"no 'video_encoder\.\*' weight among 3 .*give cavp_epoch66\.ckpt"):
        visual_weights(extra)
