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

from pathlib import Path

from foleypref.workspace.records import AUTO, Clip


class RunFiles:
    """The files of one training run, from its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = folder / "settings.json"  # written before the first step
        self.metrics = folder / "metrics.jsonl"  # the log, one JSON object per line
        self.weights = folder / "model.safetensors"  # the tuned network, if whole weights are exported
        self.adapter = folder / "adapter"  # the folder of adapters of a LoRA run
        self.result = folder / "result.json"  # written last: a run that has it is finished


class AudioScoreFiles:
    """The files of one fitted AudioScore, from the file of its weights."""

    def __init__(self, weights: Path) -> None:
        self.weights = weights
        self.report = weights.with_suffix(".json")
        self.card = weights.with_suffix(".md")


class WorkspacePaths:
    """The paths inside the workspace at `root`. Nothing is read or created."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser().resolve()
        self.marker = self.root / "workspace.json"
        self.recipe = self.root / "recipe.yaml"
        self.tensors = self.root / "tensors"
        self.audioscores = self.root / "audioscore"
        self.runs = self.root / "runs"
        self.reference_errors = self.root / "reference_errors"
        self.evaluations = self.root / "evaluations"
        self.report = self.root / "report"  # unless the user names another folder
        self.annotate = self.root / "annotate"
        self.locks = self.root / "locks"

    def clip_file(self, clip: Clip) -> Path:
        """Return the video of a clip; a relative path starts at the workspace's folder."""
        return self.root / clip.path

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
