"""PANNs Cnn14: how sure an AudioSet tagger is of its classes, and its logits and features (IS, KL, FD).

The benchmarks' tagger at 16 kHz (`panns`), or at 32 kHz (`panns-32k`). V2A-DPO's per-sample inception score
has no formula in the paper: `inception` is KL(p_i ‖ q) in nats to a frozen marginal q, the very term that one
clip adds to log IS; `confidence`, Σ p log p, needs no q. The weights are CC-BY-4.0, as a mirror states.

`freeze_marginal` makes q of the logits of many true clips, once: a score must not depend on who else is
scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self

import torch
from jaxtyping import Float
from pydantic import PrivateAttr
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from foleypref.media.files import write_atomic
from foleypref.networks.panns import NUM_CLASSES, SIZES, SPEECH, Cnn14, Variant
from foleypref.published.hashes import weights_version
from foleypref.published.places import weights_folder
from foleypref.published.taggers import PANNS, benchmark_wave, load_panns, tag, tagger_file
from foleypref.scoring.scorers import (
    Judgement,
    ScoreItem,
    Scorer,
    Unscored,
    Value,
    is_silent,
    loaded,
    values_of,
)

NO_MARGINAL = "no marginal to compare with: no clip outside the test split has sound"


class Panns(Scorer):
    """`weights` and `marginal` are files; "" is the published one, and the marginal in its folder, if any.

    Unscored: silence, and sound under 0.31 s, which has no embedding either. Silence has one, as in the
    benchmarks, so that a silent system does not escape their distances.
    """

    variant: Variant = "16k"
    weights: str = ""
    weights_folder: str = ""
    marginal: str = ""

    needs: ClassVar[frozenset[str]] = frozenset({"audio"})
    asides: ClassVar[tuple[str, ...]] = ("speech",)  # neither way is up; True keeps the table complete
    higher_is_better: ClassVar[dict[str, bool]] = {"inception": True, "confidence": True, "speech": True}
    embeddings: ClassVar[tuple[str, ...]] = ("logits", "features")  # (B, 527), (B, 2048)

    _network: Cnn14 | None = PrivateAttr(default=None)
    _log_q: Tensor | None = PrivateAttr(default=None)

    @property
    def version(self) -> str:
        """Hash of the weights, of the marginal if there is one, and the method's."""
        weights = tagger_file(PANNS[self.variant], self.weights_folder, self.weights)
        return weights_version(weights, *([self._marginal_path] if self._marginal_path else []))

    def load(self, device: str | torch.device = "cpu") -> Self:
        """Read the weights (0.3 GB) and the marginal."""
        self._network = load_panns(self.variant, self.weights_folder or None, self.weights).speed_up(device)
        path = self._marginal_path
        self._log_q = read_marginal(path, self.variant).log() if path else None
        return self

    def judge(self, items: Sequence[ScoreItem]) -> Judgement:
        """Tag all sounds; those of equal length go through the network together."""
        rate = SIZES[self.variant].sample_rate
        waves = [benchmark_wave(item.sound, item.sample_rate, rate, item.seconds) for item in items]
        tags = tag(loaded(self._network), waves)
        numbers = self._numbers(tags.logits)
        reasons = [self._unscored(wave) for wave in waves]
        no_marginal: list[Value] = [Unscored(reason or NO_MARGINAL) for reason in reasons]
        values = {
            name: values_of(reasons, numbers[name].tolist()) if name in numbers else no_marginal
            for name in self.dimensions
        }
        return Judgement(values, tags._asdict())

    def _numbers(self, logits: Tensor) -> dict[str, Tensor]:
        """Return (B,) float64 by dimension, of logits (B, 527); no "inception" without a marginal."""
        log_p = logits.double().log_softmax(1)
        p = log_p.exp()
        numbers = {"confidence": (p * log_p).sum(1), "speech": logits[:, SPEECH].double().sigmoid()}
        if self._log_q is not None:
            numbers["inception"] = (p * (log_p - self._log_q)).sum(1)
        return numbers

    @property
    def _marginal_path(self) -> Path | None:
        if self.marginal:
            return Path(self.marginal).expanduser()
        usual = marginal_path(self.variant, self.weights_folder)
        return usual if usual.is_file() else None

    def _unscored(self, wave: Tensor) -> str:
        """Return why a sound cannot be judged, or ""."""
        if is_silent(wave.numpy()):
            return "silent"
        shortest, rate = loaded(self._network).min_samples, SIZES[self.variant].sample_rate
        return f"shorter than {shortest / rate:g} s" if len(wave) < shortest else ""


# -- the marginal ----------------------------------------------------------------------------------------


def marginal_path(variant: Variant = "16k", folder: str = "") -> Path:
    """Return the default path of the marginal, in the weights folder."""
    return weights_folder(folder or None) / f"Cnn14_{variant}_marginal.safetensors"


def freeze_marginal(path: Path | str, logits: Float[Tensor, "B K"], variant: Variant = "16k") -> None:
    """Write q, the mean of softmax(logits) over many clips of true sound, to `path`.

    Raises ValueError for logits of another number of classes, for none, and where they are not finite.
    """
    if logits.shape[1] != NUM_CLASSES or len(logits) == 0 or not logits.isfinite().all():
        raise ValueError(
            f"a marginal is made of finite logits (clips, {NUM_CLASSES}), found {tuple(logits.shape)} with "
            f"{int((~logits.isfinite()).any(1).sum())} rows that are not finite; leave those out"
        )
    q = logits.double().softmax(1).mean(0)
    about = {"variant": variant, "clips": str(len(logits))}
    write_atomic(Path(path).expanduser(), save({"marginal": q.contiguous()}, about))


def read_marginal(path: Path, variant: Variant = "16k") -> Float[Tensor, " K"]:
    """Read q (527,), float64, from a file of `freeze_marginal`. Raises ValueError for anything else."""
    try:
        with safe_open(path, "pt") as file:
            q, about = file.get_tensor("marginal").double(), file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} is no marginal of PANNs ({error}); make one with freeze_marginal"
        ) from error
    if about.get("variant") != variant:
        raise ValueError(
            f"{path} is the marginal of PANNs {about.get('variant', 'of unknown rate')}, here is {variant}; "
            "make one of this variant's logits"
        )
    if q.shape != (NUM_CLASSES,) or not (q > 0).all() or abs(float(q.sum()) - 1) > 1e-6:
        raise ValueError(f"{path} holds no distribution over {NUM_CLASSES} classes; make it again")
    return q
