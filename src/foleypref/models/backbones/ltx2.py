"""LTX-2 (arXiv 2601.03233): video and sound from a prompt, through diffusers, from a local folder.

A joint model of 19 B parameters: 14 B for video, 5 B for audio, linked only by two attentions per block,
`audio_to_video_attn` and `video_to_audio_attn`, which LoRA tunes. The weights are under the LTX-2 Community
License, which is not an open-source licence. Their folder is `weights_folder`, or `LTX-2` where weights are
looked for; docs/ltx2.md says how to get it.

LTX-2's time runs from data to noise, z = (1 - σ) x + σ ε, and it predicts ε - x: σ = 1 - t and v = -output.
Latents have time first: video (F, S, C) with S latents per frame, audio (L, D). The prompt is the only
condition, and the empty prompt is the null.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal, Self

import av
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import Field, PrivateAttr
from torch import Tensor

from foleypref.flow.convention import Latents, repeated
from foleypref.media.clip import collect_frames, held, read_wave
from foleypref.media.decoding import FramePicker
from foleypref.media.frame_rules import shown_pixels
from foleypref.models.backbones import Conditions, Media, Model, ModelSpec, VideoSpec
from foleypref.models.costs import Cost
from foleypref.models.lora import merging
from foleypref.models.tools import unwrapped
from foleypref.published.ltx2_folder import Sizes, find_folder, shifted_times, sizes_in
from foleypref.published.ltx2_parts import LTX2Parts
from foleypref.workspace.records import digest

Dtype = Literal["float32", "bfloat16"]


class LTX2(Model):
    """Folder, picture and precision. `weights` is a tuned transformer's file ("" is the folder's)."""

    weights: str = ""
    adapter: str = ""  # folder of peft adapters, merged into the transformer at load
    weights_folder: str = ""  # with model_index.json in it, or where LTX-2 lies below
    height: int = Field(512, ge=8)  # pixels, a multiple of 32
    width: int = Field(768, ge=8)
    num_frames: int = Field(121, ge=1)  # one more than a multiple of 8
    fps: float = Field(24.0, gt=0)
    text_tokens: int = Field(1024, ge=8)  # as trained; fewer take less cache, and change the conditions
    dtype: Dtype = "bfloat16"  # of the transformer's weights; adapters stay float32
    schedule: Literal["shifted", "equal"] = "shifted"  # of a solver's steps: "shifted" as released
    feature_dtype: Dtype = "bfloat16"  # of text encoder and video autoencoder; cached apart

    notice: ClassVar[str] = (
        "LTX-2's weights are under the LTX-2 Community License: read it before you use them commercially or "
        "pass on what they make or become"
    )
    lora_targets: ClassVar[str] = (
        r"transformer_blocks\.\d+\.(audio_to_video|video_to_audio)_attn\.(to_[qkv]|to_out\.0)"
    )

    _parts: LTX2Parts | None = PrivateAttr(default=None)

    @property
    def spec(self) -> ModelSpec:
        """Latents of `num_frames` frames and their sound. Raises ValueError for sizes off the grid."""
        sizes = self._sizes
        frames, rows, columns = sizes.video_grid(self.num_frames, self.height, self.width)
        seconds = self.num_frames / self.fps
        latents: dict[str, tuple[int, ...]] = {
            "video": (frames, rows * columns, sizes.channels),
            "audio": (sizes.audio_frames(seconds), sizes.audio_features),
        }
        video = VideoSpec(self.num_frames, self.height, self.width, self.fps)
        return ModelSpec(latents, sizes.output_rate, seconds, any_length=True, video=video)

    @property
    def fingerprint(self) -> str:
        """Hash of transformer and codecs, and of the settings that change a candidate."""
        picture = self.height, self.width, self.num_frames, self.fps
        settings = (*picture, self.text_tokens, self.dtype, self.feature_dtype, self.schedule)
        return digest("ltx2", self._loaded.network_hashes(self.weights, self.adapter), settings)

    @property
    def feature_key(self) -> str:
        """Names text encoder, connectors and the number of tokens; no picture conditions this model."""
        return f"ltx2/{self._loaded.text_hash()}/{self.text_tokens}{self._exactness}"

    @property
    def latent_key(self) -> str:
        """Names the codecs, the picture's size and rate, and the decoder."""
        picture = f"{self.width}x{self.height}x{self.num_frames}@{self.fps:g}"
        return f"ltx2/{self._loaded.codec_hash()}/{picture}/av{av.__version__}{self._exactness}"

    def load(self, device: str | torch.device = "cpu") -> Self:
        """Read the transformer; text encoder and codecs are read at their first use."""
        self._parts = LTX2Parts(self.weights_folder, torch.device(device), getattr(torch, self.feature_dtype))
        self._network = self._parts.load_network(
            self.weights, getattr(torch, self.dtype), merging(self.adapter)
        )
        return self

    def with_duration(self, seconds: float) -> Self:
        """Return a view of the shortest length on the grid that covers `seconds`; weights are shared."""
        return self.model_copy(update={"num_frames": self._sizes.frames_for(seconds * self.fps)})

    def read(self, path: Path, start_s: float = 0.0, prompt: str = "", *, audio: bool = True) -> Media:
        """Read frames as stream "video", scaled to cover the model's size and cropped; mono sound."""
        size, seconds = (self.height, self.width), self.num_frames / self.fps
        picker = FramePicker(self.fps, seconds, lambda frame, sar: covering(shown_pixels(frame, sar), size))
        collect_frames(path, [picker], start_s=start_s)
        wave = None
        if audio:
            wave, _ = read_wave(path, self._sizes.output_rate, start_s=start_s, duration_s=seconds)
        return Media({"video": np.stack(picker.frames)}, wave, prompt, len(picker.frames) / self.fps)

    def condition(self, media: Sequence[Media]) -> Conditions:
        """Encode prompts: video_text (B, K, Wv), audio_text (B, K, Wa), text_mask (B, K)."""
        return self._loaded.text_states([item.prompt for item in media], self.text_tokens)

    def null(self, conditions: Conditions) -> Conditions:
        """Return the conditions of the empty prompt."""
        empty = self._loaded.null_states(self.text_tokens)
        return {key: empty[key].to(value).expand_as(value).contiguous() for key, value in conditions.items()}

    def times(self, num_steps: int) -> list[float] | None:
        """Return times shifted towards noise by the number of video latents, as in the released pipeline."""
        if self.schedule == "equal":
            return None
        frames, rows, columns = self._sizes.video_grid(self.num_frames, self.height, self.width)
        return shifted_times(find_folder(self.weights_folder), frames * rows * columns, num_steps)

    def velocity(self, x_t: Latents, t: Tensor, conditions: Conditions) -> Latents:
        """Return v(x_t, t | conditions) of {"video": (B, F, S, C), "audio": (B, L, D)}, one t for both."""
        self._loaded.release_text()
        x_t, t = repeated(x_t, t, len(conditions["text_mask"]))
        frames, rows, columns = self._sizes.video_grid(self.num_frames, self.height, self.width)
        dtype = getattr(torch, self.dtype)
        sigma = (1 - t) * self._sizes.time_scale
        video, audio = self.network(
            hidden_states=x_t["video"].flatten(1, 2).to(dtype),
            audio_hidden_states=x_t["audio"].to(dtype),
            encoder_hidden_states=conditions["video_text"].to(dtype),
            audio_encoder_hidden_states=conditions["audio_text"].to(dtype),
            timestep=sigma,
            sigma=sigma,
            encoder_attention_mask=conditions["text_mask"],
            audio_encoder_attention_mask=conditions["text_mask"],
            num_frames=frames,
            height=rows,
            width=columns,
            fps=self.fps,
            audio_num_frames=x_t["audio"].shape[1],
            return_dict=False,
        )
        v = {"video": -video.unflatten(1, (frames, rows * columns)), "audio": -audio}
        return {key: v[key].to(x_t[key].dtype) for key in x_t}

    def encode(self, waves: Tensor) -> Latents:
        """Encode mono waves (B, N), cut or padded to the picture's length, to {"audio": (B, L, D)}."""
        return {"audio": self._loaded.encode_audio(self._fitted(waves), self.spec.latents["audio"][0])}

    def encode_media(self, media: Sequence[Media]) -> Latents:
        """Encode both modalities; a short picture holds its last frame. ValueError if one is missing."""
        audio = super().encode_media(media)
        if num_blind := sum(len(item.frames.get("video", ())) == 0 for item in media):
            raise ValueError(f"{num_blind} of {len(media)} clips have no picture to encode")
        frames = (held(item.frames["video"], self.num_frames) for item in media)
        return {"video": torch.stack([self._loaded.encode_video(one) for one in frames]), **audio}

    def decode(self, latents: Latents) -> Tensor:
        """Decode {"audio": (B, L, D)} to mono waves (B, N) of the picture's length, the mean of two channels.

        Latents end up to 50 ms before the picture; the rest is silence.
        """
        return self._fitted(torch.cat([self._loaded.decode_audio(row) for row in latents["audio"].split(1)]))

    def decode_video(self, latents: Latents) -> Tensor:
        """Decode {"video": (B, F, S, C)} to frames (B, T, H, W, 3) uint8 on the CPU, one clip at a time."""
        _, rows, columns = self._sizes.video_grid(self.num_frames, self.height, self.width)
        return torch.stack([self._loaded.decode_video(row, rows, columns) for row in latents["video"]])

    def cost(self) -> Cost:
        """Count the cost on the parts' configurations, the folder's or else the released ones."""
        from foleypref.models.cost_ltx2 import ltx2_cost  # diffusers: seconds to import

        return ltx2_cost(
            self.weights_folder,
            grid=self._sizes.video_grid(self.num_frames, self.height, self.width),
            audio_frames=self.spec.latents["audio"][0],
            num_tokens=self.text_tokens,
            dtype=self.dtype,
        )

    def export(self, path: str) -> None:
        """Write the transformer with diffusers' keys as .safetensors, in `dtype`."""
        self._loaded.export_network(unwrapped(self.network), Path(path).expanduser())

    @property
    def _loaded(self) -> LTX2Parts:
        assert self._parts is not None, "call load() first"
        return self._parts

    @property
    def _sizes(self) -> Sizes:
        return self._parts.sizes if self._parts is not None else sizes_in(self.weights_folder)

    def _fitted(self, waves: Tensor) -> Tensor:
        """Cut or pad waves to the picture's length."""
        num = round(self.num_frames / self.fps * self._sizes.output_rate)
        return F.pad(waves, (0, num - waves.shape[1]))  # a negative pad cuts

    @property
    def _exactness(self) -> str:
        return "" if self.feature_dtype == "float32" else f"/{self.feature_dtype}"


def covering(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scale (H, W, 3) uint8, keeping its aspect, to cover (height, width), and crop the centre."""
    height, width = size
    scale = max(height / pixels.shape[0], width / pixels.shape[1])
    shape = (max(width, round(pixels.shape[1] * scale)), max(height, round(pixels.shape[0] * scale)))
    image = Image.fromarray(pixels).resize(shape, Image.Resampling.BICUBIC)
    left, top = (shape[0] - width) // 2, (shape[1] - height) // 2
    return np.asarray(image.crop((left, top, left + width, top + height)))
