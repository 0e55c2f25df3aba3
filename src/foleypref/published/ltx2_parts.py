"""The networks of LTX-2: diffusers' parts of one local folder, each loaded at its first use.

The transformer stays in memory. The text encoder and the codecs are used at different times, so loading one
kind releases the other, and computing a velocity releases the text encoder; training from cached latents and
conditions loads neither. Only safetensors are read, and nothing is downloaded. As in the pipeline, picture
latents are normalised per channel, and sound latents per packed feature.

Letters: B batch, T frames, F latent frames, S latents per frame, C channels, L audio latents, D features of
each, N samples, K text tokens.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foleypref.networks.mel import LogMelSpectrogram
from foleypref.networks.resample import HANN_FLOAT32, resample
from foleypref.published import ltx2_folder as files
from foleypref.published.conversion import write_safetensors
from foleypref.published.filling import Adapt
from foleypref.published.parts import adapted, assign_state, content_hashes, copy_for_training
from foleypref.published.places import companions, write_to_first
from foleypref.published.reading import read_state
from foleypref.workspace.records import digest

N_FFT = 1024  # samples per mel frame in the training of the audio autoencoder
FLOOR = 1e-5  # of mel magnitudes


class LTX2Parts:
    """Transformer, codecs and text encoder of one folder on one device."""

    def __init__(self, folder: str, device: torch.device, feature_dtype: torch.dtype) -> None:
        self.folder, self.device, self.feature_dtype = files.find_folder(folder), device, feature_dtype
        self.sizes = files.read_sizes(self.folder)
        self._kind = ""  # of the parts in memory: "text" or "codecs"
        self._loaded: dict[str, Any] = {}
        self._null: dict[str, dict[str, Tensor]] = {}

    def load_network(self, weights: str, dtype: torch.dtype, adapt: Adapt | None = None) -> nn.Module:
        """Return the flow network, the folder's or a tuned one of its configuration, changed by `adapt`."""
        if weights:
            path, config = Path(weights).expanduser(), files.read_config(self.folder, "transformer")
            with torch.device("meta"):
                network = files.imported(*files.TRANSFORMER).from_config(config)
            assign_state(network, read_state(path), path, f"the transformer of {self.folder}")
            copy_for_training(network, dtype)
        else:
            network = files.load_transformer(self.folder, dtype)
        network = network.requires_grad_(True)
        network.enable_gradient_checkpointing()  # sets its function; the switch of training does not
        network.gradient_checkpointing = False
        loaded: nn.Module = adapted(network, adapt).to(self.device)
        return loaded.eval()

    def export_network(self, network: nn.Module, path: Path) -> None:
        """Write the state dict with diffusers' keys and the network's dtype. Raises ValueError for .pth."""
        if path.suffix != ".safetensors":
            raise ValueError(f"LTX-2 is written as .safetensors, which diffusers loads; found {path.name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_safetensors(path, dict(network.state_dict()), {"format": "pt", "model": "ltx2"})

    def network_hashes(self, weights: str, adapter: str) -> str:
        """Hash every file that shapes a candidate's latents, pictures and sound."""
        paths = [Path(weights).expanduser()] if weights else files.files_of(self.folder, "transformer")
        return digest(content_hashes(paths, adapter), self.codec_hash())

    def codec_hash(self) -> str:
        """Hash the files of both autoencoders and the vocoder."""
        return files.hash_of(self.folder, "vae", "audio_vae", "vocoder")

    def text_hash(self) -> str:
        """Hash the files of tokenizer, text encoder and connectors."""
        return files.hash_of(self.folder, "tokenizer", "text_encoder", "connectors")

    @torch.no_grad()
    def text_states(self, prompts: Sequence[str], num_tokens: int) -> dict[str, Tensor]:
        """Return video_text (B, K, Wv), audio_text (B, K, Wa) and text_mask (B, K), after the connectors."""
        rows = [self._text_row(prompt, num_tokens) for prompt in prompts]  # one at a time: all 49 layers
        return {key: torch.cat([row[key] for row in rows]) for key in rows[0]}

    def _text_row(self, prompt: str, num_tokens: int) -> dict[str, Tensor]:
        encoder, connectors = (self._part("text", name) for name in ("text_encoder", "connectors"))
        tokenizer = self._part("text", "tokenizer", lambda: files.load_tokenizer(self.folder))
        tokens = tokenizer(
            [prompt.strip()],
            padding="max_length",
            max_length=num_tokens,
            truncation=True,
            add_special_tokens=True,
            return_tensors="pt",
        ).to(self.device)
        ids, mask = tokens.input_ids, tokens.attention_mask
        # one logit: those of 1024 tokens over Gemma's vocabulary would be half a gigabyte
        states = encoder(
            input_ids=ids, attention_mask=mask, output_hidden_states=True, logits_to_keep=1
        ).hidden_states
        stacked = torch.stack(states, dim=-1).flatten(2, 3)  # (1, K, width · layers)
        video, audio, seen = connectors(stacked, mask, padding_side=tokenizer.padding_side)
        return {"video_text": video.float(), "audio_text": audio.float(), "text_mask": seen.float()}

    def null_states(self, num_tokens: int) -> dict[str, Tensor]:
        """Return `text_states` of the empty prompt, (1, ...), from memory or disk if made before."""
        key = digest(self.text_hash(), num_tokens, str(self.feature_dtype))
        if key not in self._null:
            self._null[key] = self._stored_null(key, num_tokens)
            self.release()  # training needs the text encoder for nothing else
        return self._null[key]

    def _stored_null(self, key: str, num_tokens: int) -> dict[str, Tensor]:
        """Read the states, or compute and store them: training then loads no text encoder."""
        places = companions(self.folder / "model_index.json", f".foleypref-null-{key}.safetensors")
        if place := next((place for place in places if place.is_file()), None):
            return {name: value.to(self.device, copy=True) for name, value in read_state(place).items()}
        states = self.text_states([""], num_tokens)
        write_to_first(places, lambda place: write_safetensors(place, states, {"format": "pt"}))
        return states

    @torch.no_grad()
    def encode_video(self, frames: np.ndarray) -> Tensor:
        """Encode frames (T, H, W, 3) uint8 to normalised latents (F, S, C), the posterior's mean."""
        vae = self._part("codecs", "vae")
        pixels = torch.from_numpy(frames).to(vae.device).permute(3, 0, 1, 2)[None]  # (1, 3, T, H, W)
        latents: Tensor = vae.encode((pixels.float() / 127.5 - 1).to(vae.dtype)).latent_dist.mode().float()
        mean, std = _statistics(vae, (1, -1, 1, 1, 1))
        latents = (latents - mean) * vae.config.scaling_factor / std
        return latents[0].permute(1, 2, 3, 0).flatten(1, 2)

    @torch.no_grad()
    def decode_video(self, latents: Tensor, rows: int, columns: int) -> Tensor:
        """Decode normalised latents (F, S, C), S = rows · columns, to CPU frames (T, H, W, 3) uint8."""
        vae = self._part("codecs", "vae")
        mean, std = _statistics(vae, (1, -1, 1, 1, 1))
        packed = latents.to(self.device).float().unflatten(1, (rows, columns)).permute(3, 0, 1, 2)[None]
        z = (packed * std / vae.config.scaling_factor + mean).to(vae.dtype)
        time = torch.zeros(1, device=z.device, dtype=z.dtype) if vae.config.timestep_conditioning else None
        pixels: Tensor = vae.decode(z, time, return_dict=False)[0][0].float()  # (3, T, H, W) in [-1, 1]
        return ((pixels + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 3, 0).cpu()

    @torch.no_grad()
    def encode_audio(self, waves: Tensor, num_latents: int) -> Tensor:
        """Encode mono waves (B, N) at the vocoder's rate to normalised latents (B, L, D), posterior means.

        Both channels of the autoencoder get the same sound. It is causal: L latents are 4 L - 3 mel frames.
        """
        sizes, vae = self.sizes, self._part("codecs", "audio_vae")
        mel = self._part("codecs", "mel", lambda: mel_front(sizes).to(self.device))
        sound = resample(waves.to(self.device).float(), sizes.output_rate, sizes.audio_rate, HANN_FLOAT32)
        mels = mel(sound).transpose(1, 2)  # (B, frames, bins)
        frames = sizes.MEL_FACTOR * (num_latents - 1) + 1
        mels = F.pad(mels, (0, 0, 0, max(0, frames - mels.shape[1])), value=math.log(FLOOR))[:, :frames]
        stereo = mels[:, None].expand(-1, vae.config.in_channels, -1, -1).to(vae.dtype)
        latents: Tensor = vae.encode(stereo).latent_dist.mode().float()  # (B, channels, L, bins / 4)
        mean, std = _statistics(vae, (1, 1, -1))
        return (latents.transpose(1, 2).flatten(2) - mean) / std

    @torch.no_grad()
    def decode_audio(self, latents: Tensor) -> Tensor:
        """Decode normalised latents (B, L, D) to waves (B, N) at the vocoder's rate, mixed to mono."""
        vae, vocoder = (self._part("codecs", name) for name in ("audio_vae", "vocoder"))
        mean, std = _statistics(vae, (1, 1, -1))
        packed = latents.to(self.device).float() * std + mean
        z = packed.unflatten(2, (vae.config.latent_channels, -1)).transpose(1, 2)
        mel = vae.decode(z.to(vae.dtype), return_dict=False)[0]
        waves: Tensor = vocoder(mel.to(vocoder.dtype)).float()
        return waves.mean(1).clamp(-1, 1)

    def release_text(self) -> None:
        """Release the text encoder if it is loaded: 24 GB that a velocity does not need."""
        if self._kind == "text":
            self.release()

    def release(self) -> None:
        """Release the text encoder and the codecs."""
        self._kind = ""
        self._loaded.clear()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _part(self, kind: str, name: str, make: Callable[[], Any] | None = None) -> Any:
        """Return a part, which is loaded at its first use; the parts of the other kind are released."""
        if kind != self._kind:
            self.release()
            self._kind = kind
        if name not in self._loaded and make:
            self._loaded[name] = make()
        elif name not in self._loaded:  # for sound in float32, because rounding would be audible
            dtype = torch.float32 if name in ("audio_vae", "vocoder") else self.feature_dtype
            part = files.load_part(self.folder, name, dtype)
            self._loaded[name] = part.to(self.device).eval().requires_grad_(False)
        return self._loaded[name]


def mel_front(sizes: files.Sizes) -> LogMelSpectrogram:
    """Return the front end of the audio autoencoder: ln of mel magnitudes in centred frames."""
    return LogMelSpectrogram(
        sizes.audio_rate, N_FFT, sizes.audio_hop, sizes.mel_bins,
        log="ln", floor=FLOOR, eps=0.0, padding=N_FFT // 2, clip=False,
    )  # fmt: skip


def _statistics(vae: Any, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return the latents' mean and standard deviation, which an autoencoder stores beside its weights."""
    return vae.latents_mean.float().reshape(shape), vae.latents_std.float().reshape(shape)
