"""Systems under comparison: which candidates each one made, and their scores and embeddings as `Rows`.

A system is a label with one weights fingerprint per training seed. All compared candidates were sampled alike
(solver, steps, guidance scale, noise seeds), so two systems differ only in their weights. A clip that any
system lacks is left out for all and named, never dropped silently.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from foleypref.evaluation.metrics import Rows
from foleypref.scoring.bootstrap import Replica
from foleypref.workspace.columns import among
from foleypref.workspace.dimensions import Dimension, scorer_and_version, scorers_of
from foleypref.workspace.records import GROUND_TRUTH, Candidate, Feature
from foleypref.workspace.score_matrix import score_matrix, score_table
from foleypref.workspace.selection import clips_of_split
from foleypref.workspace.store import Workspace


@dataclass(frozen=True)
class Sampling:
    """How the compared candidates were made."""

    split: str
    solver: str
    num_steps: int
    seeds: tuple[int, ...]  # noise seeds
    guidance_scale: float

    def made(self, c: Candidate) -> bool:
        """Return True if the candidate was sampled like this."""
        same = (c.solver, c.num_steps) == (self.solver, self.num_steps) and c.seed in self.seeds
        return same and abs(c.guidance_scale - self.guidance_scale) < 1e-6


@dataclass(frozen=True)
class Selection:
    """The candidates of all systems on the compared clips. `missing`: clip_id -> systems without one."""

    clip_ids: tuple[str, ...]  # by name where they have one, then by id: an order that metrics may rest on
    candidates: dict[str, dict[Replica, dict[str, str]]]  # system -> replica -> clip_id -> candidate_id
    truth: dict[str, str]  # clip_id -> candidate_id
    missing: dict[str, tuple[str, ...]]

    def all_candidates(self) -> set[str]:
        """Return the ids of all candidates that are compared."""
        by_replica = (r.values() for replicas in self.candidates.values() for r in replicas.values())
        return {*self.truth.values(), *(i for ids in by_replica for i in ids)}


def select(
    workspace: Workspace, systems: Mapping[str, tuple[str, ...]], sampling: Sampling, *, common: bool = True
) -> Selection:
    """Return the systems' candidates on the clips that all systems have or, without `common`, on all clips.

    Raises ValueError for a system without any, or without a common clip.
    """
    clips = clips_of_split(workspace, sampling.split)
    clip_ids = [c.clip_id for c in sorted(clips, key=lambda c: (str(c.meta.get("name", "")), c.clip_id))]
    sampled: dict[Replica, dict[str, str]] = {}
    truth: dict[str, str] = {}
    for c in workspace.read(Candidate, among("clip_id", clip_ids)):
        if c.model == GROUND_TRUTH:
            truth[c.clip_id] = c.candidate_id
        elif sampling.made(c):
            sampled.setdefault((c.weights, c.seed), {})[c.clip_id] = c.candidate_id
    candidates = {
        label: {(w, seed): sampled.get((w, seed), {}) for w in weights for seed in sampling.seeds}
        for label, weights in systems.items()
    }
    _check_sampled(candidates, sampled, sampling)
    missing: dict[str, tuple[str, ...]] = {}
    for clip_id in clip_ids:
        lacks = {label: any(clip_id not in r for r in each.values()) for label, each in candidates.items()}
        if any(lacks.values()):
            missing[clip_id] = tuple(label for label in lacks if lacks[label])
    compared = tuple(clip_id for clip_id in clip_ids if not common or clip_id not in missing)
    if not compared:
        raise ValueError(
            f"no clip of split {sampling.split!r} has a candidate of every system; run sample again"
        )
    return Selection(compared, candidates, truth, missing)


def _check_sampled(
    candidates: dict[str, dict[Replica, dict[str, str]]],
    sampled: dict[Replica, dict[str, str]],
    sampling: Sampling,
) -> None:
    for label, replicas in candidates.items():
        for (weights, seed), ids in replicas.items():
            if not ids:
                there = ", ".join(sorted({w for w, _ in sampled})) or "none"
                raise ValueError(
                    f"system {label!r} has no candidates of weights {weights} and seed {seed} on split "
                    f"{sampling.split!r} with {sampling.solver}, {sampling.num_steps} steps, guidance "
                    f"{sampling.guidance_scale:g} (weights that have: {there}); run sample like this"
                )


class Judgements:
    """Scores and embeddings of chosen candidates, from one version of each scorer."""

    def __init__(
        self,
        workspace: Workspace,
        keys: Iterable[str],
        candidate_ids: set[str],
        versions: Mapping[str, str] | None = None,
    ) -> None:
        """`keys`: "scorer/dimension" or "scorer/embedding". Several versions need `versions` to choose."""
        self._workspace, self._keys = workspace, tuple(dict.fromkeys(keys))
        scorers = scorers_of(self._keys)
        scores = score_table(workspace)
        ids, names = pa.array(sorted(candidate_ids)), pa.array(sorted(scorers))
        here = pc.and_(pc.is_in(scores["candidate_id"], ids), pc.is_in(scores["scorer"], names))
        self._scores = scores.filter(here)
        embedded = workspace.read(Feature, among("item_id", candidate_ids))
        features = [(f, by) for f in embedded if (by := scorer_and_version(f.key))[0] in scorers]
        seen = self._scores.group_by(["scorer", "version", "dimension"]).aggregate([]).to_pylist()
        judged_by = {(row["scorer"], row["version"]) for row in seen}
        self.versions = _one_version_each(judged_by | {by for _, by in features}, versions or {})
        self._places: dict[str, dict[str, tuple[str, int]]] = {}
        for f, (scorer, version) in features:
            if self.versions[scorer] == version:
                self._places.setdefault(scorer, {})[f.item_id] = (f.shard, f.row)
        stored = {by: workspace.shards.keys(next(iter(at.values()))[0]) for by, at in self._places.items()}
        dimensions = {key: Dimension.parse(key) for key in self._keys}
        self._embeddings = {key for key, d in dimensions.items() if d.name in stored.get(d.scorer, ())}
        have = self._embeddings | {str(Dimension(row["scorer"], row["dimension"])) for row in seen}
        self.absent = tuple(key for key in self._keys if key not in have)
        """Keys whose scorer has not judged any of the candidates."""
        if wrong := [key for key in self.absent if dimensions[key].scorer in self.versions]:
            there = ", ".join(sorted(have))
            raise ValueError(f"no score or embedding is called {', '.join(wrong)}; there are: {there}")

    def rows(self, clip_ids: tuple[str, ...], ids: Mapping[str, str], truth: Mapping[str, str]) -> Rows:
        """Return the rows of candidates by clip_id; a clip that `ids` has no candidate for is unscored."""
        order = [ids.get(clip_id, "") for clip_id in clip_ids]
        true = [truth.get(clip_id, "") for clip_id in clip_ids]
        return Rows(
            clip_ids,
            {key: self.scores(key, order) for key in self._keys if key not in self._embeddings},
            {key: self.vectors(key, order) for key in self._embeddings},
            {key: self.vectors(key, true) for key in self._embeddings},
        )

    def scores(self, key: str, candidate_ids: Sequence[str]) -> np.ndarray:
        """Return a dimension of the candidates, (n,) float64, NaN where unscored."""
        version = self.versions.get(Dimension.parse(key).scorer, "")
        # The same candidate may stand in several places (""), and score_matrix wants each once.
        unique = list(dict.fromkeys(candidate_ids))
        values = dict(zip(unique, score_matrix(self._scores, unique, {key: version})[:, 0]))
        return np.array([values[candidate_id] for candidate_id in candidate_ids], np.float64)

    def vectors(self, key: str, candidate_ids: Sequence[str]) -> np.ndarray:
        """Return an embedding of the candidates, (n, D) float32, NaN rows where there is none."""
        dimension = Dimension.parse(key)
        places, name = self._places[dimension.scorer], dimension.name
        have = [i for i, candidate_id in enumerate(candidate_ids) if candidate_id in places]
        width = self._workspace.shards.rows([next(iter(places.values()))], name).shape[1:].numel()
        out = np.full((len(candidate_ids), width), np.nan, np.float32)
        if have:
            rows = self._workspace.shards.rows([places[candidate_ids[i]] for i in have], name)
            out[have] = rows.float().reshape(len(have), width).numpy()
        return out


def _one_version_each(judged_by: set[tuple[str, str]], chosen: Mapping[str, str]) -> dict[str, str]:
    versions: dict[str, set[str]] = {}
    for scorer, version in judged_by:
        versions.setdefault(scorer, set()).add(version)
    result = {}
    for scorer, present in sorted(versions.items()):
        if scorer in chosen and chosen[scorer] not in present:
            raise ValueError(
                f"{scorer} was not run in version {chosen[scorer]!r}; found {', '.join(sorted(present))}"
            )
        if scorer not in chosen and len(present) > 1:
            raise ValueError(
                f"these candidates were scored by {scorer} in several versions "
                f"({', '.join(sorted(present))}); say which to read in `versions`"
            )
        result[scorer] = chosen.get(scorer) or next(iter(present))
    return result
