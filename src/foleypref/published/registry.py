"""The registry of published weight files: names, places, sizes, hashes, licences, and which models use them.

A field is None if its value is not certain. Nothing here is downloaded or opened: `fetching.py` downloads the
files, and `weights.py` reads them.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from foleypref.settings.nearest import nearest

MMAUDIO_TERMS = "CC-BY-NC-4.0"
_HOSTED = (
    "CC-BY-NC-4.0 (as MMAudio's checkpoints, which it is published with; it has no statement of its own)"
)
_CARD = "the README says CC-BY-NC 4.0 since 2026-02-20, the hub's card still says MIT; the stricter counts"
_RELEASE = "https://github.com/hkchengrex/MMAudio/releases/download/v0.1/"


@dataclass(frozen=True)
class WeightFile:
    """One published file; `name` identifies it in commands and is its path below the weights folder."""

    name: str
    role: str  # up to the first comma the result of `identify`; the rest cannot be seen in the content
    _: KW_ONLY
    repo: str | None = None  # on the Hugging Face hub
    path_in_repo: str | None = None
    url: str | None = None  # of the file itself, outside the hub
    bytes: int | None = None
    md5: str | None = None
    sha256: str | None = None
    licence: str | None = None  # of the weights, not of the code; None: not stated
    non_commercial: bool = False  # the licence is known to forbid commercial use
    notes: str = ""
    page: str | None = None  # where to download it by hand, if a program cannot
    other_repos: tuple[str, ...] = ()  # former or other names of `repo`
    other_stems: tuple[str, ...] = ()  # its names, without suffix, in third-party safetensors conversions

    @property
    def file(self) -> str:
        """The last part of `name`, without folders."""
        return PurePosixPath(self.name).name

    @property
    def source(self) -> str | None:
        """The URL to get it from, or None if it is not known."""
        if self.repo and self.path_in_repo:
            return f"https://huggingface.co/{self.repo}/resolve/main/{self.path_in_repo}"
        return self.url or self.page

    @property
    def terms(self) -> str:
        """The licence as a phrase for messages."""
        if self.licence is None:
            return "licence not stated by its authors: ask them before you pass it on"
        return f"licence {self.licence}" + (": non-commercial use only" if self.non_commercial else "")


def _mmaudio(name: str, role: str, folder: str, **known: Any) -> WeightFile:
    """Return the entry of a file in MMAudio's repository."""
    return WeightFile(
        name, role, repo="hkchengrex/MMAudio", path_in_repo=f"{folder}/{name}",
        **{"licence": MMAUDIO_TERMS, "non_commercial": True, "notes": _CARD, **known},
    )  # fmt: skip


def _network(variant: str, **known: Any) -> WeightFile:
    return _mmaudio(
        f"mmaudio_{variant.replace('-', '_')}.pth", f"MMAudio {variant} network", "weights", **known
    )


def _training_state(variant: str, gigabytes: str) -> WeightFile:
    name = f"mmaudio_{variant.replace('-', '_')}_ckpt.pth"
    notes = f"{gigabytes} GB: with optimiser and EMA; {_CARD}"
    return _mmaudio(name, f"MMAudio {variant} network, training state", "checkpoints", notes=notes)


def _beside_mmaudio(name: str, role: str, **known: Any) -> WeightFile:
    """Return the entry of a file that MMAudio publishes beside its networks."""
    return _mmaudio(name, role, "ext_weights", url=_RELEASE + name, **known)


def _on_hub(name: str, role: str, repo: str, path: str = "", **known: Any) -> WeightFile:
    """Return the entry of a file on the hub; its `path` there is the last part of its name unless given."""
    return WeightFile(name, role, repo=repo, path_in_repo=path or name.split("/")[-1], **known)


def _frieren(name: str, role: str, folder: str, notes: str = "") -> WeightFile:
    return WeightFile(name, role, page=f"https://drive.google.com/drive/folders/{folder}", notes=notes)


