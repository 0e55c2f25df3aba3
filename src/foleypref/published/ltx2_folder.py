"""A folder of LTX-2 in diffusers' layout: where it is, the numbers in its configurations, and its parts.

For the numbers only JSON is read, so that shapes and plans are known before anything is loaded; without a
folder they are those of the released LTX-2 (19 B). Parts are loaded by diffusers and transformers, from
safetensors only.

Letters: F latent frames, S latents per frame, C channels, L audio latents.
"""

from __future__ import annotations

import importlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from foleypref.published.hashes import file_hashes
from foleypref.published.places import MissingWeights, locate
from foleypref.workspace.records import digest

INDEX = "LTX-2/model_index.json"
"""The registry's name of the file that makes a folder a diffusers pipeline."""

TRANSFORMER = ("diffusers", "LTX2VideoTransformer3DModel")
_LTX2 = "diffusers.pipelines.ltx2"
_CLASSES = {
    "vae": ("diffusers", ("AutoencoderKLLTX2Video",)),
    "audio_vae": ("diffusers", ("AutoencoderKLLTX2Audio",)),
    "vocoder": (_LTX2, ("LTX2Vocoder", "LTX2VocoderWithBWE")),
    "connectors": (_LTX2, ("LTX2TextConnectors",)),
    "text_encoder": (
        "transformers",
        ("Gemma3ForConditionalGeneration", "Gemma4UnifiedForConditionalGeneration"),
    ),
}
"""The module of each part, and the classes that a folder's configuration may name."""

_ADVICE = "get the whole folder, with all parts of LTX-2's pipeline"


