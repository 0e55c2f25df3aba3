"""The networks of LTX-2: diffusers' parts of one local folder, each loaded at its first use.

The transformer stays in memory. The text encoder and the codecs are used at different times, so loading one
kind releases the other, and computing a velocity releases the text encoder; training from cached latents and
conditions loads neither. Only safetensors are read, and nothing is downloaded.

Letters: B batch, F latent frames, S latents per frame, C channels, L audio latents, D features of each, N
samples, K text tokens.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from foleypref.published import ltx2_codecs as codecs
from foleypref.published import ltx2_files as files
from foleypref.published.conversion import write_safetensors
from foleypref.published.filling import Adapt
from foleypref.published.ltx2_sizes import find_folder, read_config, read_sizes
from foleypref.published.parts import adapted, assign_state, content_hashes, copy_for_training
from foleypref.published.places import companions
from foleypref.published.reading import read_state
from foleypref.workspace.records import digest


class LTX2Parts:
    """Transformer, codecs and text encoder of one folder on one device."""

    def __init__(self, folder: str, device: torch.device, feature_dtype: torch.dtype) -> None:
        self.folder, self.device, self.feature_dtype = find_folder(folder), device, feature_dtype
        self.sizes = read_sizes(self.folder)
        self._kind = ""  # of the parts in memory: "text" or "codecs"
        self._loaded: dict[str, Any] = {}
        self._null: dict[str, dict[str, Tensor]] = {}

    # -- the transformer -----------------------------------------------------------------------------------

    def load_network(self, weights: str, dtype: torch.dtype, adapt: Adapt | None = None) -> nn.Module:
        """Return the flow network, the folder's or a tuned one of its configuration, changed by `adapt`."""
        if weights:
            network = self._load_tuned(Path(weights).expanduser(), dtype)
        else:
            network = files.load_transformer(self.folder, dtype)
        network = network.requires_grad_(True)
        network.enable_gradient_checkpointing()  # sets its function; the switch of training does not
        network.gradient_checkpointing = False
        loaded: nn.Module = adapted(network, adapt).to(self.device)
        return loaded.eval()

    def _load_tuned(self, path: Path, dtype: torch.dtype) -> Any:
        with torch.device("meta"):
            network = files.imported(*files.TRANSFORMER).from_config(read_config(self.folder, "transformer"))
        assign_state(network, read_state(path), path, f"the transformer of {self.folder}")
        copy_for_training(network, dtype)
        return network

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

    # -- the prompt ----------------------------------------------------------------------------------------

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
            self._null[key] = self._read_null(key) or self._make_null(key, num_tokens)
            self.release()  # training needs the text encoder for nothing else
        return self._null[key]

    def _null_places(self, key: str) -> list[Path]:
        return companions(self.folder / "model_index.json", f".foleypref-null-{key}.safetensors")

    def _read_null(self, key: str) -> dict[str, Tensor] | None:
        for place in self._null_places(key):
            if place.is_file():
                return {name: value.to(self.device, copy=True) for name, value in read_state(place).items()}
        return None

    def _make_null(self, key: str, num_tokens: int) -> dict[str, Tensor]:
        """Compute the states and store them, so that training that drops conditions loads no text encoder."""
        states = self.text_states([""], num_tokens)
        for place in self._null_places(key):
            try:
                write_safetensors(place, states, {"format": "pt"})
                break
            except OSError:  # a read-only folder: the next place
                continue
        return states

    # -- pictures and sound --------------------------------------------------------------------------------

    def encode_video(self, frames: np.ndarray) -> Tensor:
        """Encode frames (T, H, W, 3) uint8 to normalised latents (F, S, C)."""
        return codecs.encode_video(self._part("codecs", "vae"), frames)

    def decode_video(self, latents: Tensor, rows: int, columns: int) -> Tensor:
        """Decode normalised latents (F, S, C), S = rows · columns, to CPU frames (T, H, W, 3) uint8."""
        return codecs.decode_video(self._part("codecs", "vae"), latents.to(self.device), rows, columns)

    def encode_audio(self, waves: Tensor, num_latents: int) -> Tensor:
        """Encode mono waves (B, N) at the vocoder's rate to normalised latents (B, L, D)."""
        mel = self._part("codecs", "mel", lambda: codecs.mel_front(self.sizes).to(self.device))
        vae = self._part("codecs", "audio_vae")
        return codecs.encode_audio(vae, mel, self.sizes, waves.to(self.device), num_latents)

    def decode_audio(self, latents: Tensor) -> Tensor:
        """Decode normalised latents (B, L, D) to mono waves (B, N) at the vocoder's rate, in [-1, 1]."""
        vae, vocoder = (self._part("codecs", name) for name in ("audio_vae", "vocoder"))
        return codecs.decode_audio(vae, vocoder, latents.to(self.device))

    # -- loading -------------------------------------------------------------------------------------------

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
        """Return a part, loading it at its first use and releasing the parts of the other kind."""
        if kind != self._kind:
            self.release()
            self._kind = kind
        if name not in self._loaded:
            self._loaded[name] = make() if make else self._load(name)
        return self._loaded[name]

    def _load(self, name: str) -> Any:
        """Load a part in the features' dtype; for sound in float32, because rounding would be audible."""
        dtype = torch.float32 if name in ("audio_vae", "vocoder") else self.feature_dtype
        part = files.load_part(self.folder, name, dtype)
        return part.to(self.device).eval().requires_grad_(False)
