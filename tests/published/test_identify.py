"""Checkpoints are identified by the names and shapes of their tensors."""

from __future__ import annotations

import pytest
import torch

from foleypref.published import registry
from foleypref.published.identify import VARIANTS, identify, without_wrapper
from tests.weight_files import (
    golden_keys,
    small_mmaudio,
)

pytestmark = pytest.mark.usefixtures("folder")


@pytest.mark.parametrize("variant", VARIANTS.values())
def test_every_mmaudio_network_is_identified(variant: str) -> None:
    state = golden_keys(variant.replace("-", "_"))
    assert identify(state) == f"MMAudio {variant} network"
    assert (
        identify({f"module._orig_mod.{key}": t for key, t in state.items()}) == f"MMAudio {variant} network"
    )
    assert registry.find(f"mmaudio_{variant.replace('-', '_')}.pth").role == f"MMAudio {variant} network"


OTHERS = {
    ("vae_16k", "keys"): "v1-16.pth",
    ("vae_44k", "keys"): "v1-44.pth",
    ("bigvgan_16k", "keys"): "best_netG.pt",
    ("bigvgan_16k", "folded"): "best_netG.pt",
    ("bigvgan_44k", "keys"): "bigvgan_generator.pt",
    ("bigvgan_44k", "folded"): "bigvgan_generator.pt",
    ("clip_vit_h14_378", "keys"): "open_clip_pytorch_model.bin",
}


@pytest.mark.parametrize("golden", OTHERS)
def test_the_files_beside_the_network_are_identified(golden: tuple[str, str]) -> None:
    assert identify(golden_keys(*golden)) == registry.find(OTHERS[golden]).role


def test_synchformer_is_identified_whole_or_half() -> None:
    half = golden_keys("synchformer_visual")
    assert identify(half) == "Synchformer, visual half only"
    assert identify({**half, "afeat_extractor.x": torch.zeros(1)}) == "Synchformer"


def test_an_unpublished_size_is_described_by_its_figures() -> None:
    micro = small_mmaudio(v2=True)
    assert identify(micro).startswith("MMAudio network of an unpublished size, width 448, 20 latent channels")
    assert "version 2" in identify(micro)
    vocoder = {"conv_pre.weight": torch.zeros(1536, 100, 7), "ups.0.0.weight": torch.zeros(2, 2, 8)}
    assert identify(vocoder) == "BigVGAN vocoder of another size, 100 mel bins, width 1536, first kernel 8"
    assert identify({"a.lora_A.weight": torch.zeros(1)}).startswith("LoRA adapter")
    assert identify({"a": torch.zeros(2, 3)}) == "unknown checkpoint, 1 tensors: a (2, 3)"
    assert without_wrapper({"module.a": torch.zeros(1), "b": torch.zeros(1)}).keys() == {"module.a", "b"}
