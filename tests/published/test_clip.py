"""CLIP as MMAudio reads it: towers, weights and tokens, with every trap that still runs when missed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foleypref.published.clip import ClipEncoders, ClipSizes, clip_pixels, load_clip
from foleypref.published.clip_tokens import (
    NUM_TOKENS,
    ClipTokenizer,
    clean,
    plain_vocabulary,
)
from tests.golden import check_mmaudio_conditions as checks
from tests.golden import recipes

TINY_CLIP = ClipSizes(28, 14, 16, 2, 2, 8, 2, 2, 12, NUM_TOKENS, 64)


def open_clip_state(sizes: ClipSizes = TINY_CLIP) -> dict[str, Tensor]:
    return {key: recipes.mmaudio_weight(key, shape) for key, shape in checks.open_clip_shapes(sizes).items()}


def tiny_clip() -> ClipEncoders:
    return load_clip(open_clip_state(), TINY_CLIP)


def prompt_ids() -> Tensor:
    ids = torch.zeros(2, NUM_TOKENS, dtype=torch.int64)
    ids[0, :5] = torch.tensor([62, 3, 9, 5, 63])
    ids[1, :2] = torch.tensor([62, 63])  # the empty prompt
    return ids


def test_trap_6_every_layer_norm_has_its_own_epsilon() -> None:
    norms = [module for module in tiny_clip().modules() if isinstance(module, nn.LayerNorm)]
    assert {norm.eps for norm in norms} == {1e-5}


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
