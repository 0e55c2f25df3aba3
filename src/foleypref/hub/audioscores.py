"""A fitted AudioScore as a hub folder, back, and into another workspace."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from foleypref.hub.provenance import audioscore_weights
from foleypref.hub.remote import folder_of
from foleypref.media.files import write_atomic
from foleypref.models.saved import CARD, CONFIG, WEIGHTS, HubConfig, checked_weights, fill_folder, read_config
from foleypref.scoring.fit_report import FitReport, audioscore_card
from foleypref.scoring.scorers.audioscore import AudioScore, Fitted
from foleypref.workspace.dimensions import scorers_of
from foleypref.workspace.store import Workspace

DEFAULT = "audioscore"


def save_audioscore(fit: str | Path, out_dir: str | Path) -> Path:
    """Write WORKSPACE/audioscore/NAME.safetensors to a folder that `load_audioscore` reads; returns it.

    The file is copied as it is, so its version stays. In a folder WORKSPACE/audioscore it takes the fit
    called audioscore. Raises ValueError for a fit without its report, or one that has changed since.
    """
    path = Path(fit).expanduser()
    path = path / f"{DEFAULT}.safetensors" if path.is_dir() else path
    version, again = AudioScore(weights=str(path)).load().version, "run `foleypref fit` again"
    try:
        report = FitReport.model_validate_json(path.with_suffix(".json").read_bytes())
    except (OSError, ValueError):
        raise ValueError(f"{path.with_suffix('.json')} is no report of a fit; {again}") from None
    if report.version != version:
        raise ValueError(f"{path} is of version {version}, its report of {report.version}; {again}")
    contents = {"weights_file": WEIGHTS, "version": version, "dimensions": report.dimensions}
    config = HubConfig.made_with(audioscore_weights(path, "judge"), kind="audioscore", **contents)

    def write(partial: Path) -> None:
        shutil.copyfile(path, partial / WEIGHTS)
        write_atomic(partial / CARD, audioscore_card(report).encode())
        write_atomic(partial / CONFIG, config.text())

    return fill_folder(Path(out_dir).expanduser(), write)


def load_audioscore(
    folder_or_repo_id: str | Path,
    revision: str | None = None,
    device: str | torch.device = "cpu",
    *,
    own: Sequence[str] = (),
    token: str | None = None,
) -> AudioScore:
    """The AudioScore of a hub folder or repository; its judges load when it first scores.

    `own` names judges outside the package that may be imported. Raises ValueError for anything that
    `save_audioscore` did not write.
    """
    return AudioScore(weights=str(_checked(folder_of(folder_or_repo_id, revision, token), own))).load(device)


def add_to_workspace(folder: Path, workspace: Workspace, name: str = DEFAULT) -> Path:
    """Put the AudioScore of a hub folder where `pair` and `train` of a workspace find it as `name`.

    Raises ValueError if another fit of that name is there.
    """
    place = workspace.audioscore(name).weights
    source = _checked(folder, ())
    content = source.read_bytes()
    if place.exists() and place.read_bytes() != content:
        raise ValueError(f"{place} is another fit; choose another --name")
    write_atomic(place, content)
    return place


def _checked(folder: Path, own: Sequence[str]) -> Path:
    """Return the file of weights, if it is what config.json says and names no code from elsewhere."""
    config = read_config(folder)
    if config.kind != "audioscore":
        raise ValueError(f"{folder} holds a model, no AudioScore; `--model {folder}` takes it")
    path = checked_weights(folder, config.weights_file)
    try:
        fitted = Fitted.read(path)  # builds no judge yet
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f"{path} holds no whole AudioScore: {error}") from error
    if foreign := [name for name in scorers_of(fitted.dimensions) if ":" in name and name not in own]:
        raise ValueError(
            f"{path} wants the judge {foreign[0]!r}, which is code outside foleypref; if you trust it, pass "
            f"own=({foreign[0]!r},)"
        )
    if (version := AudioScore.of(fitted).version) != config.version:
        raise ValueError(f"{path} is of version {version}, its {CONFIG} of {config.version}; get both again")
    return path
