"""Which weight files are published: their names, places, sizes, hashes and licences, and who needs them.

A field is None where nothing is known for certain. Nothing here is downloaded or opened: `weights.py` reads
the files, `fetching.py` gets them.
"""

from __future__ import annotations

from typing import NamedTuple

from foleypref.published.weight_file import WeightFile
from foleypref.settings.nearest import nearest

MMAUDIO_TERMS = "CC-BY-NC-4.0"
_HOSTED = (
    "CC-BY-NC-4.0 (as MMAudio's checkpoints, which it is published with; it has no statement of its own)"
)
_CARD = "the README says CC-BY-NC 4.0 since 2026-02-20, the hub's card still says MIT; the stricter counts"
_RELEASE = "https://github.com/hkchengrex/MMAudio/releases/download/v0.1/"
_DRIVE = "https://drive.google.com/drive/folders/"
_CLIP_REPO = "apple/DFN5B-CLIP-ViT-H-14-378"


def _mmaudio(variant: str, size: int | None, md5: str, sha256: str | None, notes: str = _CARD) -> WeightFile:
    name = f"mmaudio_{variant.replace('-', '_')}.pth"
    return WeightFile(
        name, f"MMAudio {variant} network", "hkchengrex/MMAudio", f"weights/{name}", None,
        size, md5, sha256, MMAUDIO_TERMS, True, notes,
    )  # fmt: skip


def _training_state(variant: str, gigabytes: str) -> WeightFile:
    name = f"mmaudio_{variant.replace('-', '_')}_ckpt.pth"
    return WeightFile(
        name, f"MMAudio {variant} network, training state", "hkchengrex/MMAudio", f"checkpoints/{name}", None,
        None, None, None, MMAUDIO_TERMS, True, f"{gigabytes} GB: with optimiser and EMA; {_CARD}",
    )  # fmt: skip


def _beside_mmaudio(
    name: str, role: str, size: int, md5: str, sha256: str, notes: str, stems: tuple[str, ...] = ()
) -> WeightFile:
    return WeightFile(
        name, role, "hkchengrex/MMAudio", f"ext_weights/{name}", _RELEASE + name,
        size, md5, sha256, MMAUDIO_TERMS, True, notes, other_stems=stems,
    )  # fmt: skip


def _by_url(
    name: str, role: str, url: str, licence: str | None, notes: str = "", *, nc: bool = False,
    md5: str | None = None,
) -> WeightFile:  # fmt: skip
    return WeightFile(name, role, None, None, url, None, md5, None, licence, nc, notes)


def _on_hub(name: str, role: str, repo: str, path: str, licence: str | None, notes: str = "") -> WeightFile:
    return WeightFile(name, role, repo, path, None, None, None, None, licence, False, notes)


def _on_drive(name: str, role: str, folder: str, notes: str = "") -> WeightFile:
    return WeightFile(
        name, role, None, None, None, None, None, None, None, False, notes, page=_DRIVE + folder
    )


