"""Plans for clusters: hours divide, the batch stays, and what is printed is what the command line takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from foleypref.cli.main import main
from foleypref.recipes.launch import Cluster, commands, launches, processes, split_batch
from foleypref.recipes.plan import plan
from foleypref.recipes.recipe import changed, resolve
from foleypref.workspace.store import Workspace

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
    micro = changed(run, per_device_train_batch_size=2, gradient_accumulation_steps=6)
    assert [processes(micro, gpus) for gpus in (1, 5, 8, 100)] == [1, 4, 6, 12]
    assert [split_batch(micro, used) for used in (1, 2, 3, 4, 12)] == [(2, 6), (2, 3), (2, 2), (1, 3), (1, 1)]


def test_clips_that_rules_distort_are_encoded_once_and_at_every_step_of_media(workspace: Workspace) -> None:
    made = {name: resolve(name) for name in ("syncdpo_ltx2", "syncdpo_ltx2-latents")}
    cost = made["syncdpo_ltx2"].sample.model.cost()  # type: ignore[attr-defined]
    train = {name: next(s for s in plan(workspace, r) if s.name == "train") for name, r in made.items()}
    latents, media = train["syncdpo_ltx2-latents"], train["syncdpo_ltx2"]
    assert latents.disk == media.disk == 1_271 * (cost.feature_bytes + cost.latent_bytes)
    once = 1_271 * (cost.features + cost.encoding)
    assert latents.tflop == pytest.approx(20_000 * cost.pair + once)
    assert media.tflop - latents.tflop == pytest.approx(20_000 / 2 * cost.encoding)  # half are of sound
    run = made["syncdpo_ltx2"].train
    assert run.negatives is not None
    sound = made["syncdpo_ltx2"].model_copy(
        update={"train": changed(run, negatives=changed(run.negatives, modality="audio"))}
    )
    assert next(s for s in plan(workspace, sound) if s.name == "train").tflop == latents.tflop


def test_scorers_that_are_counted_have_hours_and_the_others_are_named(workspace: Workspace) -> None:
    (step,) = [step for step in plan(workspace, resolve(RECIPE)) if step.name == "score"]
    assert step.tflop > 0
    assert "not counted" in step.what
    assert "pesq" in step.what.partition(";")[2]
    assert not any(name in step.what.partition(";")[2] for name in ("imagebind", "clap"))


@pytest.mark.parametrize(("gpus", "nodes"), [(1, 1), (8, 1), (2, 4)])
def test_the_command_line_takes_what_is_printed(
    workspace: Workspace, gpus: int, nodes: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --help behind it, which reads every flag before it answers and does nothing."""
    for line in commands(str(workspace.root), resolve(RECIPE), RECIPE, Cluster(gpus, nodes)):
        said = re.sub(r"^srun .* bash -c '(.*)'$", r"\1", line).replace("$SLURM_PROCID", "0")
        words = shlex.split(said)
        verb = words[words.index("-m") + 2 :] if words[0] == "torchrun" else words[1:]
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
