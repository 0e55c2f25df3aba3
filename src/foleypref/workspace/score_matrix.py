"""Scores as a matrix: one row per candidate, one column per "scorer/dimension", NaN where unscored.

The table of scores has one row per number; models, pairings and raters want one row per candidate. Only Arrow
and numpy touch the rows, so a million scores take a second.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from foleypref.workspace.columns import among
from foleypref.workspace.dimensions import Dimension, scorers_of
from foleypref.workspace.records import Score
from foleypref.workspace.store import Workspace


def score_table(workspace: Workspace, dimensions: Iterable[str] | None = None) -> pa.Table:
    """Return score records as columns candidate_id, scorer, version, dimension, value.

    With `dimensions` ("scorer/dimension"), only the records of their scorers.
    """
    columns = ("candidate_id", "scorer", "version", "dimension", "value")
    where = None if dimensions is None else among("scorer", scorers_of(dimensions))
    return workspace.table(Score, columns, where).select(columns)


def scored_versions(scores: pa.Table, candidate_ids: Sequence[str] | pa.Array) -> dict[str, dict[str, int]]:
    """Return {"scorer/dimension": {version: number of these candidates with a value from it}}, by name."""
    here = pc.is_in(scores["candidate_id"], value_set=pa.array(candidate_ids, pa.string()))
    valued = pc.and_(here, pc.is_valid(scores["value"]))
    counted = scores.select(["scorer", "dimension", "version", "value"]).filter(valued)
    counted = counted.group_by(["scorer", "dimension", "version"]).aggregate([("value", "count")])
    found: dict[str, dict[str, int]] = {}
    for row in counted.to_pylist():
        dimension = str(Dimension(row["scorer"], row["dimension"]))
        found.setdefault(dimension, {})[row["version"]] = row["value_count"]
    return {name: dict(sorted(found[name].items())) for name in sorted(found)}


def fullest_version(counts: Mapping[str, int]) -> str:
    """Return the version with the most values; among equals, the last by name."""
    return max(counts.items(), key=lambda item: (item[1], item[0]))[0]


def fitted_matrix(
    workspace: Workspace, candidate_ids: Sequence[str] | pa.Array, versions: Mapping[str, str]
) -> np.ndarray:
    """Return values (N, K) of the dimensions that AudioScore was fitted on, in the judges' versions it names.

    Raises ValueError if a judge has scored these candidates only in other versions.
    """
    scores = score_table(workspace, versions)
    found = scored_versions(scores, candidate_ids)
    for name, version in versions.items():
        if found.get(name) and version not in found[name]:
            raise ValueError(
                f"AudioScore was fitted on {name} of version {version}, these candidates have "
                f"{', '.join(found[name])}; score them again or fit again"
            )
    return score_matrix(scores, candidate_ids, versions)


def score_matrix(
    scores: pa.Table, candidate_ids: Sequence[str] | pa.Array, versions: Mapping[str, str]
) -> np.ndarray:
    """Return values (N, K): a row per candidate, a column per item of `versions`, {dimension: version}."""
    place = pc.index_in(scores["candidate_id"], value_set=pa.array(candidate_ids, pa.string()))
    valued = pc.and_(pc.is_valid(place), pc.is_valid(scores["value"]))
    values = np.full((len(candidate_ids), len(versions)), np.nan)
    for column, (name, version) in enumerate(versions.items()):
        dimension = Dimension.parse(name)
        mask = pc.and_(valued, pc.equal(scores["scorer"], dimension.scorer))
        mask = pc.and_(mask, pc.equal(scores["dimension"], dimension.name))
        mask = pc.and_(mask, pc.equal(scores["version"], version))
        values[place.filter(mask).to_numpy(), column] = scores["value"].filter(mask).to_numpy()
    return values
