"""Frieren (arXiv 2406.00320): base, reflow and distilled, from the released checkpoints; takes no prompt.

`frieren` (the same as `frieren-base`), `frieren-reflow` and `frieren-distilled` are one network, trained in
three ways. All need guidance at 4.5, also the last two, which were trained through it; base and reflow take
25 Euler steps, distilled one. Tune from base: without guidance, the velocity of the others is not that of a
flow. The weights' licence is not stated. Files are looked for in `weights_folder`, in $FOLEYPREF_WEIGHTS or
in ~/.cache/foleypref/weights.

The model sees 32 frames at 4 fps through CAVP: 8.000 s of picture, each frame spread over 256 ms of 8.192 s
of sound. The network was trained with that drift and corrects it, so this file does not. Other lengths are
made of windows. A picture of fewer frames holds its last one until there are 32. As for the released
features, CAVP looks at up to 40 frames at a time, including those after the 32.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal, Self, cast

import av
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import PrivateAttr
from torch import Tensor

from foleypref.flow.convention import Latents
from foleypref.media.clip import collect_frames, held, read_wave
from foleypref.media.decoding import FramePicker
from foleypref.media.frame_rules import shown_pixels
from foleypref.models.backbones import Conditions, Media, Model, ModelSpec
from foleypref.models.costs import Cost
from foleypref.models.lora import merging
from foleypref.models.tools import fingerprint_of, unwrapped
from foleypref.networks.cavp import FPS, GROUP, SIDE
from foleypref.networks.frieren import FRAME_LATENTS
from foleypref.networks.frieren import Frieren as Network
from foleypref.published.frieren_parts import SAMPLE_RATE, FrierenParts
from foleypref.workspace.records import digest

Variant = Literal["base", "reflow", "distilled"]

NUM_FRAMES = 32  # of picture, and so 256 latents
LATENT_DIM, FEATURE_DIM = 20, 512
LATENT_HOP = 512  # samples


class Frieren(Model):
    """The variant and its weights: `weights` is a tuned network's file ("" is the released one)."""

    variant: Variant = "base"
    weights: str = ""
    adapter: str = ""  # folder of peft adapters, merged into the network at load
    weights_folder: str = ""
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the network's weights; train in float32

    notice: ClassVar[str] = (
        "Frieren's weights have no stated licence: ask its authors before you pass them on"
    )
    lora_targets: ClassVar[str] = (
        r".*transformer_blocks\.\d+\.(attn[12]\.(to_[qkv]|to_out\.0)|ff\.net\.(0\.proj|2))"
    )

    _parts: FrierenParts | None = PrivateAttr(default=None)

    @property
    def spec(self) -> ModelSpec:
        """256 latent frames of 20 channels at 31.25 Hz: 8.192 s of 16 kHz sound, and no other length."""
        latents = FRAME_LATENTS * NUM_FRAMES
        return ModelSpec({"audio": (latents, LATENT_DIM)}, SAMPLE_RATE, latents * LATENT_HOP / SAMPLE_RATE)

    @property
    def fingerprint(self) -> str:
        """Hash of the network's, the autoencoder's and the vocoder's files and of the weights' dtype."""
        return digest("frieren", self._loaded.network_hashes(self.adapter), self.dtype)

    @property
    def feature_key(self) -> str:
        """Names CAVP, its grouping and the decoder; the same for every variant."""
        return f"frieren/{self._loaded.cavp_hash()}/fps{FPS}x{GROUP}/av{av.__version__}"

    @property
    def latent_key(self) -> str:
        """Names the autoencoder and the decoder."""
        return f"frieren/{fingerprint_of(self._loaded.codec.vae)}/av{av.__version__}"

    def load(self, device: str | torch.device = "cpu") -> Self:
        """Read the network; the codec and CAVP are read at their first use."""
        self._parts = FrierenParts(self.variant, self.weights, self.weights_folder, torch.device(device))
        self._network = self._parts.load_network(getattr(torch, self.dtype), merging(self.adapter))
        return self

    def read(self, path: Path, start_s: float = 0.0, prompt: str = "", *, audio: bool = True) -> Media:
        """Read up to 40 frames at 4 fps by ffmpeg's rule as stream "cavp"; `seconds` counts the first 32."""
        picker = FramePicker(FPS, GROUP / FPS, lambda frame, sar: cavp_frame(shown_pixels(frame, sar)))
        collect_frames(path, [picker], start_s=start_s)
        frames = np.stack(picker.frames)
        wave = None
        if audio:
            wave, _ = read_wave(path, SAMPLE_RATE, start_s=start_s, duration_s=self.spec.clip_seconds)
        return Media({"cavp": frames}, wave, prompt, min(len(frames), NUM_FRAMES) / FPS)

    @torch.no_grad()
    def condition(self, media: Sequence[Media]) -> Conditions:
        """Compute cavp (B, 32, 512): one unit vector per frame, zeros without a picture; prompts are ignored.

        Null conditions are zeros too, in CAVP's space: the condition stage then returns its bias.
        """
        parts = self._loaded
        features = torch.zeros(len(media), NUM_FRAMES, FEATURE_DIM, device=parts.device)
        for row, item in enumerate(media):  # one clip at a time: its 40 frames fill a batch
            frames = item.frames.get("cavp", np.empty(0))
            if num := len(frames):
                features[row] = parts.cavp_features(held(frames, max(NUM_FRAMES, num)))[:NUM_FRAMES]
        return {"cavp": features}

    def prepare(self, conditions: Conditions) -> Conditions:
        return cast(Network, self.network).prepare_conditions(conditions)

    def velocity(self, x_t: Latents, t: Tensor, conditions: Conditions) -> Latents:
        """Return v(x_t, t | conditions) of latents {"audio": (B, 256, 20)}.

        The network truncates t to thousandths, as in its training, and embeds x_t once for all groups of rows
        that conditions may have.
        """
        return {"audio": self.network(x_t["audio"], t, conditions)}

    @torch.no_grad()
    def encode(self, waves: Tensor) -> Latents:
        """Encode waves (B, N), cut or padded to 131072 samples, to the posterior's mean (B, 256, 20)."""
        samples = FRAME_LATENTS * NUM_FRAMES * LATENT_HOP
        waves = F.pad(waves, (0, samples - waves.shape[1]))  # a negative pad cuts
        return {"audio": self._loaded.codec.encode(waves.to(self._loaded.device))}

    @torch.no_grad()
    def decode(self, latents: Latents) -> Tensor:
        """Decode {"audio": (B, 256, 20)} to waves (B, 131072) at 16 kHz."""
        parts = self._loaded
        return parts.codec.decode(latents["audio"].to(parts.device).float(), parts.vocoder_rows)

    def cost(self) -> Cost:
        from foleypref.models.cost_frieren import frieren_cost  # diffusers: seconds to import

        return frieren_cost(NUM_FRAMES)

    def export(self, path: str) -> None:
        """Write the tuned network as .safetensors, or as a .ckpt that the released code loads."""
        self._loaded.export_network(unwrapped(self.network), Path(path).expanduser())

    @property
    def _loaded(self) -> FrierenParts:
        assert self._parts is not None, "call load() first"
        return self._parts


def cavp_frame(pixels: np.ndarray) -> np.ndarray:
    """Stretch (H, W, 3) uint8 to (224, 224, 3); Pillow's bilinear filter averages when it shrinks."""
    return np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BILINEAR))
