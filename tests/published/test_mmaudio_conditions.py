"""What MMAudio is conditioned on: golden vectors, closed forms, every trap that still runs when missed."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from foleypref.media import clip as media
from foleypref.media import frame_rules
from foleypref.media.clip import MediaError, write_audio, write_video
from foleypref.media.decoding import render
from foleypref.media.frame_rules import clip_frame, read_conditioning_frames, shortened, sync_frame
from foleypref.networks import synchformer_visual
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
from foleypref.published.clip import ClipEncoders, ClipSizes, clip_pixels, load_clip
from foleypref.published.clip_tokens import (
    NUM_TOKENS,
    ClipTokenizer,
    clean,
    plain_vocabulary,
)
from tests.golden import check_mmaudio_conditions as checks
from tests.golden import recipes
from tests.golden.compare import LIMIT, relative_error
from tests.media.test_clip import encode

GOLDEN = Path(__file__).parents[1] / "golden"
FRAME_INDEX = json.loads((GOLDEN / "mmaudio_preprocess_frame_index.json").read_text())
TINY_CLIP = ClipSizes(28, 14, 16, 2, 2, 8, 2, 2, 12, NUM_TOKENS, 64)

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
    def epsilons(network: nn.Module) -> set[float]:
        found = {m.eps for m in network.modules() if isinstance(m, nn.LayerNorm)}
        assert found
        return found

    assert epsilons(tiny_synchformer()) == {1e-6}
    assert epsilons(tiny_clip()) == {1e-5}


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


# -- CLIP ------------------------------------------------------------------------------------------------


def open_clip_state(sizes: ClipSizes = TINY_CLIP) -> dict[str, Tensor]:
    return {key: recipes.mmaudio_weight(key, shape) for key, shape in checks.open_clip_shapes(sizes).items()}


def tiny_clip() -> ClipEncoders:
    return load_clip(open_clip_state(), TINY_CLIP)


def prompt_ids() -> Tensor:
    ids = torch.zeros(2, NUM_TOKENS, dtype=torch.int64)
    ids[0, :5] = torch.tensor([62, 3, 9, 5, 63])
    ids[1, :2] = torch.tensor([62, 63])  # the empty prompt
    return ids


def test_trap_7_a_larger_frame_is_seen_from_its_top_left_corner_only() -> None:
    clip = tiny_clip()
    frames = torch.randn(2, 3, 34, 34, generator=torch.Generator().manual_seed(0))  # as 384 to 378: 6 more
    seen = clip.encode_image(frames)
    torch.testing.assert_close(seen, clip.encode_image(frames[..., :28, :28]))
    assert (seen - clip.encode_image(frames[..., 3:31, 3:31])).abs().max() > 1e-2  # not the centre
    for refused_frames in (frames[..., :27, :], torch.zeros(1, 3, 42, 42)):
        with pytest.raises(ValueError, match="28 pixels a side"):
            clip.encode_image(refused_frames)


def test_end_token_padding_and_a_mask_are_not_the_condition() -> None:
    clip, ids = tiny_clip(), prompt_ids()
    states = clip.encode_text(ids)
    assert states.shape == (2, NUM_TOKENS, TINY_CLIP.text_width)
    torch.testing.assert_close(states.norm(dim=-1), torch.ones(2, NUM_TOKENS))
    padded = ids.masked_fill(ids == 0, 63)  # what tokenizers of `transformers` do
    padded[:, 0] = 62
    mask = torch.ones_like(ids)
    mask[0, 5:] = mask[1, 2:] = 0
    other = F.normalize(clip.text(input_ids=padded, attention_mask=mask).last_hidden_state, dim=-1)
    torch.testing.assert_close(other[0, :5], states[0, :5], rtol=1e-4, atol=1e-5)  # causal: words agree
    assert (other[0, 5:] - states[0, 5:]).abs().max() > 0.1
    masked = F.normalize(clip.text(input_ids=ids, attention_mask=mask).last_hidden_state, dim=-1)
    assert (masked[0, 5:] - states[0, 5:]).abs().max() > 1e-3


def test_trap_8_the_empty_prompt_is_a_prompt_like_others() -> None:
    states = tiny_clip().encode_text(prompt_ids())
    assert (states[0, 1:] - states[1, 1:]).abs().amax(dim=-1).min() > 1e-3
    torch.testing.assert_close(
        states[0, 0], states[1, 0], rtol=1e-4, atol=1e-5
    )  # both have seen the start only
    vocab, merges = plain_vocabulary([])
    assert ClipTokenizer(vocab, merges)([""])[0].tolist() == [512, 513] + 75 * [0]


def test_projected_keys_queries_and_values_are_the_thirds_of_the_file() -> None:
    state = open_clip_state()
    clip = load_clip(state, TINY_CLIP)
    packed = state["transformer.resblocks.1.attn.in_proj_weight"]
    attention: Any = clip.text.get_submodule("encoder.layers.1.self_attn")
    for at, linear in enumerate((attention.q_proj, attention.k_proj, attention.v_proj)):
        assert torch.equal(linear.weight, packed[8 * at : 8 * at + 8])
        assert linear.weight.untyped_storage().data_ptr() == packed.untyped_storage().data_ptr()  # not copied
    assert torch.equal(clip.image.visual_projection.weight, state["visual.proj"].T)
    tensors = [*clip.parameters(), *clip.buffers()]
    assert not any(tensor.is_meta or tensor.requires_grad for tensor in tensors)
    assert not clip.training


def test_weights_of_another_clip_are_refused() -> None:
    state = open_clip_state()
    spoiled = {
        "missing text.final_layer_norm.bias": {k: v for k, v in state.items() if k != "ln_final.bias"},
        "unknown visual.head.weight": state | {"visual.head.weight": torch.zeros(2)},
        "unknown transformer.resblocks.0.attn.scale": state
        | {"transformer.resblocks.0.attn.scale": torch.zeros(1)},
        "unexpected text.encoder.layers.2.layer_norm1.weight": state
        | {"transformer.resblocks.2.ln_1.weight": torch.zeros(8)},
        r"fc1.weight is \(4, 8\), expected \(32, 8\)": state
        | {"transformer.resblocks.0.mlp.c_fc.weight": torch.zeros(4, 8)},
    }
    for message, weights in spoiled.items():
        with pytest.raises(ValueError, match=message):
            load_clip(weights, TINY_CLIP)
    extras = ("text_projection", "logit_scale")  # in every official file, and in some conversions left out
    load_clip({key: value for key, value in state.items() if key not in extras}, TINY_CLIP)


def test_clip_pixels_are_normalised_by_channel() -> None:
    pixels = clip_pixels(torch.tensor([255, 0, 128], dtype=torch.uint8).expand(2, 384, 384, 3))
    assert pixels.shape == (2, 3, 384, 384)
    by_hand = [(1 - 0.48145466) / 0.26862954, -0.4578275 / 0.26130258, (128 / 255 - 0.40821073) / 0.27577711]
    torch.testing.assert_close(pixels[1, :, 383, 5], torch.tensor(by_hand))


# -- tokens ----------------------------------------------------------------------------------------------

MERGES = [("d", "o"), ("do", "g</w>"), ("'", "s</w>"), ("b", "a"), ("ba", "r"), ("bar", "k</w>")]
START, END = 512 + len(MERGES), 513 + len(MERGES)


def word(text: str) -> list[int]:
    """Ids of one ASCII word without merges: '!' is symbol 0, and the last symbol counts 256 more."""
    ids = [ord(letter) - ord("!") for letter in text]
    return [*ids[:-1], ids[-1] + 256]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("dog", [513]),
        ("  DOG \n\t dog ", [513, 513]),  # lower case, single spaces
        ("dog's bark", [513, 514, 517]),  # a contraction is a word of its own
        ("d0g12", [*word("d"), *word("0"), *word("g"), *word("1"), *word("2")]),  # one digit a word
        ("dog!?, dog", [513, *word("!?,"), 513]),  # a run of signs is one word
        ("a &amp;amp; b", [*word("a"), *word("&"), *word("b")]),  # entities are undone twice,
        ("< &amp;amp;", [*word("<"), *word("&")]),  # where ftfy takes it for markup too
        ("é", [127, 358]),  # its two bytes, C3 and A9, in CLIP's order of symbols
        ("\u00c3\u00a9", [127, 358]),  # the same, mis-decoded: mended
    ],
)
def test_words_become_ids(text: str, words: list[int]) -> None:
    ids = ClipTokenizer(*plain_vocabulary(MERGES))([text])
    assert ids.dtype == torch.int64
    assert ids[0].tolist() == [START, *words, END] + (NUM_TOKENS - 2 - len(words)) * [0]


def test_merges_are_made_in_order_and_only_at_the_end_of_a_word_where_they_say_so() -> None:
    tokenizer = ClipTokenizer(*plain_vocabulary(MERGES))
    inside = [512, ord("g") - ord("!"), *word("s")]  # do + g + s</w>: "g" is not the end here
    assert tokenizer(["dogs"])[0, :5].tolist() == [START, *inside, END]


@pytest.mark.parametrize(("count", "ends_at"), [(74, 75), (75, 76), (76, 76), (500, 76)])
def test_a_long_text_is_cut_and_still_ends(count: int, ends_at: int) -> None:
    ids = ClipTokenizer(*plain_vocabulary(MERGES))(["dog " * count, "dog"])
    assert ids.shape == (2, NUM_TOKENS)
    assert ids[0, ends_at] == END
    assert ids[0, 1:ends_at].tolist() == (ends_at - 1) * [513]
    assert not ids[0, ends_at + 1 :].any()


def test_cleaning() -> None:
    assert clean("It's   RAINING\non a tin &amp; roof") == "it's raining on a tin & roof"
    assert clean("schÃ¶n") == "schön"


# -- frames ----------------------------------------------------------------------------------------------


def numbered(total: int) -> np.ndarray:
    """(T, 64, 64, 3): frame n shows n as eight black or white fields, two rows of four."""
    bits = ((np.arange(total)[:, None] >> np.arange(8)) & 1).reshape(total, 2, 4)
    fields = (bits * 210 + 20).repeat(32, axis=1).repeat(16, axis=2).astype(np.uint8)
    return np.broadcast_to(fields[..., None], (total, 64, 64, 3)).copy()


def numbers(frames: np.ndarray) -> list[int]:
    """What `numbered` frames say, at any size."""
    side = frames.shape[1]
    bits = frames[:, side // 4 :: side // 2, side // 8 :: side // 4, 0].reshape(len(frames), 8) > 128
    return [int(n) for n in (bits << np.arange(8)).sum(axis=1)]


@pytest.mark.parametrize("name", [name for name in FRAME_INDEX if "fps" in FRAME_INDEX[name]])
def test_golden_frames_come_out_of_real_files(tmp_path: Path, name: str) -> None:
    case = FRAME_INDEX[name]
    path = write_video(tmp_path / "x.mp4", numbered(case["n_frames"]), float(Fraction(case["fps"])))
    found = read_conditioning_frames(path, 0.0, case["end_sec"], "demo")
    lengths = {key: case["load_video"][key][0] for key in ("clip", "sync")}
    assert found.duration_s == case["load_video"]["duration"]
    assert numbers(found.clip_frames) == case["clip_idx"][: lengths["clip"]]
    assert numbers(found.sync_frames) == case["sync_idx"][: lengths["sync"]]
    assert found.clip_frames.shape == (lengths["clip"], 384, 384, 3)
    assert found.sync_frames.shape == (lengths["sync"], 224, 224, 3)
    assert found.clip_frames.dtype == found.sync_frames.dtype == np.uint8


def test_trap_10_slots_of_a_25_fps_file_skip_frames_6_and_18(tmp_path: Path) -> None:
    path = write_video(tmp_path / "x.mp4", numbered(50), 25)
    demo = numbers(read_conditioning_frames(path, 0.0, 2.0, "demo").sync_frames)
    assert demo[5:9] == [5, 7, 7, 8]
    assert demo[17:20] == [17, 19, 20]
    assert demo[18:] == list(range(19, 50))  # and so the stream ends one frame early, at 1.96 s
    assert len(demo) == 49
    training = read_conditioning_frames(path, 0.0, 2.0, "training")
    assert numbers(training.sync_frames) == list(range(50))
    assert training.duration_s == 2.0


def test_training_frames_are_those_of_the_fps_filter(tmp_path: Path) -> None:
    path = write_video(tmp_path / "x.mp4", numbered(240), 30)
    filtered = json.loads((GOLDEN / "scorers_fps_frames.json").read_text())["cases"]["30fps_240frames"]
    training = read_conditioning_frames(path, 0.0, 8.0, "training")
    assert numbers(training.sync_frames) == filtered["at_25"]
    demo = read_conditioning_frames(path, 0.0, 8.0, "demo")
    pairs = list(zip(numbers(training.clip_frames), numbers(demo.clip_frames)))
    assert len(pairs) == 64
    assert not any(a == b for a, b in pairs)  # at 8 fps the two rules share no frame at all


def test_a_short_file_shortens_the_duration(tmp_path: Path) -> None:
    path = write_video(tmp_path / "x.mp4", numbered(72), 24)
    found = read_conditioning_frames(path, 0.0, 8.0)
    expected = FRAME_INDEX["24_short_for_8s"]
    assert found.duration_s == expected["duration"]
    assert [len(found.clip_frames), len(found.sync_frames)] == [expected["clip"][0], expected["sync"][0]]
    training = read_conditioning_frames(path, 0.0, 8.0, "training")
    assert (training.duration_s, len(training.clip_frames), len(training.sync_frames)) == (3.0, 24, 75)


def test_both_rules_of_shortening() -> None:
    assert shortened(2.5, 21, 62, "demo") == 2.48
    assert shortened(2.5, 21, 62, "training") == 2.5  # int(25 * 2.5) frames are all that is wanted
    assert shortened(8.0, 45, 140, "training") == shortened(8.0, 45, 140, "demo") == 5.6
    assert shortened(8.0, 40, 200, "demo") == 5.0


@pytest.mark.parametrize("rule", ["demo", "training"])
def test_streams_stay_in_step_with_the_sync_length_for_every_count_of_frames(rule: Any) -> None:
    for count in range(16, 1500):  # int(25 * (29 / 25)) is 28: the network's own formula must lose it too
        seconds = shortened(60.0, 10_000, count, rule)
        tokens = int((math.floor((seconds * 25 - 16) / 8) + 1) * 8)
        assert 8 * num_segments(int(25 * seconds)) == tokens


@pytest.mark.parametrize("start_s", [1.0, 4.0, 6.12])
@pytest.mark.parametrize("rule", ["demo", "training"])
def test_a_window_starts_its_own_clock(tmp_path: Path, start_s: float, rule: Any) -> None:
    path = write_video(tmp_path / "x.mp4", numbered(200), 25)
    whole = read_conditioning_frames(path, 0.0, 1.0, rule)
    window = read_conditioning_frames(path, start_s, 1.0, rule)
    first = round(25 * start_s)
    assert window.duration_s == 1.0
    assert numbers(window.clip_frames) == [first + n for n in numbers(whole.clip_frames)]
    assert numbers(window.sync_frames) == [first + n for n in numbers(whole.sync_frames)]


def test_variable_frame_rate_goes_by_time(tmp_path: Path) -> None:
    steps = np.random.default_rng(3).integers(15, 140, 60)
    times = [0, *np.cumsum(steps).tolist()]  # milliseconds
    path = encode(tmp_path / "x.mkv", numbered(len(times)), times, Fraction(1, 1000))
    found = read_conditioning_frames(path, 0.0, 3.0, "demo")
    assert found.duration_s == 3.0
    for fps, frames in ((8, found.clip_frames), (25, found.sync_frames)):
        target, expected = 0.0, []
        for _ in range(len(frames)):
            expected.append(next(n for n, time in enumerate(times) if time / 1000 >= target))
            target += 1 / fps
        assert numbers(frames) == expected
    filtered = read_conditioning_frames(path, 0.0, 3.0, "training")
    slots = [math.floor(Fraction(time, 1000) * 25 + Fraction(1, 2)) for time in times]
    expected = [max(n for n, slot in enumerate(slots) if slot <= at) for at in range(75)]
    assert numbers(filtered.sync_frames) == expected


def test_one_pass_converts_and_resizes_each_chosen_frame_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "x.mp4", numbered(36), 12)
    counts = {"opened": 0, "shown_pixels": 0, "_resize": 0}

    def count(module: Any, name: str) -> None:
        function = getattr(module, name)

        def counted(*args: Any) -> Any:
            counts[name] += 1
            return function(*args)

        monkeypatch.setattr(module, name, counted)

    count(media, "opened")
    count(frame_rules, "shown_pixels")
    count(frame_rules, "_resize")
    read_conditioning_frames(path, 0.0, 3.0)
    case = FRAME_INDEX["12"]
    clip, sync = set(case["clip_idx"]), set(case["sync_idx"])
    assert len(case["sync_idx"]) > len(sync)  # frames are held
    assert counts == {"opened": 1, "shown_pixels": len(clip | sync), "_resize": len(clip) + len(sync)}


def test_frames_are_the_resized_picture(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (20, 4, 6, 3)).astype(np.uint8)
    path = write_video(tmp_path / "x.mp4", noise.repeat(24, axis=1).repeat(24, axis=2), 25)
    found = read_conditioning_frames(path, 0.0, 0.64, "demo")
    with media.opened(path) as container:
        frame = next(iter(container.decode(video=0)))
        pixels = frame.to_ndarray(format="rgb24")  # as upstream converts
        assert np.abs(pixels.astype(int) - render(frame, None, None)).mean() < 5
    assert pixels.shape == (96, 144, 3)
    assert np.array_equal(found.clip_frames[0], clip_frame(pixels))
    assert np.array_equal(found.sync_frames[0], sync_frame(pixels))


def test_turned_pictures_are_read_upright(tmp_path: Path) -> None:
    fields = np.zeros((20, 64, 64, 3), np.uint8)
    fields[:, :32, 32:] = 255  # white top right corner; a quarter turn puts it elsewhere
    one = 1 << 16
    matrix = (0, one, 0, -one, 0, 0, 0, 0, 1 << 30)  # shown x = -y, shown y = x
    path = encode(tmp_path / "x.mp4", fields, list(range(20)), Fraction(1, 25), matrix=matrix)
    found = read_conditioning_frames(path, 0.0, 0.64, "training")
    for frames in (found.clip_frames, found.sync_frames):
        half = frames.shape[1] // 2
        means = [frames[0, y : y + half, x : x + half].mean() for y in (0, half) for x in (0, half)]
        assert int(np.argmax(means)) == 3  # bottom right
        assert max(means) > 240
        assert sorted(means)[2] < 15


def test_trap_11_resizing_is_done_on_uint8() -> None:
    golden = load_file(GOLDEN / "mmaudio_preprocess_resize.safetensors")
    source = golden["tall.in"]
    as_float = F.interpolate(source.float(), (384, 384), mode="bicubic", antialias=True, align_corners=False)
    rounded = as_float.round().clamp(0, 255)[:, :, ::3, ::3]
    assert (rounded - golden["tall.clip_u8"].float()).abs().max() >= 2
    ours = clip_frame(source[0].permute(1, 2, 0).contiguous().numpy())[::3, ::3]
    assert np.array_equal(ours, golden["tall.clip_u8"][0].permute(1, 2, 0).numpy())


@pytest.mark.parametrize(("extra", "offset"), [(0, 0), (1, 0), (2, 1), (3, 2), (5, 2), (7, 4)])
def test_the_crop_is_rounded_half_to_even(extra: int, offset: int) -> None:
    pixels = np.random.default_rng(extra).integers(0, 256, (224, 224 + extra, 3)).astype(np.uint8)
    assert np.array_equal(sync_frame(pixels), pixels[:, offset : offset + 224])
    turned = np.ascontiguousarray(pixels.transpose(1, 0, 2))
    assert np.array_equal(sync_frame(turned), turned[offset : offset + 224])


# -- what cannot be read ---------------------------------------------------------------------------------


def refused(path: Path, *args: Any) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        read_conditioning_frames(path, *args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def ten_frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("short") / "x.mp4", numbered(10), 25)


@pytest.mark.parametrize("rule", ["demo", "training"])
def test_less_than_one_segment_is_refused(ten_frames: Path, rule: str) -> None:
    with pytest.raises(MediaError, match=r"only 0\.\d+ s of picture from 0 s on, MMAudio needs 0\.64 s"):
        read_conditioning_frames(ten_frames, 0.0, 8.0, rule)  # type: ignore[arg-type]
    assert "its picture ends at 0.40 s" in refused(ten_frames, 2.0, 8.0, rule)


def test_files_without_a_picture_are_refused(tmp_path: Path) -> None:
    sound = write_audio(tmp_path / "x.wav", np.zeros(16000, np.float32), 16000)
    (tmp_path / "text.mp4").write_text("no video")
    assert "no video stream" in refused(sound)
    assert "does not open" in refused(tmp_path / "text.mp4")
    assert "no such file" in refused(tmp_path / "absent.mp4")


def test_settings_that_mean_nothing_are_refused(ten_frames: Path) -> None:
    assert "at least 0.64" in refused(ten_frames, 0.0, 0.6)
    assert "start_s" in refused(ten_frames, -1.0, 8.0)
    assert "'demo' or 'training', got 'ffmpeg'" in refused(ten_frames, 0.0, 8.0, "ffmpeg")


def test_reader_and_network_agree_on_what_a_segment_is() -> None:
    assert synchformer_visual.SEGMENT_FRAMES == frame_rules.SEGMENT_FRAMES
    assert synchformer_visual.IMAGE == frame_rules.SYNC_SIDE