FILES: tuple[WeightFile, ...] = (
    _mmaudio("small-16k", 629_395_261, "af93cde404179f58e3919ac085b8033b",
             "61987bcbd6fc689af063075d7efaef29425f65df155dac589c07fa8173a03c1c"),
    _mmaudio("small-44k", None, "babd74c884783d13701ea2820a5f5b6d", None, f"listed as 601M; {_CARD}"),
    _mmaudio("medium-44k", 2_487_535_109, "5a56b6665e45a1e65ada534defa903d0",
             "3c6b01b5767a92f71529474faffedca2309416ff822b57b0c8d18be218cfb41a"),
    _mmaudio("large-44k", 4_120_388_840, "fed96c325a6785b85ce75ae1aafd2673",
             "b3094f49ec67847dc5cf989982033b674574fd35f313d2fe4e54de8998a576dd"),
    _mmaudio("large-44k-v2", 4_122_474_715, "01ad4464f049b2d7efdaa4c1a59b8dfe",
             "a6bf693424fbd4ce0244fff8c412347714d5ac586e28dbeffadfa0f2b647af74"),
    _training_state("small-16k", "3.1"),
    _training_state("small-44k", "3.1"),
    _training_state("medium-44k", "12.4"),
    _training_state("large-44k", "20.6"),
    _beside_mmaudio("v1-16.pth", "MMAudio 16k VAE", 686_652_758, "69f56803f59a549a1a507c93859fd4d7",
                    "15ad082c714ccf3771898a771fc6eebdc1d9c8d5c6154726906a97f43603d62c", _CARD),
    _beside_mmaudio("v1-44.pth", "MMAudio 44k VAE", 1_221_942_998, "fab020275fa44c6589820ce025191600",
                    "ab6cc15dc31947675f75c950c41f4dcfd0d6d1817555ac871f809ec388e4651a", _CARD,
                    ("mmaudio_vae_44k",)),
    _beside_mmaudio("best_netG.pt", "BigVGAN 16k vocoder", 449_217_313, "eeaf372a38a9c31c362120aba2dde292",
                    "970ca75ee4d5ce583e9396a4534acb14971ea2b4f1c22e038f476680c868a789", _HOSTED),
    _beside_mmaudio("synchformer_state_dict.pth", "Synchformer", 950_058_171,
                    "5b2f5594b0730f70e41e549b7c94390c",
                    "8aff082f2df5c3bc52759db0c865c7ee772ae6400b860d1b7e90413f2defb67c", _HOSTED,
                    ("mmaudio_synchformer",)),
    _by_url("empty_string.pth", "CLIP features of the empty string", _RELEASE + "empty_string.pth", None,
            "only upstream's training wants it: every MMAudio network carries the same features"),
    WeightFile("bigvgan_generator.pt", "BigVGAN 44k vocoder", "nvidia/bigvgan_v2_44khz_128band_512x",
               "bigvgan_generator.pt", None, 489_041_291, None,
               "d9fe7ec6bd0b44ed9d66973d5012d8181c1570b01e5c72df51973e241dccd357", "MIT", False,
               "after 5M steps; an earlier file of 3M steps begins with sha256 b4262607"),
    WeightFile("DFN5B-CLIP-ViT-H-14-378/open_clip_pytorch_model.bin", "CLIP ViT-H/14-378", _CLIP_REPO,
               "open_clip_pytorch_model.bin", None, None, None, None, "apple-amlr (research use only)", True,
               "formerly apple/DFN5B-CLIP-ViT-H-14-384, the same model",
               other_repos=("apple/DFN5B-CLIP-ViT-H-14-384",),
               other_stems=("apple_DFN5B-CLIP-ViT-H-14-384",)),
    _on_drive("frieren-noreflow.ckpt", "Frieren, no reflow", "1pzsVP5kXkTn5xzHWvZ4lurcinN4_Bg__",
              "users mention last.ckpt: save it under this name"),
    _on_drive("frieren-reflow.ckpt", "Frieren, reflow", "1pzMLB66DggC3IaVEREnjrFrzwdpR-A4y",
              "its own name is not known: save it under this one"),
    _on_drive("frieren-distilled.ckpt", "Frieren, reflow and distillation",
              "1q-JjBkEdBpBvPhTHl-bdKP6BqYGWiewc", "its own name is not known: save it under this one"),
    _on_drive("epoch=000032.ckpt", "Frieren VAE", "11rtgLedRjT4lckud0BZQ083APIPnLGoe",
              "a fallback: every Frieren checkpoint carries its VAE"),
    _on_drive("frieren/best_netG.pt", "BigVGAN 16k vocoder", "11tg7VagVNvucNtQ8y0R4UJLIhEeR76oj",
              "comes with args.yml; perhaps the same file as MMAudio's best_netG.pt"),
    _on_hub("cavp_epoch66.ckpt", "CAVP", "SimianLuo/Diff-Foley", "diff_foley_ckpt/cavp_epoch66.ckpt", None),
    _on_hub("maa2.ckpt", "Make-An-Audio 2", "ByteDance/Make-An-Audio-2", "maa2.ckpt", None,
            "Frieren's VAE should be inside, under first_stage_model"),
    _by_url("imagebind_huge.pth", "ImageBind huge",
            "https://dl.fbaipublicfiles.com/imagebind/imagebind_huge.pth", "CC-BY-NC-SA-4.0", nc=True),
    _by_url("Cnn14_16k_mAP=0.438.pth", "PANNs Cnn14 16k",
            "https://zenodo.org/records/3987831/files/Cnn14_16k_mAP%3D0.438.pth", "CC-BY-4.0",
            "the licence is a mirror's statement", md5="362fc5ff18f1d6ad2f6d464b45893f2c"),
    _by_url("Cnn14_mAP=0.431.pth", "PANNs Cnn14 32k",
            "https://zenodo.org/records/3987831/files/Cnn14_mAP%3D0.431.pth", "CC-BY-4.0",
            "the licence is a mirror's statement"),
    _by_url("passt-s-f128-p16-s10-ap.476-swa.pt", "PaSST",
            "https://github.com/kkoutini/PaSST/releases/download/v0.0.1-audioset/"
            "passt-s-f128-p16-s10-ap.476-swa.pt", "Apache-2.0"),
    _by_url("vggish-10086976.pth", "VGGish",
            "https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish-10086976.pth",
            "Apache-2.0"),
    _on_hub("music_speech_audioset_epoch_15_esc_89.98.pt", "CLAP, LAION", "lukewys/laion_clap",
            "music_speech_audioset_epoch_15_esc_89.98.pt", "CC0-1.0",
            "HTSAT-base; laion/larger_clap_general is its conversion for transformers"),
    _on_hub("CLAP_weights_2023.pth", "CLAP, Microsoft 2023", "microsoft/msclap", "CLAP_weights_2023.pth",
            "MS-PL", "690 MB"),
    _on_hub("CLAP_weights_2022.pth", "CLAP, Microsoft 2022", "microsoft/msclap", "CLAP_weights_2022.pth",
            "MS-PL", "2.33 GB"),
    _by_url("audiobox-aesthetics/checkpoint.pt", "Audiobox Aesthetics",
            "https://dl.fbaipublicfiles.com/audiobox-aesthetics/checkpoint.pt", "CC-BY-4.0",
            "its WavLM part is MIT; facebook/audiobox-aesthetics on the hub is the same model"),
    _on_hub("roberta-base/vocab.json", "RoBERTa vocabulary", "FacebookAI/roberta-base", "vocab.json", "MIT"),
    _on_hub("roberta-base/merges.txt", "RoBERTa merges", "FacebookAI/roberta-base", "merges.txt", "MIT"),
    _on_hub("gpt2/vocab.json", "GPT-2 vocabulary", "openai-community/gpt2", "vocab.json", "MIT"),
    _on_hub("gpt2/merges.txt", "GPT-2 merges", "openai-community/gpt2", "merges.txt", "MIT"),
    *(_on_hub(f"pe-av-large/{file}", f"PE-AV large, {file}", "facebook/pe-av-large", file, "Apache-2.0",
              "other sizes: facebook/pe-av-small, -base, and -16-frame of each")
      for file in ("model.safetensors", "config.json", "tokenizer.json")),
    WeightFile("LTX-2/model_index.json", "LTX-2, a folder in diffusers' layout", "Lightricks/LTX-2",
               "model_index.json", None, None, None, None,
               "LTX-2 Community License (not open source; use restrictions, paid above a revenue)",
               False, "one of a folder of many: get all of it, docs/ltx2.md has the command",
               page="https://huggingface.co/Lightricks/LTX-2"),
)  # fmt: skip

