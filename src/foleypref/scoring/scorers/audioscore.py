"""AudioScore: judge scores in, probabilities of bad, medium and good out (V2A-DPO, arXiv 2603.11089, 2.1).

The paper feeds a vector of five scores and mentions neither scaling nor missing scores. Here a value is
standardised with stored statistics, a missing one becomes the stored mean, and a validity bit tells the two
apart: PESQ outside speech is missing, not bad. Oracles are refused, because no reward may read the truth.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Bool, Float64
from pydantic import PrivateAttr
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from foleypref.media.files import write_atomic
from foleypref.media.streams import FrameStream
from foleypref.networks.audioscore import AudioScoreNetwork
from foleypref.published.places import cache_folder
from foleypref.scoring.scorers import (
    Judgement,
    ScoreItem,
    Scorer,
    build_scorer,
    is_oracle,
    streams_of,
    values_of,
)
from foleypref.workspace.dimensions import Dimension, scorers_of
from foleypref.workspace.score_matrix import fitted_matrix
from foleypref.workspace.store import Workspace

FORMAT = 1
NAME = "audioscore"
MARGINAL = "marginal."  # begins the keys of the judges' marginals


def reads_truth(scorer: str) -> bool:
    """Return whether a scorer is an oracle, by name or needs. Raises ValueError if it cannot be built."""
    return scorer.startswith("oracle") or is_oracle(build_scorer(scorer))


def refuse_oracles(dimensions: Iterable[str], *, unknown_ok: bool = False) -> None:
    """Raise ValueError if a "scorer/dimension" is an oracle's, AudioScore's own or unknown."""
    for dimension in dimensions:
        scorer = Dimension.parse(dimension).scorer
        if scorer.partition("-")[0] == NAME:
            raise ValueError(f"{dimension} is AudioScore's own output; give it the dimensions of judges")
        try:
            oracle = reads_truth(scorer)
        except ValueError:
            if not unknown_ok:
                raise
            oracle = False
        if oracle:
            raise ValueError(f"{dimension} reads the truth, and no reward may; leave it out")


@dataclass(frozen=True)
class Fitted:
    """The result of a fit: K dimensions with their scorers' versions, frozen statistics, the network."""

    dimensions: tuple[str, ...]  # "scorer/dimension"
    versions: tuple[str, ...]
    mean: Float64[Tensor, " K"]  # over the valid values of the fit set
    std: Float64[Tensor, " K"]  # 1 for a dimension that never varied
    network: AudioScoreNetwork
    notes: Mapping[str, Any] = field(default_factory=dict)  # label agreement, fit settings
    marginals: Mapping[str, bytes] = field(default_factory=dict)  # scorer -> the file of its frozen marginal

    def inputs(self, values: np.ndarray) -> Float64[Tensor, "N {2*len(self.dimensions)}"]:
        """Return (N, 2K) from (N, K): standardised values, 0 where they are NaN, and validity bits."""
        x = torch.as_tensor(values, dtype=torch.float64)
        if x.ndim != 2 or x.shape[1] != len(self.dimensions):
            names = ", ".join(self.dimensions)
            raise ValueError(f"values are (N, {len(self.dimensions)}) for {names}; found {tuple(x.shape)}")
        valid = torch.isfinite(x)
        return torch.cat([torch.where(valid, (x - self.mean) / self.std, 0.0), valid.double()], 1)

    @torch.no_grad()
    def probabilities(self, values: np.ndarray) -> Float64[np.ndarray, "N 3"]:
        """Return (N, 3) over bad, medium, good, from values (N, K) with NaN for missing."""
        return self.network(self.inputs(values)).softmax(1).numpy()

    def serialise(self) -> bytes:
        """Return the safetensors file: the same bytes for the same content."""
        tensors = {"mean": self.mean, "std": self.std, **self.network.state_dict()}
        for name, content in self.marginals.items():
            tensors[MARGINAL + name] = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        metadata = {
            "format": FORMAT,
            "dimensions": self.dimensions,
            "versions": self.versions,
            "hidden": self.network.hidden.out_features,
            "notes": self.notes,
        }
        # One metadata key: the format does not fix the order of several.
        return save(
            {k: v.contiguous() for k, v in tensors.items()}, {NAME: json.dumps(metadata, sort_keys=True)}
        )

    @staticmethod
    def read(path: Path) -> Fitted:
        """Read a file that `serialise` made. Raises ValueError for anything else."""
        try:
            with safe_open(path, "pt") as file:
                metadata = json.loads((file.metadata() or {})[NAME])
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (SafetensorError, KeyError, OSError) as error:
            raise ValueError(
                f"{path} holds no AudioScore ({error}); make one with `foleypref fit`"
            ) from error
        if metadata["format"] != FORMAT:
            raise ValueError(f"{path} is of format {metadata['format']}, here is {FORMAT}; fit again")
        network = AudioScoreNetwork(len(metadata["dimensions"]), metadata["hidden"]).eval()
        mean, std = tensors.pop("mean"), tensors.pop("std")
        marginals = {
            key.removeprefix(MARGINAL): tensors.pop(key).numpy().tobytes()
            for key in sorted(tensors)
            if key.startswith(MARGINAL)
        }
        network.load_state_dict(tensors)
        dimensions, versions = tuple(metadata["dimensions"]), tuple(metadata["versions"])
        notes = metadata["notes"]
        return Fitted(dimensions, versions, mean, std, network=network, notes=notes, marginals=marginals)


