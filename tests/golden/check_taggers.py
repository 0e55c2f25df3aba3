"""Golden checks of the sound taggers: PANNs, PaSST and VGGish, their front ends, and the benchmarks' loader.

Inputs are made as the companion .json states them. Of `scorers_frontends` the taggers' part is checked here,
all of it; the rest is others'.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from foleypref.networks import panns, passt
from foleypref.networks.mel_basis import kaldi_basis
from foleypref.networks.panns import SIZES, Cnn14, Variant
from foleypref.networks.passt import PaSST, passt_mel, passt_power, ten_seconds
from foleypref.networks.vggish import VGGish, vggish_patches
from foleypref.published.taggers import (
    benchmark_wave,
    build_panns,
    build_passt,
    build_vggish,
    embed_patches,
    tag,
)
from tests.golden import recipes
from tests.golden.compare import integers, reals, texts

Quantities = Iterator[tuple[str, Tensor, Tensor]]

ABOUT = {"versions", "pins", "tensors"}  # of a companion: no quantities
RULES = ("A", "B")
OURS = r"audiodataset|passt|panns|vggish"  # in names of quantities of the front ends
VARIANTS: tuple[Variant, ...] = ("16k", "32k")


def companion(path: Path) -> dict[str, Any]:
    """Read the JSON file beside a file of tensors."""
    loaded: dict[str, Any] = json.loads(path.with_suffix(".json").read_text())
    return loaded


def waves(text: str) -> Tensor:
    """The sounds that a companion names as wave(seconds, rate, seed[, f0=Hz]): (B, N)."""
    calls = re.findall(r"wave\((\d+), ?(\d+), ?(?:seed=)?(\d+)(?:, ?f0=(\d+))?\)", text)
    assert calls, text
    return torch.stack(
        [recipes.wave(int(s), int(rate), int(seed), float(f0 or 220)) for s, rate, seed, f0 in calls]
    )


def check_consumed(done: set[str], wanted: set[str]) -> None:
    """Everything of a file has been compared, and nothing twice over under another name."""
    assert done == wanted, sorted(done ^ wanted)


# -- weights ---------------------------------------------------------------------------------------------


def stft_kernels(variant: Variant) -> dict[str, Tensor]:
    """Return the tensors of PANNs' files that our network leaves out: a windowed Fourier transform."""
    n = SIZES[variant].n_fft
    angle = 2 * torch.pi / n * torch.outer(torch.arange(n // 2 + 1.0), torch.arange(float(n))).double()
    window = torch.hann_window(n, dtype=torch.float64)
    parts = {"real": angle.cos() * window, "imag": -angle.sin() * window}
    return {
        f"spectrogram_extractor.stft.conv_{part}.weight": kernel[:, None].float()
        for part, kernel in parts.items()
    }


def panns_state(variant: Variant, rule: str) -> dict[str, Tensor]:
    """A whole file of PANNs under a rule, fixed tensors as they are made."""
    with torch.device("meta"):
        shapes = Cnn14(variant).state_dict()
    made = {key: torch.zeros((), dtype=torch.int64) for key in shapes if key.endswith("num_batches_tracked")}
    return recipes.scorer_weights(stft_kernels(variant) | shapes | made, rule)


def filled(network: Callable[[], nn.Module], rule: str) -> dict[str, Tensor]:
    """A whole state dict under a rule."""
    with torch.device("meta"):
        shapes = network().state_dict()
    return recipes.scorer_weights(shapes, rule)


# -- networks --------------------------------------------------------------------------------------------


def panns_outputs(
    golden: dict[str, Tensor], about: dict[str, Any], variant: Variant, rule: str
) -> Quantities:
    """Logits and features of two sounds, and how far the logits of the two are apart."""
    network = build_panns(panns_state(variant, rule), variant).speed_up("cpu")  # as the scorer has it
    found = tag(network, list(waves(about[f"{variant}_input"])))
    yield f"{variant}_{rule}_logits", found.logits, golden[f"{variant}_{rule}_logits"]
    yield f"{variant}_{rule}_2048", found.features, golden[f"{variant}_{rule}_2048"]
    key = f"{variant}_{rule}_between_inputs_maxdiff"
    yield key, _apart(found.logits, about[key]), reals(about[key])


def panns_network(path: Path) -> Quantities:
    """All of PANNs' file and of its companion."""
    golden, about = load_file(path), companion(path)
    done = {f"{variant}_input" for variant in VARIANTS}
    for variant in VARIANTS:
        key = f"{variant}_stft_shapes"
        shapes = {k: list(v.shape) for k, v in panns_state(variant, "A").items() if "extractor" in k}
        yield key, *texts(shapes, about[key])
        done.add(key)
        for rule in RULES:
            for name, ours, expected in panns_outputs(golden, about, variant, rule):
                done.add(name)
                yield name, ours, expected
    check_consumed(done, set(golden) | (set(about) - ABOUT))


def passt_outputs(golden: dict[str, Tensor], about: dict[str, Any], rule: str) -> Quantities:
    """Logits and features of two sounds, and how far the two are apart in either."""
    found = tag(build_passt(filled(PaSST, rule)), list(waves(about["input"])))
    yield f"{rule}_logits", found.logits, golden[f"{rule}_logits"]
    yield f"{rule}_embed", found.features, golden[f"{rule}_embed"]
    key = f"{rule}_between_inputs_maxdiff"
    yield key, _apart(torch.cat(found, dim=1), about[key]), reals(about[key])


def passt_network(path: Path) -> Quantities:
    """All of PaSST's file and of its companion."""
    golden, about = load_file(path), companion(path)
    done = {"input"}
    for rule in RULES:
        for name, ours, expected in passt_outputs(golden, about, rule):
            done.add(name)
            yield name, ours, expected
    check_consumed(done, set(golden) | (set(about) - ABOUT))


def vggish_network(path: Path) -> Quantities:
    """All of VGGish's file and of its companion, whose list of shapes is the only one."""
    golden, about = load_file(path), companion(path)
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in VGGish().state_dict().items()}
    yield "shapes", *texts(shapes, about["shapes"])
    yield "n_parameters", integers(sum(s.numel() for s in shapes.values())), integers(about["n_parameters"])
    done = {"shapes", "n_parameters", "input", "note"}
    for rule in RULES:
        found = embed_patches(build_vggish(filled(VGGish, rule)), list(waves(about["input"])))
        done.add(f"{rule}_embed")
        yield f"{rule}_embed", torch.stack(found), golden[f"{rule}_embed"]
    check_consumed(done, set(golden) | (set(about) - ABOUT))


def _apart(rows: Tensor, expected: float) -> Tensor:
    """The largest difference between two rows; one that is only rounding counts as 0."""
    apart = float((rows[0] - rows[1]).abs().max())
    return reals(0.0 if expected == 0 and apart < 1e-6 * float(rows.abs().max()) else apart)


# -- keys ------------------------------------------------------------------------------------------------


def panns_keys(path: Path) -> Quantities:
    """Names and shapes of the official file at 16 kHz."""
    listed = json.loads(path.read_text())
    with torch.device("meta"):
        network = Cnn14("16k")
    state = {**stft_kernels("16k"), **network.state_dict()}
    trained = sum(parameter.numel() for parameter in network.parameters())
    yield from _keys({key: value.shape for key, value in state.items()}, listed)
    yield "n_parameters_trainable", integers(trained), integers(listed["n_parameters_trainable"])
    check_consumed({"model", "n_parameters_trainable", "n_tensors", "n_elements", "shapes"}, set(listed))


def passt_keys(path: Path) -> Quantities:
    """Names and shapes of the official file."""
    listed = json.loads(path.read_text())
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in PaSST().state_dict().items()}
    yield from _keys(shapes, listed)
    total = sum(shape.numel() for shape in shapes.values())
    yield "n_parameters", integers(total), integers(listed["n_parameters"])
    check_consumed({"model", "n_parameters", "n_tensors", "n_elements", "shapes"}, set(listed))


