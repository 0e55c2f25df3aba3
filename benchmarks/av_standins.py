"""Stand-ins for third-party packages that av-benchmark imports and that are not installed here.

av-benchmark's own extraction runs unchanged behind these: what it never calls is empty, and the few small
things that it does call (a clip sampler, a normalisation, a reader of WAV files) are written anew from what
they do. Weights are ours, so nothing is downloaded.
"""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn


def install() -> None:
    """Put the stand-ins among the imported modules."""
    import torchaudio
    from transformers import PreTrainedModel, pytorch_utils  # before there is a torchvision to find
    from transformers.models import audio_spectrogram_transformer  # noqa: F401

    torchaudio.load = read_wav  # what its soundfile backend did; the current one wants compiled parts
    if not hasattr(pytorch_utils, "find_pruneable_heads_and_indices"):
        pytorch_utils.find_pruneable_heads_and_indices = None  # of older transformers; never called
    PreTrainedModel.get_head_mask = lambda _self, _mask, layers: [None] * layers  # of older ones, too
    _module("timm.models._hub", download_cached_file=None)
    _module("timm.layers", DropPath=DropPath, trunc_normal_=_no_init, to_2tuple=lambda x: (x, x))
    _module("iopath.common.file_io", g_pathmgr=None)
    _module("torchvision.transforms.v2", Normalize=Normalize)
    _module("pytorchvideo.data.clip_sampling", ConstantClipsPerVideoSampler=ConstantClipsPerVideoSampler)
    _module("laion_clap", CLAP_Module=NotRun)
    _module("msclap", CLAP=NotRun)
    sys.modules["imagebind.data"] = ModuleType("imagebind.data")  # its loaders, which want yet more packages


def _module(name: str, **contents: Any) -> None:
    """Install a module `name` with these contents, and the packages above it if they are missing."""
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        path = ".".join(parts[:count])
        if path not in sys.modules:
            sys.modules[path] = ModuleType(path)
            sys.modules[path].__path__ = []  # type: ignore[attr-defined]
            if count > 1:
                setattr(sys.modules[".".join(parts[: count - 1])], parts[count - 1], sys.modules[path])
    for key, value in contents.items():
        setattr(sys.modules[name], key, value)


def _no_init(tensor: Tensor, **_: Any) -> Tensor:
    """Leave a tensor as it is: its weights are read later."""
    return tensor


def _no_reset(_: nn.Module) -> None:
    """Leave a module as it is: its weights are read later."""


class DropPath(nn.Identity):
    """A layer that does nothing in eval mode."""


class NotRun(nn.Module):
    """A model that these measurements never run."""

    def __init__(self, **_: Any) -> None:
        super().__init__()

    def load_state_dict(self, *_: Any, **__: Any) -> Any:
        """Do nothing: only the name is imported."""

    def load_ckpt(self, *_: Any, **__: Any) -> None:
        """Do nothing: only the name is imported."""


class Normalize:
    """(x - mean) / std of one channel."""

    def __init__(self, mean: list[float], std: list[float]) -> None:
        self.mean, self.std = mean[0], std[0]

    def __call__(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


class ConstantClipsPerVideoSampler:
    """Take clips spread evenly, the first at the start and the last at the end."""

    def __init__(self, clip_duration: float, clips_per_video: int) -> None:
        self.length, self.count, self.index = Fraction(clip_duration), clips_per_video, 0

    def __call__(self, _end: float, duration: float, annotation: Any = None) -> tuple[Any, ...]:
        start = max(Fraction(duration) - self.length, Fraction(0)) * self.index / (self.count - 1)
        self.index += 1
        return start, start + self.length, self.index - 1, 0, self.index == self.count


def read_wav(path: Path) -> tuple[Tensor, int]:
    """Read a WAV file as (C, N) float32 and its rate in Hz."""
    import soundfile

    wave, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return torch.from_numpy(wave.T.copy()), rate


def use_our_weights(home: Path, video: bool) -> None:
    """Make av-benchmark's constructors load our files; `home` stands for the user's home folder.

    Without `video` ImageBind and Synchformer, which are not run then, are left out.
    """
    import os

    from av_bench import extraction_models as built
    from hear21passt.models import passt

    from foleypref.published.taggers import PANNS, PASST, VGGISH
    from foleypref.published.weights import load_published

    nn.Linear.reset_parameters = nn.modules.conv._ConvNd.reset_parameters = _no_reset  # a minute of numbers
    place = home / ".cache" / "audioldm_eval" / "ckpt"  # where its PANNs look
    place.mkdir(parents=True)
    state = {key: value.clone() for key, value in load_published(PANNS["16k"]).items()}
    for name in ("Cnn14_16k_mAP=0.438.pth", "Cnn14_mAP=0.431.pth"):
        torch.save({"model": state}, place / name)
    os.environ["HOME"] = str(home)

    vggish = nn.Module()
    vggish.state_dict = lambda: load_published(VGGISH)  # type: ignore[method-assign, assignment]
    torch.hub.load = lambda *_: vggish

    plain_model, plain_passt = built.get_basic_model, passt.get_model

    def basic(**settings: Any) -> nn.Module:
        plain_model.__globals__["get_model_passt"] = lambda arch: plain_passt(arch, pretrained=False)
        model: nn.Module = plain_model(**settings)
        model.net.load_state_dict(load_published(PASST))
        return model

    built.get_basic_model = basic
    if not video:
        built.imagebind_model.imagebind_huge = built.Synchformer = NotRun
        built.torch = _TorchWithOurs({})
        return
    plain_huge = built.imagebind_model.imagebind_huge

    def huge(**_: Any) -> nn.Module:
        model: nn.Module = plain_huge(pretrained=False)
        model.load_state_dict(load_published("imagebind_huge.pth"), strict=False)  # of it two halves are here
        return model

    built.imagebind_model.imagebind_huge = huge
    built.torch = _TorchWithOurs(load_published("synchformer_state_dict.pth"))


class _TorchWithOurs(ModuleType):
    """`torch` with a `load` that returns the one checkpoint that av-benchmark's constructor reads itself."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__("torch")
        self.state = state

    def load(self, *_: Any, **__: Any) -> dict[str, Tensor]:
        """Return the path of Synchformer's weights."""
        return self.state

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)