FILES: tuple[WeightFile, ...] = (
    _network("small-16k", bytes=629_395_261, md5="af93cde404179f58e3919ac085b8033b",
             sha256="61987bcbd6fc689af063075d7efaef29425f65df155dac589c07fa8173a03c1c"),
    _network("small-44k", md5="babd74c884783d13701ea2820a5f5b6d", notes=f"listed as 601M; {_CARD}"),
    _network("medium-44k", bytes=2_487_535_109, md5="5a56b6665e45a1e65ada534defa903d0",
             sha256="3c6b01b5767a92f71529474faffedca2309416ff822b57b0c8d18be218cfb41a"),
    _network("large-44k", bytes=4_120_388_840, md5="fed96c325a6785b85ce75ae1aafd2673",
             sha256="b3094f49ec67847dc5cf989982033b674574fd35f313d2fe4e54de8998a576dd"),
    _network("large-44k-v2", bytes=4_122_474_715, md5="01ad4464f049b2d7efdaa4c1a59b8dfe",
             sha256="a6bf693424fbd4ce0244fff8c412347714d5ac586e28dbeffadfa0f2b647af74"),
    _training_state("small-16k", "3.1"),
    _training_state("small-44k", "3.1"),
    _training_state("medium-44k", "12.4"),
    _training_state("large-44k", "20.6"),
    _beside_mmaudio("v1-16.pth", "MMAudio 16k VAE", bytes=686_652_758,
                    md5="69f56803f59a549a1a507c93859fd4d7",
                    sha256="15ad082c714ccf3771898a771fc6eebdc1d9c8d5c6154726906a97f43603d62c"),
    _beside_mmaudio("v1-44.pth", "MMAudio 44k VAE", bytes=1_221_942_998,
                    md5="fab020275fa44c6589820ce025191600",
                    sha256="ab6cc15dc31947675f75c950c41f4dcfd0d6d1817555ac871f809ec388e4651a",
                    other_stems=("mmaudio_vae_44k",)),
    _beside_mmaudio("best_netG.pt", "BigVGAN 16k vocoder", bytes=449_217_313,
                    md5="eeaf372a38a9c31c362120aba2dde292",
                    sha256="970ca75ee4d5ce583e9396a4534acb14971ea2b4f1c22e038f476680c868a789",
                    notes=_HOSTED),
    _beside_mmaudio("synchformer_state_dict.pth", "Synchformer", bytes=950_058_171,
                    md5="5b2f5594b0730f70e41e549b7c94390c",
                    sha256="8aff082f2df5c3bc52759db0c865c7ee772ae6400b860d1b7e90413f2defb67c",
                    notes=_HOSTED, other_stems=("mmaudio_synchformer",)),
    WeightFile("empty_string.pth", "CLIP features of the empty string", url=_RELEASE + "empty_string.pth",
               notes="only upstream's training needs it: every MMAudio network carries the same features"),
    _on_hub("bigvgan_generator.pt", "BigVGAN 44k vocoder", "nvidia/bigvgan_v2_44khz_128band_512x",
            bytes=489_041_291, sha256="d9fe7ec6bd0b44ed9d66973d5012d8181c1570b01e5c72df51973e241dccd357",
            licence="MIT", notes="after 5M steps; an earlier file of 3M steps begins with sha256 b4262607"),
    _on_hub("DFN5B-CLIP-ViT-H-14-378/open_clip_pytorch_model.bin", "CLIP ViT-H/14-378",
            "apple/DFN5B-CLIP-ViT-H-14-378", licence="apple-amlr (research use only)", non_commercial=True,
            notes="formerly apple/DFN5B-CLIP-ViT-H-14-384, the same model",
            other_repos=("apple/DFN5B-CLIP-ViT-H-14-384",), other_stems=("apple_DFN5B-CLIP-ViT-H-14-384",)),
    _frieren("frieren-noreflow.ckpt", "Frieren, no reflow", "1pzsVP5kXkTn5xzHWvZ4lurcinN4_Bg__",
             "users mention last.ckpt: save it under this name"),
    _frieren("frieren-reflow.ckpt", "Frieren, reflow", "1pzMLB66DggC3IaVEREnjrFrzwdpR-A4y",
             "its own name is not known: save it under this one"),
    _frieren("frieren-distilled.ckpt", "Frieren, reflow and distillation",
             "1q-JjBkEdBpBvPhTHl-bdKP6BqYGWiewc", "its own name is not known: save it under this one"),
    _frieren("epoch=000032.ckpt", "Frieren VAE", "11rtgLedRjT4lckud0BZQ083APIPnLGoe",
             "a fallback: every Frieren checkpoint carries its VAE"),
    _frieren("frieren/best_netG.pt", "BigVGAN 16k vocoder", "11tg7VagVNvucNtQ8y0R4UJLIhEeR76oj",
             "comes with args.yml; perhaps the same file as MMAudio's best_netG.pt"),
    _on_hub("cavp_epoch66.ckpt", "CAVP", "SimianLuo/Diff-Foley", "diff_foley_ckpt/cavp_epoch66.ckpt"),
    _on_hub("maa2.ckpt", "Make-An-Audio 2", "ByteDance/Make-An-Audio-2",
            notes="Frieren's VAE should be inside, under first_stage_model"),
    WeightFile("imagebind_huge.pth", "ImageBind huge",
               url="https://dl.fbaipublicfiles.com/imagebind/imagebind_huge.pth",
               licence="CC-BY-NC-SA-4.0", non_commercial=True),
    WeightFile("Cnn14_16k_mAP=0.438.pth", "PANNs Cnn14 16k",
               url="https://zenodo.org/records/3987831/files/Cnn14_16k_mAP%3D0.438.pth", licence="CC-BY-4.0",
               md5="362fc5ff18f1d6ad2f6d464b45893f2c", notes="the licence is a mirror's statement"),
    WeightFile("Cnn14_mAP=0.431.pth", "PANNs Cnn14 32k",
               url="https://zenodo.org/records/3987831/files/Cnn14_mAP%3D0.431.pth", licence="CC-BY-4.0",
               notes="the licence is a mirror's statement"),
    WeightFile("passt-s-f128-p16-s10-ap.476-swa.pt", "PaSST",
               url="https://github.com/kkoutini/PaSST/releases/download/v0.0.1-audioset/"
               "passt-s-f128-p16-s10-ap.476-swa.pt", licence="Apache-2.0"),
    WeightFile("vggish-10086976.pth", "VGGish", licence="Apache-2.0",
               url="https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish-10086976.pth"),
    _on_hub("music_speech_audioset_epoch_15_esc_89.98.pt", "CLAP, LAION", "lukewys/laion_clap",
            licence="CC0-1.0",
            notes="HTSAT-base; laion/larger_clap_general is its conversion for transformers"),
    _on_hub("CLAP_weights_2023.pth", "CLAP, Microsoft 2023", "microsoft/msclap", licence="MS-PL",
            notes="690 MB"),
    _on_hub("CLAP_weights_2022.pth", "CLAP, Microsoft 2022", "microsoft/msclap", licence="MS-PL",
            notes="2.33 GB"),
    WeightFile("audiobox-aesthetics/checkpoint.pt", "Audiobox Aesthetics", licence="CC-BY-4.0",
               url="https://dl.fbaipublicfiles.com/audiobox-aesthetics/checkpoint.pt",
               notes="its WavLM part is MIT; facebook/audiobox-aesthetics on the hub is the same model"),
    _on_hub("roberta-base/vocab.json", "RoBERTa vocabulary", "FacebookAI/roberta-base", licence="MIT"),
    _on_hub("roberta-base/merges.txt", "RoBERTa merges", "FacebookAI/roberta-base", licence="MIT"),
    _on_hub("gpt2/vocab.json", "GPT-2 vocabulary", "openai-community/gpt2", licence="MIT"),
    _on_hub("gpt2/merges.txt", "GPT-2 merges", "openai-community/gpt2", licence="MIT"),
    *(_on_hub(f"pe-av-large/{file}", f"PE-AV large, {file}", "facebook/pe-av-large", licence="Apache-2.0",
              notes="other sizes: facebook/pe-av-small, -base, and -16-frame of each")
      for file in ("model.safetensors", "config.json", "tokenizer.json")),
    _on_hub("LTX-2/model_index.json", "LTX-2, a folder in diffusers' layout", "Lightricks/LTX-2",
            licence="LTX-2 Community License (not open source; use restrictions, paid above a revenue)",
            notes="one of a folder of many: get all of it, docs/ltx2.md has the command",
            page="https://huggingface.co/Lightricks/LTX-2"),
)  # fmt: skip