def _keys(shapes: dict[str, torch.Size], listed: dict[str, Any]) -> Quantities:
    yield "shapes", *texts(shapes, listed["shapes"])
    yield "n_tensors", integers(len(shapes)), integers(listed["n_tensors"])
    yield "n_elements", integers(sum(s.numel() for s in shapes.values())), integers(listed["n_elements"])


# -- front ends ------------------------------------------------------------------------------------------


def frontends(path: Path) -> Quantities:
    """Everything of the taggers' in the file of front ends, and the input they share with others."""
    golden, about = load_file(path), companion(path)
    wanted = {key for key in (*golden, *about) if re.search(OURS, key)}
    done = {"passt_wave"}
    for name, ours, expected in (
        *_loader(golden, about),
        *_panns_mel(golden, about),
        *_passt_mel(golden, about),
        *_vggish_patches(golden, about),
    ):
        done.add(name.split(" ")[0])
        yield name, ours, expected
    check_consumed(done, wanted)


def loader_input() -> np.ndarray:
    """Return the loader's input: 9 s of two unequal channels at 44.1 kHz, (2, N)."""
    pair = recipes.wave(9, 44100, seed=104), 0.5 * recipes.wave(9, 44100, seed=105)
    return torch.stack(pair).numpy()


def _loader(golden: dict[str, Tensor], about: dict[str, Any]) -> Quantities:
    for rate in (16000, 32000, 48000):
        wave = benchmark_wave(loader_input(), 44100, rate, 8.0)
        name = f"audiodataset_{rate}"
        yield f"{name}_shape", integers([1, len(wave)]), integers(about[f"{name}_shape"])
        yield f"{name}_sumsq", wave.double().square().sum(), reals(about[f"{name}_sumsq"])
        name = f"audiodataset_44k1_to_{rate}"
        yield f"{name}_head", wave[:512], golden[f"{name}_head"]
        yield f"{name}_tail", wave[-256:], golden[f"{name}_tail"]


