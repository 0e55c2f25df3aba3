"""Where files lie: a stored workspace must stay readable, so the layout is pinned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from foleypref.workspace.paths import RunFiles, WorkspacePaths
from foleypref.workspace.records import Clip

ROOT = Path("/a/workspace")
PATHS = WorkspacePaths(ROOT)


def test_the_layout_of_a_workspace_is_fixed() -> None:
    fitted = PATHS.audioscore("mine")
    found = [
        *(PATHS.marker, PATHS.recipe, PATHS.tensors, PATHS.table_folder("clips"), PATHS.locks),
        *(fitted.weights, fitted.report, fitted.card, PATHS.marginal("panns")),
        *(PATHS.pairs_report(), PATHS.pairs_report("round2"), PATHS.evaluation("held-out")),
        *(PATHS.run_folder("dpo"), PATHS.reference_errors, PATHS.report, PATHS.annotate),
    ]
    assert [path.relative_to(ROOT).as_posix() for path in found] == [
        *("workspace.json", "recipe.yaml", "tensors", "tables/clips", "locks"),
        *("audioscore/mine.safetensors", "audioscore/mine.json", "audioscore/mine.md"),
        "marginals/panns.safetensors",
        *("pairs.json", "pairs-round2.json", "evaluations/held-out.json"),
        *("runs/dpo", "reference_errors", "report", "annotate"),
    ]


def test_a_clips_path_starts_at_the_workspace_unless_it_is_absolute() -> None:
    clip = Clip("c", "videos/c.mp4", "align", "", 0.0, 1.0, fps=25.0, width=8, height=8, has_audio=True)
    assert PATHS.clip_file(clip) == ROOT / "videos/c.mp4"
    assert PATHS.clip_file(replace(clip, path="/elsewhere/c.mp4")) == Path("/elsewhere/c.mp4")


def test_the_files_of_a_run_are_fixed() -> None:
    files = RunFiles(ROOT)
    found = [files.settings, files.result, files.metrics, files.weights, files.adapter]
    names = ["settings.json", "result.json", "metrics.jsonl", "model.safetensors", "adapter"]
    assert [path.relative_to(ROOT).as_posix() for path in found] == names


@pytest.mark.parametrize("name", ["", "a/b", ".hidden", "../out"])
def test_a_name_that_is_no_plain_word_is_refused(name: str) -> None:
    for path_of in (PATHS.run_folder, PATHS.audioscore, PATHS.evaluation):
        with pytest.raises(ValueError, match="is a plain word without slashes"):
            path_of(name)
