"""What a finished run was made with: its model, its data, whose word decided, how it was judged afterwards.

All of it is read from the run's folder and the workspace around it. What cannot be known any more (pairs that
were made again, an AudioScore that is gone) is said to be unknown, and then no licence is promised.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from foleypref.evaluation.result import Evaluation, SystemRow, load_evaluation
from foleypref.models.backbones import Model
from foleypref.models.saved import CONFIG, PLACES, is_place, read_config
from foleypref.models.tools import loaded_fingerprint, with_weights
from foleypref.published.places import MissingWeights
from foleypref.published.terms import NOT_KNOWN, WeightUse, model_weights, scorer_weights
from foleypref.scoring.scorers.audioscore import AudioScore, Fitted
from foleypref.settings.errors import one_line_errors
from foleypref.settings.parts import names
from foleypref.training.checkpoints import tuned_weights
from foleypref.training.settings import TrainSettings, needs_of
from foleypref.workspace.dimensions import scorers_of
from foleypref.workspace.paths import RunFiles, WorkspacePaths
from foleypref.workspace.records import AUTO, ROUND
from foleypref.workspace.store import Workspace
from foleypref.workspace.walk import say

DECIDED_HERE = ("human", "simulated")
"""Sources of pairs and labels that no network decided."""

BASE = "what was tuned"
DECIDING = "deciding what is better"


@dataclass(frozen=True)
class Data:
    """What a run learned from, counted; `pairs` and `labels` by source."""

    num_clips: int
    num_candidates: int
    pairs: dict[str, int]
    labels: dict[str, int]
    num_held_out_clips: int


@dataclass(frozen=True)
class Measured:
    """A row of an evaluation that this run's weights are in, and which of its training seeds they are."""

    evaluation: Evaluation
    row: SystemRow
    seed: int


@dataclass(frozen=True)
class Provenance:
    """A finished run and its origins; `data` is None if the workspace no longer has what it learned from."""

    folder: Path
    settings: TrainSettings
    result: dict[str, Any]
    data: Data | None
    used: list[WeightUse]
    measured: list[Measured] = field(default_factory=list)

    @property
    def model(self) -> dict[str, Any]:
        """The model's settings without what names files of this machine."""
        settings = self.settings.model.settings()
        return {key: value for key, value in settings.items() if key not in PLACES and not is_place(value)}

    @property
    def tunes_published(self) -> bool:
        """Whether the base is published, and not a file of the user."""
        return not _own_weights(self.settings.model)


def read_run(folder: Path) -> Provenance:
    """Read a finished run of a workspace. Raises ValueError for a folder that holds none."""
    run, workspace = _read_origins(folder), _workspace_of(folder)
    return run if workspace is None else replace(run, measured=_measured(workspace, folder, run.settings))


def base_weights(model: Model) -> list[WeightUse]:
    """Return the weights behind a model's settings, and those behind the tuned ones it was tuned from."""
    used = model_weights(model.settings(), BASE)
    for own in _own_weights(model):
        folder = own if own.is_dir() and own != RunFiles(own.parent).adapter else own.parent
        if RunFiles(folder).result.is_file():
            used += _read_origins(folder).used
        elif (folder / CONFIG).is_file():
            used += read_config(folder).weights_used
        else:
            used.append(WeightUse(own.name, BASE, f"{NOT_KNOWN}: a file of the person who tuned it"))
    return used


def audioscore_weights(path: Path, used_for: str) -> list[WeightUse]:
    """The weights of the judges that a fitted AudioScore reads."""
    return scorer_weights(scorers_of(Fitted.read(path).dimensions), used_for)


def _read_origins(folder: Path) -> Provenance:
    """Read settings.json and result.json of a finished run, and what lies behind it, but no evaluation."""
    files = RunFiles(folder)
    for path, problem in ((files.settings, "is no training run"), (files.result, "has not ended")):
        if not path.is_file():
            raise ValueError(
                f"{folder} {problem}: {path.name} is missing; give the folder of a finished run, "
                "WORKSPACE/runs/NAME"
            )
    with one_line_errors(str(files.settings)):
        settings = TrainSettings.model_validate_json(files.settings.read_bytes())
    result = json.loads(files.result.read_text(encoding="utf-8"))
    workspace = _workspace_of(folder)
    data = None if workspace is None else _data(workspace, settings, result)
    used = [*base_weights(settings.model), *_judges(workspace, settings, result, data)]
    return Provenance(folder, settings, result, data, list(dict.fromkeys(used)))


