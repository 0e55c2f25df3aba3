"""Cost of the field's judges, counted on their networks at real size: operations per clip and per candidate.

Front ends are left out: they are under a hundredth. Judges of the picture embed it once per clip.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch

from foleypref.models.costs import META, count, meta_tensor
from foleypref.networks import imagebind, passt, synchformer, synchformer_audio, vggish
from foleypref.networks.panns import CHANNELS, MELS, SIZES, Cnn14, Variant
from foleypref.networks.synchformer_visual import FRAMES, IMAGE, SEGMENT_FRAMES
from foleypref.published.imagebind import AUDIO_CLIPS, CROPS, num_frames
from foleypref.published.synchformer import window_segments


class ScorerCost(NamedTuple):
    """TFLOP, a multiplication and an addition counted as two."""

    clip: float  # once for all its candidates
    candidate: float


@lru_cache
@torch.no_grad()
def scorer_cost(name: str, seconds: float) -> ScorerCost | None:
    """Return the cost of a scorer for `seconds` evaluated, or None if its operations were not counted.

    A picture that is not square is assumed. Zero for ImageBind below 4 s and Synchformer below 4.8 s, which
    they leave unscored.
    """
    return _COSTS[name](seconds) if name in _COSTS else None


def _panns(variant: Variant) -> Callable[[float], ScorerCost]:
    def cost(seconds: float) -> ScorerCost:
        with META:
            network = Cnn14(variant)
        frames = int(seconds * SIZES[variant].sample_rate) // SIZES[variant].hop + 1
        picture = meta_tensor(1, 1, frames, MELS)
        blocks = count(lambda: network.blocks(picture, range(1, len(CHANNELS))))
        last = meta_tensor(1, network.num_features)
        return ScorerCost(0.0, blocks + count(lambda: network.fc_audioset(network.fc1(last))))

    return cost


def _passt(_seconds: float) -> ScorerCost:
    with META:
        network = passt.PaSST()
    return ScorerCost(0.0, count(lambda: network.tags(meta_tensor(1, passt.MELS, passt.FRAMES))))


def _vggish(seconds: float) -> ScorerCost:
    with META:
        network = vggish.VGGish()
    patches = vggish.num_patches(int(seconds * vggish.SAMPLE_RATE))
    return ScorerCost(0.0, count(lambda: network(meta_tensor(patches, vggish.PATCH_FRAMES, vggish.MELS))))


def _imagebind(seconds: float) -> ScorerCost:
    pairs = CROPS * (num_frames(seconds) - 1)
    if pairs < CROPS:
        return ScorerCost(0.0, 0.0)
    with META:
        network = imagebind.ImageBind()
    seen = meta_tensor(1, pairs, 3, imagebind.FRAMES, imagebind.IMAGE, imagebind.IMAGE)
    heard = meta_tensor(1, AUDIO_CLIPS, 1, imagebind.MELS, imagebind.MEL_FRAMES)
    return ScorerCost(count(lambda: network.embed_video(seen)), count(lambda: network.embed_audio(heard)))


def _synchformer(seconds: float) -> ScorerCost:
    try:
        segments = len(window_segments(seconds))
    except ValueError:
        return ScorerCost(0.0, 0.0)
    with META:
        network = synchformer.Synchformer()
    width = network.vproj.in_features
    seen = meta_tensor(1, SEGMENT_FRAMES, 3, IMAGE, IMAGE)
    heard = meta_tensor(1, segments, synchformer_audio.MELS, synchformer_audio.MEL_FRAMES)
    window = [meta_tensor(2, synchformer.HEAD_SEGMENTS, n, width) for n in (FRAMES, synchformer_audio.STEPS)]
    return ScorerCost(
        segments * count(lambda: network.vfeat_extractor.segment(seen)),
        count(lambda: network.afeat_extractor.segments(heard)) + count(lambda: network.compare(*window)),
    )


def _clap(_seconds: float) -> ScorerCost | None:
    """Count the published HTSAT-base on 10 s and RoBERTa on a caption; None without transformers."""
    try:
        from transformers import ClapAudioConfig, ClapConfig, ClapModel, ClapTextConfig
    except ModuleNotFoundError:
        return None
    sizes = {"depths": [2, 2, 12, 2], "num_attention_heads": [4, 8, 16, 32], "enable_fusion": False}
    audio = ClapAudioConfig(patch_embeds_hidden_size=128, hidden_size=1024, **sizes)
    with META:
        network = ClapModel(ClapConfig(text_config=ClapTextConfig(), audio_config=audio)).eval()
    mel, tokens = meta_tensor(1, 1, 1001, 64), meta_tensor(1, 77, network.config.text_config.hidden_size)
    heard = count(lambda: network.audio_model(input_features=mel))
    return ScorerCost(count(lambda: network.text_model.encoder(tokens)), heard)


_COSTS: dict[str, Callable[[float], ScorerCost | None]] = {
    "clap": _clap,
    "panns": _panns("16k"),
    "panns-32k": _panns("32k"),
    "passt": _passt,
    "vggish": _vggish,
    "imagebind": _imagebind,
    "synchformer": _synchformer,
}
