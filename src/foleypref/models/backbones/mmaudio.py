"""MMAudio (arXiv 2412.15322), all five variants, from the official weights; these are CC-BY-NC 4.0.

`mmaudio-large-44k-v2`, `-large-44k`, `-medium-44k`, `-small-44k`, `-small-16k`. The model sees the video
through CLIP (8 fps) and Synchformer (25 fps). It generates any length of sound but was trained at 8 s. Models
tuned from the weights stay non-commercial. Files are looked for in `weights_folder`, in $FOLEYPREF_WEIGHTS or
in ~/.cache/foleypref/weights; `foleypref weights list mmaudio-large-44k-v2` says which.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal, Self, cast

import av
import torch
from pydantic import Field, PrivateAttr
from torch import Tensor, nn

from foleypref.flow.convention import Latents
from foleypref.media.clip import read_wave
from foleypref.media.frame_rules import CLIP_SIDE, SYNC_SIDE, FrameRule, read_conditioning_frames
from foleypref.models.backbones import Conditions, Media, Model, ModelSpec
from foleypref.models.costs import Cost
from foleypref.models.lora import merging
from foleypref.models.tools import fingerprint_of, held_or_black, unwrapped
from foleypref.networks.mmaudio import SYNC_FPS, VARIANTS, Lengths, sequence_lengths
from foleypref.networks.mmaudio import MMAudio as Network
from foleypref.published.mmaudio_parts import MMAudioParts, sample_rate_of
from foleypref.workspace.records import digest

Variant = Literal["small-16k", "small-44k", "medium-44k", "large-44k", "large-44k-v2"]

TEXT_LENGTH = 77  # tokens


class MMAudio(Model):
    """Variant, length and precision. `weights` is a tuned network's file ("" is the official one)."""

    variant: Variant = "large-44k-v2"
    weights: str = ""
    adapter: str = ""  # folder of peft adapters, merged into the network at load
    weights_folder: str = ""
    duration: float = Field(8.0, ge=0.64)  # seconds
    frame_rule: FrameRule = "demo"  # "training": as the training features were extracted
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the network's weights; train in float32
    feature_dtype: Literal["float32", "bfloat16"] = "float32"  # of CLIP and Synchformer; cached apart
    compile: bool = False  # torch.compile the network

    notice: ClassVar[str] = "MMAudio's weights are CC-BY-NC 4.0: not for commercial use"
    lora_targets: ClassVar[str] = r"(joint|fused)_blocks\..*\.?(attn\.qkv|linear1|ffn\.w[123])"

    _parts: MMAudioParts | None = PrivateAttr(default=None)

    @property
    def spec(self) -> ModelSpec:
        """L latent frames of 20 (16 kHz) or 40 (44.1 kHz) channels, at 31.25 or 43.07 Hz."""
        shape = (self._lengths.latent, int(VARIANTS[self.variant.replace("-", "_")]["latent_dim"]))
        return ModelSpec({"audio": shape}, self._sample_rate, self.duration, any_length=True)

    @property
    def fingerprint(self) -> str:
        """Hash of the network's and the codec's files, and of the settings that change a candidate."""
        settings = (self.duration, self.frame_rule, self.dtype, self.feature_dtype)
        return digest("mmaudio", self._loaded.network_hashes(self.weights, self.adapter), settings)

    @property
    def feature_key(self) -> str:
        """Names CLIP, Synchformer, frame rule, length and decoder; the same for every variant."""
        encoders = self._loaded.encoder_hash()
        dtype = "" if self.feature_dtype == "float32" else f"/{self.feature_dtype}"
        return f"mmaudio/{encoders}/{self.frame_rule}/{self.duration:g}s/av{av.__version__}{dtype}"

    @property
    def latent_key(self) -> str:
        """Names the autoencoder, the latents' statistics, the length and the decoder."""
        parts = self._loaded
        statistics = parts.statistics.mean.tolist(), parts.statistics.std.tolist()
        codec = digest(fingerprint_of(parts.codec.vae), *statistics)
        return f"mmaudio/{codec}/{self.duration:g}s/av{av.__version__}"

    def load(self, device: str | torch.device = "cpu") -> Self:
        """Read the network; the codec and the encoders of conditions are read at their first use."""
        feature_dtype = getattr(torch, self.feature_dtype)
        self._parts = MMAudioParts(self.variant, self.weights_folder, torch.device(device), feature_dtype)
        dtype = getattr(torch, self.dtype)
        self._network = self._parts.load_network(self.weights, dtype, merging(self.adapter))
        if self.compile:
            self._network.compile(dynamic=False)
        return self

    def with_duration(self, seconds: float) -> Self:
        """Return a view for another length; everything loaded is shared."""
        return self.model_copy(update={"duration": seconds})

    def read(self, path: Path, start_s: float = 0.0, prompt: str = "", *, audio: bool = True) -> Media:
        """Read both frame streams, `clip` and `sync`, in one pass; the sound in another."""
        streams = read_conditioning_frames(path, start_s, self.duration, self.frame_rule)
        wave = None
        if audio:
            wave, _ = read_wave(path, self._sample_rate, start_s=start_s, duration_s=self.duration)
        frames = {"clip": streams.clip_frames, "sync": streams.sync_frames}
        return Media(frames, wave, prompt, streams.duration_s)

    @torch.no_grad()
    def condition(self, media: Sequence[Media]) -> Conditions:
        """Compute clip (B, C, 1024), sync (B, S, 768), text (B, 77, 1024), and has_video, has_text (B, 1).

        A picture that ends early holds its last frame. Rows without picture or prompt are zeros here;
        `prepare` replaces them by the network's learned null features, which training may change.
        """
        parts, lengths = self._loaded, self._lengths
        with_video = [row for row, item in enumerate(media) if item.frames]
        with_text = [row for row, item in enumerate(media) if item.prompt.strip()]
        clip_dim, sync_dim, text_dim = parts.feature_dims
        shapes = {
            "clip": (lengths.clip, clip_dim),
            "sync": (lengths.sync, sync_dim),
            "text": (TEXT_LENGTH, text_dim),
            "has_video": (1,),
            "has_text": (1,),
        }
        rows = len(media)
        conditions = {key: torch.zeros(rows, *shape, device=parts.device) for key, shape in shapes.items()}
        for row in with_video:  # one clip at a time: its 264 frames fill a batch
            clip = held_or_black(media[row].frames["clip"], lengths.clip, CLIP_SIDE)
            sync = held_or_black(media[row].frames["sync"], int(SYNC_FPS * self.duration), SYNC_SIDE)
            conditions["clip"][row], conditions["sync"][row] = (
                parts.clip_vectors(clip),
                parts.sync_tokens(sync),
            )
        if with_text:
            conditions["text"][with_text] = parts.text_states([media[row].prompt for row in with_text])
        conditions["has_video"][with_video], conditions["has_text"][with_text] = 1.0, 1.0
        return conditions

    def prepare(self, conditions: Conditions) -> Conditions:
        return cast(Network, self.network).prepare_conditions(conditions)

    def velocity(self, x_t: Latents, t: Tensor, conditions: Conditions) -> Latents:
        """Return v(x_t, t | conditions) of normalised {"audio": (B, L, dim)}, which is embedded once."""
        return {"audio": self.network(x_t["audio"], t, conditions)}

    @torch.no_grad()
    def encode(self, waves: Tensor) -> Latents:
        """Encode waves (B, N) to the posterior's mean, normalised: {"audio": (B, L, dim)}."""
        parts, lengths = self._loaded, self._lengths
        waves = nn.functional.pad(waves, (0, lengths.samples - waves.shape[1]))  # a negative pad cuts
        waves = waves.to(parts.device).float()
        return {"audio": parts.statistics.normalise(parts.codec.encode(waves))}

    @torch.no_grad()
    def decode(self, latents: Latents) -> Tensor:
        """Decode {"audio": (B, L, dim)} to waves (B, N), N rounded up to whole latent frames."""
        parts = self._loaded
        audio = latents["audio"].to(parts.device).float()
        return parts.codec.decode(parts.statistics.unnormalise(audio), rows_at_once=parts.vocoder_rows)

    def cost(self) -> Cost:
        from foleypref.models.cost_mmaudio import mmaudio_cost  # transformers: seconds to import

        return mmaudio_cost(self.variant, self.duration)

    def export(self, path: str) -> None:
        """Write the network in the official layout: .safetensors, or .pth as upstream loads it."""
        self._loaded.export_network(unwrapped(self.network), Path(path))

    @property
    def _loaded(self) -> MMAudioParts:
        assert self._parts is not None, "call load() first"
        return self._parts

    @property
    def _sample_rate(self) -> int:
        return sample_rate_of(self.variant)

    @property
    def _lengths(self) -> Lengths:
        return sequence_lengths(self.duration, self._sample_rate)
