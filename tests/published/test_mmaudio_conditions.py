"""MMAudio's conditions: golden vectors, and Synchformer's visual branch against closed forms."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from foleypref.networks.synchformer_visual import (
    FRAMES,
    PLACES,
    PREFIX,
    DividedAttention,
    SynchformerVisual,
    num_segments,
    sync_pixels,
    visual_weights,
)
from tests.golden import check_mmaudio_conditions as checks
from tests.golden import recipes
from tests.golden.compare import LIMIT, relative_error

GOLDEN = Path(__file__).parents[1] / "golden"

# -- golden vectors --------------------------------------------------------------------------------------


def assert_agrees(name: str) -> None:
    matching = [check for pattern, check in checks.CHECKS.items() if Path(name).match(pattern)]
    assert matching
    errors = {key: relative_error(ours, expected) for key, ours, expected in matching[0](GOLDEN / name)}
    assert errors
    assert max(errors.values()) <= LIMIT, errors


@pytest.mark.parametrize(
    "name",
    [
        "mmaudio_synchformer_tiny.safetensors",
        "mmaudio_keys_synchformer_visual.json",
        "mmaudio_clip_tiny.safetensors",
        "mmaudio_keys_clip_vit_h14_378.json",
        "mmaudio_preprocess_frame_index.json",
        "mmaudio_preprocess_resize.safetensors",
        "scorers_fps_frames.json",
    ],
)
def test_golden_numbers(name: str) -> None:
    assert_agrees(name)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # 28 full-size segments, 2 s each on two free cores
def test_the_scorers_visual_half_is_the_same_network_at_full_size() -> None:
    assert_agrees("scorers_synchformer.safetensors")


def test_golden_token_ids() -> None:
    assert_agrees("mmaudio_clip_tokens.json")


def test_a_file_in_the_form_of_the_real_size_is_checked_too(tmp_path: Path) -> None:
    network = tiny_synchformer()
    network.load_state_dict(visual_weights(checks.synchformer_state(network)))
    video = recipes.mmaudio_input("sync_video_real", (1, 32, 3, 224, 224), 0.5).clamp(-1, 1)
    with torch.no_grad():
        parts = [network.segment(video[:, at : at + 16]) for at in (0, 8, 16)]
    outputs = {"out.segment0": parts[0][:, None], "out.features": torch.cat(parts, dim=1)}
    path = tmp_path / "mmaudio_synchformer_real.safetensors"
    save_file(outputs, path, {"config": "embed 24 depth 1 heads 2", "rule": "W1"})
    errors = [relative_error(ours, expected) for _, ours, expected in checks.synchformer(path)]
    assert len(errors) == 2
    assert max(errors) <= LIMIT
    save_file(outputs | {"out.features": 1.001 * outputs["out.features"]}, path, {"config": "24, 1, 2"})
    assert max(relative_error(ours, expected) for _, ours, expected in checks.synchformer(path)) > LIMIT


# -- Synchformer's visual branch -------------------------------------------------------------------------


def tiny_synchformer(seed: int = 0) -> SynchformerVisual:
    torch.manual_seed(seed)
    network = SynchformerVisual(width=24, depth=1, heads=2).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network


def tiny_video(batch: int, frames: int, seed: int = 0) -> Tensor:
    return torch.randn(batch, frames, 3, 224, 224, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("over_time", [False, True])
def test_divided_attention_is_full_attention_under_a_mask(over_time: bool) -> None:
    torch.manual_seed(0)
    attention = DividedAttention(8, 2, over_time)
    x = torch.randn(2, 1 + FRAMES * PLACES, 8)
    frame = torch.arange(FRAMES).repeat_interleave(PLACES)
    place = torch.arange(PLACES).repeat(FRAMES)
    group = place if over_time else frame
    seen = torch.ones(1 + len(group), 1 + len(group), dtype=torch.bool)  # CLS sees all and is seen by all
    seen[1:, 1:] = group[:, None] == group
    q, k, v = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in attention.qkv(x).chunk(3, dim=-1))
    full = F.scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(1, 2).flatten(2)
    torch.testing.assert_close(attention(x), attention.proj(full), rtol=1e-5, atol=1e-6)


def test_pooling_is_the_cls_output_of_a_pre_norm_encoder_layer() -> None:
    torch.manual_seed(0)
    pool = tiny_synchformer().spatial_attn_agg
    layer = nn.TransformerEncoderLayer(
        24, 2, 96, dropout=0.0, activation=F.gelu, layer_norm_eps=1e-6, batch_first=True, norm_first=True
    )
    layer.load_state_dict({k: v for k, v in pool.state_dict().items() if k != "cls_token"})
    x = torch.randn(3, 7, 24)
    whole = layer(torch.cat([pool.cls_token.expand(3, -1, -1), x], dim=1))
    torch.testing.assert_close(pool(x), whole[:, 0], rtol=1e-5, atol=1e-5)


def test_trap_6_every_layer_norm_has_its_own_epsilon() -> None:
    modules = tiny_synchformer().modules()
    assert {module.eps for module in modules if isinstance(module, nn.LayerNorm)} == {1e-6}


@torch.no_grad()
def test_segments_overlap_by_half_and_never_see_each_other() -> None:
    network, video = tiny_synchformer(), tiny_video(1, 32)
    features = network.segments(video)
    assert features.shape == (1, 3, 8, 24)
    changed = video.clone()
    changed[:, 20] += 1.0  # in segments 1 (8 to 23) and 2 (16 to 31)
    moved = (network.segments(changed) - features).abs().amax(dim=(0, 2, 3))
    assert moved[0] == 0
    assert moved[1] > 1e-3
    assert moved[2] > 1e-3
    torch.testing.assert_close(network(video), features.flatten(1, 2))


@torch.no_grad()
def test_memory_is_bounded_by_the_segments_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    network, video = tiny_synchformer(), tiny_video(2, 40)
    sizes = []
    whole = network.segments(video, segments_at_once=8)
    segment = SynchformerVisual.segment
    monkeypatch.setattr(
        SynchformerVisual,
        "segment",
        lambda self, frames: (sizes.append(len(frames)), segment(self, frames))[1],
    )
    torch.testing.assert_close(network.segments(video, segments_at_once=3), whole, rtol=1e-5, atol=1e-5)
    assert sizes == [3, 3, 2]  # 2 videos of 4 segments: a chunk may span both
    torch.testing.assert_close(network.segments(video.flip(0)), whole.flip(0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("seconds", "tokens"), [(0.64, 8), (1.0, 16), (2.0, 40), (4.96, 112), (5.0, 112), (8.0, 192), (10.0, 240)]
)
def test_segments_fit_the_sync_length_of_a_duration(seconds: float, tokens: int) -> None:
    assert 8 * num_segments(int(25 * seconds)) == tokens
    assert int((math.floor((seconds * 25 - 16) / 8) + 1) * 8) == tokens


@torch.no_grad()
def test_a_rest_of_frames_is_left_out_and_too_few_are_refused() -> None:
    network, video = tiny_synchformer(), tiny_video(1, 23)
    torch.testing.assert_close(network(video), network(video[:, :16]))
    with pytest.raises(ValueError, match=r"T >= 16.*\(1, 15, 3, 224, 224\)"):
        network(video[:, :15])
    with pytest.raises(ValueError, match="224"):
        network(video[..., :200])
    assert [num_segments(n) for n in (0, 15, 16, 23, 24)] == [0, 0, 1, 1, 2]


def test_weights_come_by_prefix_from_a_file_that_holds_more() -> None:
    network = tiny_synchformer()
    state = {PREFIX + key: value for key, value in network.state_dict().items()}
    assert set(visual_weights(state | {"vproj.weight": torch.zeros(1)})) == set(network.state_dict())
    with pytest.raises(ValueError, match=r"vfeat_extractor.*synchformer_state_dict\.pth"):
        visual_weights({"vproj.weight": torch.zeros(1)})


@torch.no_grad()
def test_dtype_is_kept_and_pixels_are_scaled_to_one() -> None:
    frames = torch.tensor([0, 255, 51], dtype=torch.uint8).expand(4, 224, 224, 3)
    pixels = sync_pixels(frames)
    assert pixels.shape == (4, 3, 224, 224)
    torch.testing.assert_close(pixels[0, :, 0, 0], torch.tensor([-1.0, 1.0, -0.6]))
    features = tiny_synchformer().bfloat16()(tiny_video(1, 16).bfloat16())
    assert features.dtype == torch.bfloat16