class AudioScore(Scorer):
    """`weights` is the file that `fit` wrote. As a scorer, it runs the judges that the file names."""

    weights: str = ""

    # Neither way is up for p_medium; True keeps the table complete.
    higher_is_better: ClassVar[dict[str, bool]] = {"p_bad": False, "p_medium": True, "p_good": True}

    _fitted: Fitted | None = PrivateAttr(default=None)
    _judges: dict[str, Scorer] | None = PrivateAttr(default=None)
    _device: str | torch.device = PrivateAttr(default="cpu")

    @classmethod
    def of(cls, fitted: Fitted) -> Self:
        """Return an AudioScore without a file. Raises ValueError for oracle dimensions."""
        refuse_oracles(fitted.dimensions, unknown_ok=True)
        score = cls()
        score._fitted = fitted
        return score

    def save(self, path: str | Path) -> Self:
        """Write the file, atomically; returns the AudioScore that reads it."""
        write_atomic(Path(path), self.fitted.serialise())
        return type(self)(weights=str(path)).load(self._device)

    def load(self, device: str | torch.device = "cpu") -> Self:
        """Read the file; the judges load at the first `judge`, because `probabilities` does not need them."""
        if not self.weights and self._fitted is None:
            raise ValueError("audioscore: no weights given; fit one with `foleypref fit` and name its file")
        if self.weights:
            fitted = Fitted.read(Path(self.weights))
            refuse_oracles(fitted.dimensions, unknown_ok=True)
            self._fitted = fitted
        self._judges, self._device = None, device
        return self

    @property
    def fitted(self) -> Fitted:
        """Statistics, dimensions and network of the fit."""
        if self._fitted is None:
            self.load(self._device)
        assert self._fitted is not None
        return self._fitted

    @property
    def version(self) -> str:
        """The first characters of the file's hash."""
        return hashlib.sha256(self.fitted.serialise()).hexdigest()[:16]

    @property
    def needs(self) -> frozenset[str]:
        """All inputs that its judges need; none while no file is named."""
        return frozenset().union(*(judge.needs for judge in self._built_judges().values()))

    @property
    def streams(self) -> tuple[FrameStream, ...]:
        """All frames that its judges look at."""
        return streams_of(self._built_judges().values())

    def probabilities(self, values: np.ndarray) -> Float64[np.ndarray, "N 3"]:
        """Return (N, 3) over bad, medium, good, from (N, K) by `fitted.dimensions`, NaN for missing."""
        return self.fitted.probabilities(values)

    def stored_probabilities(
        self, workspace: Workspace, candidate_ids: Sequence[str] | pa.Array
    ) -> tuple[Float64[np.ndarray, "N 3"], Bool[np.ndarray, " N"]]:
        """Return probabilities (N, 3) from stored scores, and whether any judge scored the candidate (N,).

        Raises ValueError if the scores are of other versions than those it was fitted on.
        """
        versions = dict(zip(self.fitted.dimensions, self.fitted.versions))
        values = fitted_matrix(workspace, candidate_ids, versions)
        return self.probabilities(values), np.isfinite(values).any(1)

    def judge(self, items: Sequence[ScoreItem]) -> Judgement:
        """Run the judges and combine their values; unscored if no judge could score an item."""
        judgements = {name: judge.judge(items) for name, judge in self._loaded_judges().items()}
        read = [Dimension.parse(text) for text in self.fitted.dimensions]
        values = np.stack([judgements[d.scorer].column(d.name) for d in read], 1)
        reasons = np.where(np.isfinite(values).any(1), "", "no judge scored it").tolist()
        columns = zip(self.dimensions, self.probabilities(values).T)
        return Judgement({name: values_of(reasons, column.tolist()) for name, column in columns}, {})

    def _built_judges(self) -> dict[str, Scorer]:
        if self._fitted is None and not self.weights:
            return {}
        built = {name: build_scorer(name) for name in scorers_of(self.fitted.dimensions)}
        for name, content in self.fitted.marginals.items():
            place = cache_folder() / "marginals" / f"{hashlib.sha256(content).hexdigest()[:16]}.safetensors"
            if not place.exists():
                write_atomic(place, content)
            built[name] = built[name].with_settings(marginal=str(place))
        return built

    def _loaded_judges(self) -> dict[str, Scorer]:
        if self._judges is None:
            refuse_oracles(self.fitted.dimensions)
            judges = {name: judge.load(self._device) for name, judge in self._built_judges().items()}
            for dimension, version in zip(self.fitted.dimensions, self.fitted.versions):
                current = judges[Dimension.parse(dimension).scorer].version
                if current != version:
                    raise ValueError(
                        f"AudioScore was fitted on {dimension} {version}, here it is {current}; fit again"
                    )
            self._judges = judges
        return self._judges
