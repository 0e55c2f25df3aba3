"""How a recipe is launched on GPUs and machines: hours, memory and disk of each stage, and the commands.

Sampling and scoring spread over any number of GPUs. Training spreads over a number that divides its global
batch, so the tuned model is the one that the recipe describes and not that of a larger batch.
"""

from __future__ import annotations

from typing import NamedTuple

from foleypref.recipes.passes import batch_of, trained_passes
from foleypref.recipes.plan import FROM_CANDIDATES, PAIR, TFLOPS, Step, plan
from foleypref.recipes.recipe import Recipe
from foleypref.training.settings import TrainSettings
from foleypref.workspace.store import Workspace

SHARED = ("sample", "score")  # stages whose shares may lie on several machines


class Cluster(NamedTuple):
    """`gpus` in each of `nodes` machines that see one file system, `tflops` 1e12 operations a second each."""

    gpus: int = 1
    nodes: int = 1
    tflops: float = TFLOPS


class Launch(NamedTuple):
    """A stage on the cluster."""

    step: Step
    gpus: int  # at work
    hours: float  # by the clock
    memory: float  # GB of weights and optimizer a GPU, without activations


def launches(workspace: Workspace, recipe: Recipe, cluster: Cluster) -> list[Launch]:
    """Return every step of the plan as it runs on the cluster."""
    return [_launch(recipe, step, cluster) for step in plan(workspace, recipe)]


def processes(run: TrainSettings, available: int) -> int:
    """Return the largest number of processes, at most `available`, that divides the batch of a step."""
    batch = batch_of(run)
    return max(n for n in range(1, batch + 1) if batch % n == 0 and n <= available)


def split_batch(run: TrainSettings, used: int) -> tuple[int, int]:
    """Return (per-device batch, micro-batches) for `used` processes; never above the run's own batch."""
    share = batch_of(run) // used
    most = min(share, run.per_device_train_batch_size)
    each = max(n for n in range(1, most + 1) if share % n == 0)
    return each, share // each


def commands(root: str, recipe: Recipe, name: str, cluster: Cluster) -> list[str]:
    """Return the commands to type, in order, for a workspace at `root` and the recipe called `name`.

    `align` continues from whatever the shares of sampling and scoring have written.
    """
    align = f"foleypref align {name} --workspace {root}"
    judged = SHARED if recipe.learns_from() & FROM_CANDIDATES else ()
    lines = []
    if judged and cluster.nodes > 1:
        lines.append(f"{align} --until ingest")
        lines += [_shares(stage, root, name, recipe, cluster) for stage in judged]
    flags = " ".join(f"--{s}.device cuda --{s}.num-workers {cluster.gpus}" for s in SHARED)
    runs = recipe.rows()[recipe.train.run_name]
    used = processes(recipe.train, cluster.gpus * cluster.nodes)
    if used > 1:
        lines.append(f"{align} --until {'pair' if judged else 'ingest'} {flags}")
        lines += [_torchrun(run, root, name, used, cluster.gpus) for run in runs]
    return [*lines, f"{align} {flags}"]


def launch_text(
    steps: list[Launch], lines: list[str], recipe: Recipe, cluster: Cluster, *, assumed: bool
) -> str:
    """Return the launches as a table, with the assumptions behind its figures, and the commands."""
    rows = [f"plan: {recipe.name} on {cluster.nodes} × {cluster.gpus} GPUs"]
    rows.append(f"  {'stage':<10}{'hours':>8}{'GPUs':>6}{'GB a GPU':>10}{'GB disk':>9}  what")
    for one in steps:
        hours, memory = f"{one.hours:.2f}" if one.hours else "-", f"{one.memory:.1f}" if one.memory else "-"
        disk = f"{one.step.disk / 1e9:.1f}" if one.step.disk else "-"
        rows.append(f"  {one.step.name:<10}{hours:>8}{one.gpus:>6}{memory:>10}{disk:>9}  {one.step.what}")
    gpu_hours = sum(one.step.tflop for one in steps) / cluster.tflops / 3600
    rate = f"an assumed {cluster.tflops:g}" if assumed else f"{cluster.tflops:g}"
    rows += [
        f"  {sum(one.hours for one in steps):.1f} hours by the clock, {gpu_hours:.1f} GPU hours at {rate} "
        f"TFLOP/s a GPU (--tflops), {sum(one.step.disk for one in steps) / 1e9:.1f} GB on disk",
        "  GB a GPU: weights, gradients, optimizer, reference; activations on top. -: not counted",
    ]
    if recipe.controls and cluster.gpus * cluster.nodes > 1:
        rows.append("  the control rows train one after the other on one GPU")
    return "\n".join([*rows, "", *(f"  {line}" for line in lines)])


def _launch(recipe: Recipe, step: Step, cluster: Cluster) -> Launch:
    cost = recipe.sample.model.cost()
    hours = step.tflop / cluster.tflops / 3600
    everywhere = cluster.gpus * cluster.nodes
    if step.name == "train" and cost is not None:
        used = processes(recipe.train, everywhere)
        main = sum(trained_passes(run) for run in recipe.rows()[recipe.train.run_name]) * cost.pair / PAIR
        shared = main / cluster.tflops / 3600
        memory = cost.training_bytes(adapters=recipe.train.use_peft) / 1e9
        return Launch(step, used, shared / used + hours - shared, memory)
    if cost is None or step.name not in (*SHARED, "test"):
        return Launch(step, 1, hours, 0.0)
    used = everywhere if step.name in SHARED else cluster.gpus
    memory = 0.0 if step.name == "score" else cost.parameters * cost.weight_bytes / 1e9
    return Launch(step, used, hours / used, memory)


def _shares(stage: str, root: str, name: str, recipe: Recipe, cluster: Cluster) -> str:
    split = f" --split {recipe.sample.split}" if stage == "score" else ""
    share = f"$SLURM_PROCID/{cluster.gpus * cluster.nodes}"
    command = f"foleypref {stage} {root} --recipe {name}{split} --device cuda --shard {share}"
    tasks = f"--nodes {cluster.nodes} --ntasks-per-node {cluster.gpus} --gpus-per-task 1"
    return f"srun {tasks} bash -c '{command}'"


def _torchrun(run: TrainSettings, root: str, name: str, used: int, gpus: int) -> str:
    """Return the command that trains on as few machines as hold the processes."""
    nodes = -(-used // gpus)
    where = f"--nnodes {nodes} --rdzv-backend c10d --rdzv-endpoint $HEAD:29500 " if nodes > 1 else ""
    what = f"foleypref train {root} --recipe {name} --run-name {run.run_name} --seed {run.seed}"
    each, micro = split_batch(run, used)
    batch = f"--per-device-train-batch-size {each}"
    if micro != run.gradient_accumulation_steps:
        batch += f" --gradient-accumulation-steps {micro}"
    return f"torchrun {where}--nproc-per-node {min(used, gpus)} -m {what} {batch}"