_CLIP = "DFN5B-CLIP-ViT-H-14-378/open_clip_pytorch_model.bin"
_SYNC = "synchformer_state_dict.pth"
_CLAP = "music_speech_audioset_epoch_15_esc_89.98.pt"
_AT_16K = ("v1-16.pth", "best_netG.pt", _CLIP, _SYNC)
_AT_44K = ("v1-44.pth", "bigvgan_generator.pt", _CLIP, _SYNC)
_FRIEREN = ("frieren/best_netG.pt", "cavp_epoch66.ckpt")

MODELS: dict[str, tuple[str, ...]] = {
    "mmaudio": ("mmaudio_large_44k_v2.pth", *_AT_44K),
    "mmaudio-small-16k": ("mmaudio_small_16k.pth", *_AT_16K),
    "mmaudio-small-44k": ("mmaudio_small_44k.pth", *_AT_44K),
    "mmaudio-medium-44k": ("mmaudio_medium_44k.pth", *_AT_44K),
    "mmaudio-large-44k": ("mmaudio_large_44k.pth", *_AT_44K),
    "mmaudio-large-44k-v2": ("mmaudio_large_44k_v2.pth", *_AT_44K),
    "frieren": ("frieren-noreflow.ckpt", *_FRIEREN),
    "frieren-base": ("frieren-noreflow.ckpt", *_FRIEREN),
    "frieren-noreflow": ("frieren-noreflow.ckpt", *_FRIEREN),
    "frieren-reflow": ("frieren-reflow.ckpt", *_FRIEREN),
    "frieren-distilled": ("frieren-distilled.ckpt", *_FRIEREN),
    "imagebind": ("imagebind_huge.pth",),
    "synchformer": (_SYNC,),
    "panns": ("Cnn14_16k_mAP=0.438.pth",),
    "panns-16k": ("Cnn14_16k_mAP=0.438.pth",),
    "panns-32k": ("Cnn14_mAP=0.431.pth",),
    "passt": ("passt-s-f128-p16-s10-ap.476-swa.pt",),
    "vggish": ("vggish-10086976.pth",),
    "clap": (_CLAP, "roberta-base/vocab.json", "roberta-base/merges.txt"),
    "msclap": ("CLAP_weights_2023.pth", "gpt2/vocab.json", "gpt2/merges.txt"),
    "pe_av": ("pe-av-large/model.safetensors", "pe-av-large/config.json", "pe-av-large/tokenizer.json"),
    "aesthetics": ("audiobox-aesthetics/checkpoint.pt",),
    "ltx2": ("LTX-2/model_index.json",),
}
"""A model or scorer, and the names of the files that it runs on: for a model, network first."""

