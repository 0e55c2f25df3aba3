"""Plans for clusters: hours divide, the batch stays, and what is printed is what the command line takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from foleytune.cli import main
from foleytune.config import resolve
from foleytune.launch import Cluster, commands, launches, processes
from foleytune.plan import plan
from foleytune.store import Workspace

RECIPE = "v2a_dpo_mmaudio-small"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "ws")


def test_the_work_stays_and_the_hours_divide(workspace: Workspace) -> None:
    recipe = resolve(RECIPE)
    work = {step.name: step.tflop for step in plan(workspace, recipe)}
    found = {one.step.name: one for one in launches(workspace, recipe, Cluster(gpus=4, nodes=3, tflops=100))}
    for name, used in (("sample", 12), ("score", 12), ("train", 8), ("test", 4)):
        assert found[name].gpus == used
        assert found[name].hours * 3600 * 100 * used == pytest.approx(work[name])
    assert found["ingest"].hours == 0
    assert found["train"].memory == pytest.approx(20 * recipe.sample.model.cost().parameters / 1e9)  # type: ignore[attr-defined]


def test_training_takes_no_more_processes_than_its_batch_can_be_cut_for() -> None:
    run = resolve(RECIPE).train  # 8 pairs
    assert [processes(run, gpus) for gpus in (1, 2, 3, 7, 8, 100)] == [1, 2, 2, 4, 8, 8]


def test_scorers_that_are_counted_have_hours_and_the_others_are_named(workspace: Workspace) -> None:
    (step,) = [step for step in plan(workspace, resolve(RECIPE)) if step.name == "score"]
    assert step.tflop > 0
    assert "not counted" in step.what
    assert "clap" in step.what
    assert "imagebind" not in step.what.partition(";")[2]


@pytest.mark.parametrize(("gpus", "nodes"), [(1, 1), (8, 1), (2, 4)])
def test_the_command_line_takes_what_is_printed(
    workspace: Workspace, gpus: int, nodes: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --help behind it, which reads every flag before it answers and does nothing."""
    for line in commands(str(workspace.root), resolve(RECIPE), RECIPE, Cluster(gpus, nodes)):
        said = re.sub(r"^srun .* bash -c '(.*)'$", r"\1", line).replace("$SLURM_PROCID", "0")
        words = shlex.split(said)
        verb = words[words.index("foleytune.cli") + 1 :] if words[0] == "torchrun" else words[1:]
        if words[0] == "torchrun":
            processes_used = int(words[words.index("--nproc-per-node") + 1])
            processes_used *= int(words[words.index("--nnodes") + 1]) if "--nnodes" in words else 1
            assert int(words[words.index("--per-device-train-batch-size") + 1]) * processes_used == 8
        with pytest.raises(SystemExit) as stop:
            main([*verb, "--help"])
        assert stop.value.code == 0, line
        capsys.readouterr()


def test_the_verb_prints_hours_and_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", RECIPE, "--gpus", "8", "--nodes", "4", "--workspace", str(tmp_path / "ws")]) == 0
    said = capsys.readouterr().out
    assert "on 4 × 8 GPUs" in said
    assert "srun --nodes 4" in said
    assert "an assumed 200 TFLOP/s" in said
    assert main(["plan", RECIPE, "--gpus", "0"]) == 2