_CLIP = "DFN5B-CLIP-ViT-H-14-378/open_clip_pytorch_model.bin"
_SYNC = "synchformer_state_dict.pth"
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
    "clap": (
        "music_speech_audioset_epoch_15_esc_89.98.pt",
        "roberta-base/vocab.json",
        "roberta-base/merges.txt",
    ),
    "msclap": ("CLAP_weights_2023.pth", "gpt2/vocab.json", "gpt2/merges.txt"),
    "pe_av": ("pe-av-large/model.safetensors", "pe-av-large/config.json", "pe-av-large/tokenizer.json"),
    "aesthetics": ("audiobox-aesthetics/checkpoint.pt",),
    "ltx2": ("LTX-2/model_index.json",),
}
"""A model or scorer, and the names of the files that it runs on: for a model, network first."""

_BY_NAME = {entry.name: entry for entry in FILES}


def find(name: str) -> WeightFile:
    """The file called `name`, which is its name here or its own; ValueError with the nearest match."""
    if name in _BY_NAME:
        return _BY_NAME[name]
    own = by_file_name(name)
    if own:
        return own[0]
    known = [*_BY_NAME, *(entry.file for entry in FILES)]
    raise ValueError(f"no published weight file is called {name!r}; {nearest(name, known)}")


def files_for(model: str) -> tuple[WeightFile, ...]:
    """The files that a model or scorer runs on (`mmaudio-small-16k`); ValueError with the nearest match."""
    if model not in MODELS:
        raise ValueError(f"no model with published weights is called {model!r}; {nearest(model, MODELS)}")
    return tuple(_BY_NAME[name] for name in MODELS[model])


class Terms(NamedTuple):
    """Licences in words, "" where there are no published weights, and whether one forbids commercial use."""

    text: str
    non_commercial: bool


def licences_of(model: str) -> Terms:
    """The terms of all weights that a model or scorer runs on; what is not stated is said to be so."""
    files = [_BY_NAME[name] for name in MODELS.get(model, ())]
    words = dict.fromkeys(entry.licence or "licence not stated" for entry in files)
    return Terms("; ".join(words), any(entry.non_commercial for entry in files))


def select(names: list[str]) -> tuple[WeightFile, ...]:
    """The files meant by names of files or models, each once; ValueError with the nearest match."""
    found: dict[str, WeightFile] = {}
    for name in names:
        try:
            entries = files_for(name) if name in MODELS else (find(name),)
        except ValueError:
            hint = nearest(name, [*MODELS, *_BY_NAME])
            raise ValueError(
                f"no published weight file or model is called {name!r}; {hint} "
                "(`foleypref weights list` shows them all)"
            ) from None
        found |= {entry.name: entry for entry in entries}
    return tuple(found.values())


def by_file_name(file: str) -> list[WeightFile]:
    """Every published file whose own name is `file`: some share one."""
    return [entry for entry in FILES if entry.file == file]