@dataclass(frozen=True)
class Sizes:
    """Numbers on which shapes depend; the defaults are the released LTX-2's."""

    channels: int = 128  # C of a video latent
    spatial: int = 32  # pixels along a latent's side
    temporal: int = 8  # frames per latent; the first latent is one frame
    audio_channels: int = 8
    mel_bins: int = 64
    audio_rate: int = 16_000  # Hz of the audio autoencoder's mel frames
    audio_hop: int = 160  # samples per mel frame
    output_rate: int = 24_000  # Hz of the vocoder
    time_scale: float = 1000.0  # factor of σ at the transformer's input
    video_text: int = 3840  # width of the connectors' output for each stream
    audio_text: int = 3840

    MEL_FACTOR: ClassVar[int] = 4  # mel frames, and mel bins, per audio latent, in every autoencoder

    @property
    def audio_features(self) -> int:
        """Features per audio latent frame: channels times mel bins."""
        return self.audio_channels * (self.mel_bins // self.MEL_FACTOR)

    def video_grid(self, num_frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Return (F, latent rows, latent columns). Raises ValueError for sizes off the autoencoder's grid."""
        if height % self.spatial or width % self.spatial:
            raise ValueError(
                f"height and width must be multiples of {self.spatial} pixels, found {height} × {width}"
            )
        if num_frames % self.temporal != 1 % self.temporal:
            fit = self.frames_for(num_frames)
            raise ValueError(
                f"num_frames must be 1 above a multiple of {self.temporal}, found {num_frames}: take {fit}"
            )
        return (num_frames - 1) // self.temporal + 1, height // self.spatial, width // self.spatial

    def frames_for(self, least: float) -> int:
        """Return the smallest number of frames on the grid that is at least `least`."""
        return 1 + self.temporal * max(0, math.ceil((least - 1) / self.temporal - 1e-6))

    def audio_frames(self, seconds: float) -> int:
        """Return L, the audio latents of `seconds` of sound, as the pipeline counts them."""
        return round(seconds * self.audio_rate / self.audio_hop / self.MEL_FACTOR)


RELEASED = Sizes()


def find_folder(folder: str) -> Path:
    """Return the folder with `model_index.json`: `folder`, one inside it, or one in the hub's cache.

    Raises MissingWeights, which says how to get it.
    """
    own = Path(folder).expanduser()
    if folder and (own / "model_index.json").is_file():
        return own
    return locate(INDEX, folder or None).parent


def sizes_in(folder: str) -> Sizes:
    """Read the sizes of the model in `folder` or the weights folder; the released ones if there is none."""
    try:
        return read_sizes(find_folder(folder))
    except MissingWeights:
        return RELEASED


def shifted_times(folder: Path, num_latents: int, num_steps: int) -> list[float]:
    """Return the released schedule: `num_steps` + 1 times from 0 to 1, by the folder's own scheduler.

    The times are shifted towards noise, and more so the more latents a picture has.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler

    if num_steps == 1:  # nothing to shift, and the scheduler would divide by 0
        return [0.0, 1.0]
    config = read_config(folder, "scheduler", "scheduler_config.json")
    few, many = config.get("base_image_seq_len", 1024), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.95), config.get("max_shift", 2.05)
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(config)
    mu = low + (high - low) * (num_latents - few) / (many - few)
    scheduler.set_timesteps(sigmas=[1 - i / num_steps for i in range(num_steps)], mu=mu)
    return [1 - float(sigma) for sigma in scheduler.sigmas]


def read_sizes(folder: Path) -> Sizes:
    """Read the sizes in the configurations of a folder. Raises ValueError if it holds another model."""
    network = read_config(folder, "transformer")
    named, expected = network.get("_class_name", "a model without a class name"), TRANSFORMER[1]
    if named != expected:
        raise ValueError(
            f"{folder / 'transformer'} holds {named}, expected {expected}; give a folder of LTX-2"
        )
    patches = [network.get(name, 1) for name in ("patch_size", "patch_size_t", "audio_patch_size")]
    if patches != [1, 1, 1]:
        raise ValueError(f"{folder}: latents in patches of {patches} are not supported, only patches of 1")
    vae, audio, text = (read_config(folder, name) for name in ("vae", "audio_vae", "connectors"))
    return Sizes(
        channels=network.get("in_channels", RELEASED.channels),
        spatial=_ratio(vae, "spatial", "patch_size", 4),
        temporal=_ratio(vae, "temporal", "patch_size_t", 1),
        audio_channels=audio.get("latent_channels", RELEASED.audio_channels),
        mel_bins=audio.get("mel_bins") or RELEASED.mel_bins,
        audio_rate=audio.get("sample_rate", RELEASED.audio_rate),
        audio_hop=audio.get("mel_hop_length", RELEASED.audio_hop),
        output_rate=read_config(folder, "vocoder").get("output_sampling_rate", RELEASED.output_rate),
        time_scale=float(network.get("timestep_scale_multiplier", RELEASED.time_scale)),
        video_text=_width(text, "video"),
        audio_text=_width(text, "audio"),
    )


def read_config(folder: Path, part: str, name: str = "config.json") -> dict[str, Any]:
    """Read a part's configuration. Raises ValueError if it is missing or not JSON."""
    path = folder / part / name
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ValueError(f"{path} is missing; {_ADVICE}") from None
    except ValueError as error:
        raise ValueError(f"{path} is not a configuration ({error}); get it again") from error


def _ratio(vae: dict[str, Any], kind: str, patch: str, default: int) -> int:
    """Return the video autoencoder's compression ratio, computed as by its class if it is not configured."""
    configured = vae.get(f"{kind}_compression_ratio")
    scaling = vae.get("spatio_temporal_scaling", (True,) * 4)
    return int(configured) if configured else int(vae.get(patch, default)) * 2 ** sum(scaling)


def _width(connectors: dict[str, Any], stream: str) -> int:
    heads = connectors.get(f"{stream}_connector_num_attention_heads", 30)
    return int(heads * connectors.get(f"{stream}_connector_attention_head_dim", 128))


def load_part(folder: Path, name: str, dtype: torch.dtype) -> Any:
    """Load the text encoder, the connectors or a codec, with the class that its configuration names.

    Raises ValueError for an unknown class and for weights that are missing or do not fit.
    """
    module, known = _CLASSES[name]
    config = read_config(folder, name)
    named = [config.get("_class_name"), *(config.get("architectures") or [])]
    class_name = next((candidate for candidate in known if candidate in named), None)
    if class_name is None:
        raise ValueError(f"{folder / name} holds {named}, expected {' or '.join(known)}")
    return _pretrained(folder, name, imported(module, class_name), dtype)


def load_transformer(folder: Path, dtype: torch.dtype) -> Any:
    """Load the folder's flow network. Raises ValueError as `load_part` does."""
    return _pretrained(folder, "transformer", imported(*TRANSFORMER), dtype)


def load_tokenizer(folder: Path) -> Any:
    """Load the folder's tokenizer, which pads on the left."""
    tokenizer = imported("transformers", "AutoTokenizer").from_pretrained(
        folder / "tokenizer", local_files_only=True
    )
    tokenizer.padding_side = "left"  # as for Gemma, whatever the file says
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _pretrained(folder: Path, name: str, cls: Any, dtype: torch.dtype) -> Any:
    place = folder / name
    if not any(place.glob("*.safetensors")):
        raise ValueError(
            f"{place} holds no .safetensors; get the whole folder, with all parts of the pipeline"
        )
    try:
        part, info = cls.from_pretrained(
            place, local_files_only=True, use_safetensors=True, output_loading_info=True, dtype=dtype
        )
    except (OSError, RuntimeError, ValueError) as error:
        last = str(error).strip().splitlines()[-1].strip()
        raise ValueError(f"{place} cannot be loaded: {last}") from error
    if missing := sorted(info["missing_keys"]):
        raise ValueError(f"{place} lacks {len(missing)} weights, first {missing[0]}; get it again")
    return part


def hash_of(folder: Path, *names: str) -> str:
    """Hash the names and contents of these parts' files. Raises ValueError for a part that is missing."""
    files = [path for name in names for path in files_of(folder, name)]
    return digest([(str(path.relative_to(folder)), file_hashes(path).sha256) for path in files])


def files_of(folder: Path, name: str) -> list[Path]:
    """List a part's weights and configuration files. Raises ValueError if there are none."""
    place = folder / name
    kinds = (".safetensors", ".json", ".model")
    paths = sorted(place.iterdir()) if place.is_dir() else []
    files = [path for path in paths if path.suffix in kinds and path.name[0] != "."]  # hashes are hidden
    if not files:
        raise ValueError(f"{place} is missing; {_ADVICE}")
    return files


def imported(module: str, name: str) -> Any:
    """Import a name from an optional library. Raises ValueError, which says which extra to install."""
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"ltx2 needs the package {error.name!r}; install it with `pip install 'foleypref[ltx2]'`"
        ) from None