def _own_weights(model: Model) -> list[Path]:
    places = (getattr(model, key, "") for key in ("weights", "adapter"))
    return [Path(place).expanduser() for place in places if place]


def _workspace_of(folder: Path) -> Workspace | None:
    root = folder.resolve().parent.parent
    return Workspace(root, create=False) if WorkspacePaths(root).marker.is_file() else None


def _data(workspace: Workspace, settings: TrainSettings, result: dict[str, Any]) -> Data | None:
    from foleypref.training.inputs import split_data  # accelerate: a second to import

    try:
        learned, held_out = split_data(workspace, settings)
    except ValueError as error:
        say(f"hub: what the run learned from is not told: {error}")
        return None
    identity = learned.identity()
    if {key: result["identity"].get(key) for key in identity} != identity:
        say("hub: what the run learned from is not told: the workspace's pairs, clips or labels have changed")
        return None
    return Data(
        num_clips=len(learned.clip_ids),
        num_candidates=len(learned.candidate_ids),
        pairs=dict(sorted(Counter(pair.source for pair in learned.pairs).items())),
        labels=dict(sorted(Counter(label.source for label in learned.labels).items())),
        num_held_out_clips=len(held_out.clip_ids),
    )


def _judges(
    workspace: Workspace | None, settings: TrainSettings, result: dict[str, Any], data: Data | None
) -> list[WeightUse]:
    """The weights behind the reward, the labels and the pairs of a run."""
    needs = needs_of(settings)
    if not needs & {"reward", "labels", "pairs"}:
        return []
    if workspace is None or (data is None and needs & {"labels", "pairs"}):
        return [WeightUse("judges", DECIDING, f"{NOT_KNOWN}: the run's data is not there")]
    used: list[WeightUse] = []
    if "reward" in needs:
        version = str(result["identity"].get("reward", ""))
        used += _fit_weights(workspace, settings.audioscore, version, "the reward")
        if settings.stop.limits():  # what was watched may have said when to stop
            used += scorer_weights(scorers_of(settings.watch), "watched to end the run")
    if data is not None and AUTO in data.labels:
        used += _fit_weights(workspace, settings.audioscore, "", "the labels")
    for source in () if data is None else data.pairs:
        if source == AUTO or source.startswith(ROUND):
            used += _fit_weights(workspace, *_fit_behind(workspace, source), "the pairs")
        elif source not in (*DECIDED_HERE, *names("negatives")):
            used.append(WeightUse(f"pairs called {source}", DECIDING, f"{NOT_KNOWN}: imported"))
    return used


def _fit_weights(workspace: Workspace, name: str, version: str, decided: str) -> list[WeightUse]:
    """The judges of a fitted AudioScore, if it is still the one that decided; `version` "" is any."""
    path = workspace.audioscore(name).weights if name else None
    if path is None or not path.is_file():
        return [WeightUse("AudioScore", DECIDING, f"{NOT_KNOWN}: the fit behind {decided} is gone")]
    if version and AudioScore(weights=str(path)).load().version != version:
        return [WeightUse("AudioScore", DECIDING, f"{NOT_KNOWN}: the fit behind {decided} was made again")]
    return audioscore_weights(path, f"judge behind {decided}")


def _fit_behind(workspace: Workspace, source: str) -> tuple[str, str]:
    """Name and version of the AudioScore that decided pairs of a source, "" where nothing says so."""
    try:
        report = json.loads(workspace.pairs_report(source).read_text(encoding="utf-8"))
        return str(report["settings"]["audioscore"]), str(report["audioscore"])
    except (OSError, ValueError, KeyError):
        return "", ""


def _measured(workspace: Workspace, folder: Path, settings: TrainSettings) -> list[Measured]:
    """Rows of the workspace's evaluations with these very weights."""
    known = sorted(path.stem for path in workspace.evaluations.glob("*.json"))
    if not known:
        return []
    tuned = with_weights(settings.model, tuned_weights(folder))
    try:
        fingerprint = loaded_fingerprint(tuned)
    except MissingWeights as error:
        say(f"hub: no metrics in the card: {error}")
        return []
    return [
        Measured(evaluation, row, row.weights.index(fingerprint))
        for evaluation in (load_evaluation(workspace, name) for name in known)
        for row in evaluation.rows
        if fingerprint in row.weights
    ]
