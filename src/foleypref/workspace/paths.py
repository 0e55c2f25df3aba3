"""Where everything lies inside a workspace: each path is spelled here once and asked for everywhere else.

ROOT/workspace.json                 format version; its presence makes a folder a workspace
ROOT/recipe.yaml                    the last recipe that `align` ran here
ROOT/tables/<table>/*.parquet       records; a part is named by the ids in it
ROOT/tensors/<kind>/*.safetensors   rows of latents, conditions and embeddings
ROOT/audioscore/<name>.safetensors  a fitted AudioScore, with its report (.json) and card (.md)
ROOT/marginals/<scorer>.safetensors label distributions that inception scores are measured against
ROOT/pairs.json                     what the last `pair` did; later rounds write pairs-<source>.json
ROOT/runs/<name>/                   training runs
ROOT/reference_errors/<key>/        errors of a frozen reference, computed before training
ROOT/evaluations/<name>.json        finished evaluations
ROOT/report/                        the HTML page and its media
ROOT/annotate/                      the rating application's database and media
ROOT/locks/                         one file per stage and shard
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from foleypref.workspace.records import AUTO


@dataclass(frozen=True)
class RunFiles:
    """The files of one training run, from its folder."""

    folder: Path

    @property
    def settings(self) -> Path:
        """The run's settings as JSON, written before the first step."""
        return self.folder / "settings.json"

    @property
    def result(self) -> Path:
        """The outcome as JSON, written last: a run that has this file is finished."""
        return self.folder / "result.json"

    @property
    def metrics(self) -> Path:
        """The log, one JSON object per line."""
        return self.folder / "metrics.jsonl"

    @property
    def weights(self) -> Path:
        """The tuned network of a finished run that exports whole weights."""
        return self.folder / "model.safetensors"

    @property
    def adapter(self) -> Path:
        """The folder of adapters of a finished run that exports only those."""
        return self.folder / "adapter"


@dataclass(frozen=True)
class AudioScoreFiles:
    """The three files of one fitted AudioScore."""

    weights: Path

    @property
    def report(self) -> Path:
        """The fit's report as JSON."""
        return self.weights.with_suffix(".json")

    @property
    def card(self) -> Path:
        """The model card as Markdown."""
        return self.weights.with_suffix(".md")


class WorkspacePaths:
    """The paths inside the workspace at `root`. Nothing is read or created."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser().resolve()

    @property
    def marker(self) -> Path:
        """The file that makes a folder a workspace."""
        return self.root / "workspace.json"

    @property
    def recipe(self) -> Path:
        """The recipe that `align` ran here last."""
        return self.root / "recipe.yaml"

    @property
    def tensors(self) -> Path:
        """The folder of all shards."""
        return self.root / "tensors"

    @property
    def audioscores(self) -> Path:
        """The folder of all fitted AudioScores."""
        return self.root / "audioscore"

    @property
    def runs(self) -> Path:
        """The folder of all training runs."""
        return self.root / "runs"

    @property
    def reference_errors(self) -> Path:
        """The folder of errors of frozen references, one folder per reference and data."""
        return self.root / "reference_errors"

    @property
    def evaluations(self) -> Path:
        """The folder of all evaluations."""
        return self.root / "evaluations"

    @property
    def report(self) -> Path:
        """The report's folder, unless the user names another."""
        return self.root / "report"

    @property
    def annotate(self) -> Path:
        """The folder of the rating application."""
        return self.root / "annotate"

    @property
    def locks(self) -> Path:
        """The folder of the stages' lock files."""
        return self.root / "locks"

    def table_folder(self, table: str) -> Path:
        """Return the folder that holds a table's parts."""
        return self.root / "tables" / table

    def audioscore(self, name: str) -> AudioScoreFiles:
        """Return the files of the AudioScore fitted under `name`. Raises ValueError for a bad name."""
        return AudioScoreFiles(self.audioscores / f"{_plain('a fit', name)}.safetensors")

    def marginal(self, scorer: str) -> Path:
        """Return the file of the label distribution that was frozen for a scorer."""
        return self.root / "marginals" / f"{scorer}.safetensors"

    def pairs_report(self, source: str = AUTO) -> Path:
        """Return the report of the last `pair` run that made pairs of this source."""
        return self.root / ("pairs.json" if source == AUTO else f"pairs-{source}.json")

    def evaluation(self, name: str) -> Path:
        """Return the file of an evaluation. Raises ValueError for a bad name."""
        return self.evaluations / f"{_plain('an evaluation', name)}.json"

    def run_folder(self, name: str) -> Path:
        """Return the folder of a training run. Raises ValueError for a bad name."""
        return self.runs / _plain("a run", name)

    def run_folders(self) -> list[Path]:
        """Return the folders of all training runs, sorted by name."""
        return sorted(path for path in self.runs.glob("*") if path.is_dir())


def _plain(owner: str, name: str) -> str:
    """Return `name` if it can be a file's name. Raises ValueError otherwise."""
    if not name or "/" in name or name.startswith("."):
        raise ValueError(f"{owner}'s name is a plain word without slashes, found {name!r}")
    return name