_BY_NAME = {entry.name: entry for entry in FILES}


def find(name: str) -> WeightFile:
    """Return the file called `name`, here or as its own name. Raises ValueError with the nearest match."""
    if name in _BY_NAME:
        return _BY_NAME[name]
    if own := by_file_name(name):
        return own[0]
    known = [*_BY_NAME, *(entry.file for entry in FILES)]
    raise ValueError(f"no published weight file is called {name!r}; {nearest(name, known)}")


def files_for(model: str) -> tuple[WeightFile, ...]:
    """List the files that a model or scorer runs on. Raises ValueError with the nearest match."""
    if model not in MODELS:
        raise ValueError(f"no model with published weights is called {model!r}; {nearest(model, MODELS)}")
    return tuple(_BY_NAME[name] for name in MODELS[model])


class Terms(NamedTuple):
    """Licences in words, "" where there are no published weights, and whether one forbids commercial use."""

    text: str
    non_commercial: bool


def licences_of(model: str) -> Terms:
    """Return the terms of all weights that a model or scorer runs on, with a word for unstated ones."""
    files = [_BY_NAME[name] for name in MODELS.get(model, ())]
    words = dict.fromkeys(entry.licence or "licence not stated" for entry in files)
    return Terms("; ".join(words), any(entry.non_commercial for entry in files))


def select(names: list[str]) -> tuple[WeightFile, ...]:
    """List the files meant by names of files or models, each once. Raises ValueError as `find` does."""
    selected: dict[str, WeightFile] = {}
    for name in names:
        try:
            entries = files_for(name) if name in MODELS else (find(name),)
        except ValueError:
            hint = nearest(name, [*MODELS, *_BY_NAME])
            raise ValueError(
                f"no published weight file or model is called {name!r}; {hint} "
                "(`foleypref weights list` shows them all)"
            ) from None
        selected |= {entry.name: entry for entry in entries}
    return tuple(selected.values())


def by_file_name(file: str) -> list[WeightFile]:
    """List the published files whose own name is `file`, which some share."""
    return [entry for entry in FILES if entry.file == file]