def _panns_mel(golden: dict[str, Tensor], about: dict[str, Any]) -> Quantities:
    for variant, seed in zip(VARIANTS, (100, 106)):
        front = panns.LogMel(SIZES[variant])
        mel = front(recipes.wave(8, SIZES[variant].sample_rate, seed)[None])
        name = f"panns_logmel_{variant}"
        yield f"{name}_shape", integers([*mel[None].shape]), integers(about[f"{name}_shape"])
        yield f"{name}_every4th", mel[0, ::4], golden[f"{name}_every4th"]
        yield f"{name}_mean", mel[0].mean(0), golden[f"{name}_mean"]
        yield f"panns_melW_{variant}_sum", front.melW.sum(0), golden[f"panns_melW_{variant}_sum"]


def _passt_mel(golden: dict[str, Tensor], about: dict[str, Any]) -> Quantities:
    wave = ten_seconds(waves(about["passt_wave"]))
    mel, expected = passt_mel(wave), golden["passt_mel_every4th_frame"]
    yield "passt_fmax", reals(passt.F_MAX), reals(about["passt_fmax"])
    yield "passt_mel_shape", integers([*mel.shape]), integers(about["passt_mel_shape"])
    low, high = bank_rounding(passt_power(wave)[0, :, ::4])
    ours = towards(mel[0, :, ::4], expected, low, high)
    yield "passt_mel_every4th_frame (but for the bank's rounding)", ours, expected
    yield "passt_mel_mean_over_time", mel[0].mean(1), golden["passt_mel_mean_over_time"]


def bank_rounding(power: Tensor) -> tuple[Tensor, Tensor]:
    """The least and the largest normalised log-mel (128, T) of a power spectrum (513, T) that a bank can give
    whose bins stand on mel values of float32, one unit in their last place beside the true ones.

    The golden bank's do: they come from float32 logarithms, and one maths library rounds dozens of these 512
    the other way on CPUs of another make. Where a tone stands at the foot of a triangle, that makes 1.6e-5
    of the largest value. A plain comparison is in `test_passt.py`.
    """
    size = (passt.SAMPLE_RATE, passt.N_FFT, passt.MELS, 0.0, passt.F_MAX)
    basis = kaldi_basis(*size)
    mels = 1127 * np.log1p(np.linspace(0, passt.SAMPLE_RATE / 2, passt.N_FFT // 2 + 1) / 700)
    width = 1127 * np.log1p(passt.F_MAX / 700) / (passt.MELS + 1)
    step = torch.from_numpy(np.spacing(mels.astype(np.float32)).astype(np.float64)) / width
    banks = ((basis - step).clamp(min=0) * (basis > 0), basis + step * (basis > 0))
    low, high = (((bank @ power.double() + passt.FLOOR).log() + 4.5) / 5 for bank in banks)
    return low, high


def towards(ours: Tensor, expected: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """`ours`, moved towards `expected` by no more than from its own bank's value to one of the limits."""
    return torch.minimum(torch.maximum(expected.double(), low.minimum(ours)), high.maximum(ours))


def _vggish_patches(golden: dict[str, Tensor], about: dict[str, Any]) -> Quantities:
    patches = vggish_patches(waves(about["wave16k_recipe"])[0])
    yield "vggish_examples_shape", integers([*patches.shape]), integers(about["vggish_examples_shape"])
    yield "vggish_examples_first2", patches[:2], golden["vggish_examples_first2"]
    yield "vggish_examples_mean", patches.mean((1, 2)), golden["vggish_examples_mean"]


CHECKS: dict[str, Callable[[Path], Quantities]] = {
    "scorers_panns.safetensors": panns_network,
    "scorers_panns_keys.json": panns_keys,
    "scorers_passt.safetensors": passt_network,
    "scorers_passt_keys.json": passt_keys,
    "scorers_vggish.safetensors": vggish_network,
    "scorers_frontends.safetensors": frontends,
}
