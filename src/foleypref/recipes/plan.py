"""What a recipe would do in a workspace: its steps, how much of each is there, and what it costs.

Operations are counted on the model's and the scorers' own networks; hours follow from a sustained rate that
the user gives, or from an assumed one, which the plan states. Decoding of media is left out, and so are
scorers without a known cost, which the plan names.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from foleypref.models.costs import Cost
from foleypref.recipes.passes import batch_of, clips_of, integration_passes, sampled_passes, trained_passes
from foleypref.recipes.recipe import Recipe
from foleypref.scoring.cost import scorer_cost
from foleypref.scoring.scorer_sets import expand_sets
from foleypref.train import TrainSettings
from foleypref.workspace.paths import RunFiles
from foleypref.workspace.records import GROUND_TRUTH, Candidate, Clip, Pair, Rating, Score
from foleypref.workspace.store import Workspace

FROM_CANDIDATES = frozenset({"pairs", "labels", "reward"})  # what a run may learn that begins with candidates
PAIR = 8  # passes of a Flow-DPO pair, whose operations are counted with conditions as training gives them
TFLOPS = 200.0  # sustained, 1e12 operations a second: what is assumed of a GPU in bf16


class Step(NamedTuple):
    """A line of the plan: network passes (of one row), TFLOP, and bytes on disk, where known."""

    name: str
    what: str
    there: str = ""
    passes: int = 0
    tflop: float = 0.0
    disk: int = 0


def plan(workspace: Workspace, recipe: Recipe) -> list[Step]:
    """Return the steps of a recipe in order; those that none of its runs needs are left out."""
    clips, cost = clips_of(workspace, recipe), recipe.sample.model.cost()
    num_clips = clips[recipe.sample.split]
    steps = [Step("ingest", f"{recipe.ingest.folder} -> clips", _there(len(workspace.ids(Clip)), "clips"))]
    if recipe.world is not None:
        text = ", ".join(f"{num} {split}" for split, num in recipe.world.counts().items())
        steps.insert(0, Step("world", f"render clips: {text}"))
    if recipe.learns_from() & FROM_CANDIDATES:
        steps += [_sample(workspace, recipe, num_clips, cost), _score(workspace, recipe, num_clips, cost)]
        if recipe.rate is not None:
            steps.append(Step("rate", "simulated raters", _there(len(workspace.ids(Rating)), "ratings")))
        steps.append(Step("fit", "ratings and scores -> AudioScore"))
        pairs = _there(len(workspace.ids(Pair)), "pairs")
        steps.append(Step("pair", f"{recipe.pair.pairing.part_name()} pairs", pairs))
    steps.append(_train(workspace, recipe, cost))
    if recipe.rounds is not None:
        steps.append(_rounds(workspace, recipe, num_clips, cost))
    steps.append(_test(recipe, clips, cost))
    e = recipe.evaluate
    steps.append(Step("evaluate", f"{len(e.metrics)} metrics, {len(e.oracles)} oracles"))
    return [*steps, Step("report", "one HTML page")]


def plan_text(root: str, recipe: Recipe, steps: list[Step], tflops: float | None = None) -> str:
    """Return the plan for a workspace at `root` as text; hours at `tflops` 1e12 operations a second."""
    lines = [f"align: {recipe.name} in {root}"]
    rate = tflops or TFLOPS
    for step in steps:
        parts = [f"{step.tflop / rate / 3600:.2f} h"] if step.tflop else []
        parts += [f"{step.disk / 1e9:.1f} GB"] if step.disk else []
        cost = f"   ({', '.join(parts)})" if parts else ""
        there = f"   [there: {step.there}]" if step.there else ""
        lines.append(f"  {step.name:<10}{step.what}{cost}{there}")
    passes = sum(step.passes for step in steps)
    lines.append(f"  about {passes:,} network passes if nothing of it were there")
    if any(step.tflop for step in steps):
        lines += _cost_lines(recipe, steps, rate, assumed=tflops is None)
    return "\n".join(lines)


def _cost_lines(recipe: Recipe, steps: list[Step], rate: float, *, assumed: bool) -> list[str]:
    cost, total = recipe.sample.model.cost(), sum(step.tflop for step in steps)
    assert cost is not None, "steps have operations"
    adapters = recipe.train.use_peft
    memory = cost.training_bytes(adapters=adapters) / 1e9
    contents = "weights" if adapters else "weights, gradients, AdamW and reference"
    speed = f"an assumed {rate:g} TFLOP/s (--tflops)" if assumed else f"{rate:g} TFLOP/s"
    disk = sum(step.disk for step in steps) / 1e9
    return [
        f"  {total / 1e3:,.0f} PFLOP: {total / rate / 3600:.1f} GPU hours at {speed}; {disk:.1f} GB on disk",
        f"  {cost.parameters / 1e6:,.0f} M parameters: {memory:.1f} GB of {contents} in training, "
        "activations on top",
    ]


def _sample(workspace: Workspace, recipe: Recipe, num_clips: int, cost: Cost | None) -> Step:
    s = recipe.sample
    num = num_clips if s.num_clips is None else min(num_clips, s.num_clips)
    what = f"{num:,} clips × {s.num_candidates} seeds, {s.num_steps} steps at guidance {s.guidance_scale:g}"
    there = sum(c.model != GROUND_TRUTH for c in workspace.read(Candidate))
    step = Step("sample", what, _there(there, "candidates"), sampled_passes(recipe, num_clips))
    return step if cost is None else _sampled(step, cost, num, num * s.num_candidates)


def _score(workspace: Workspace, recipe: Recipe, num_clips: int, cost: Cost | None) -> Step:
    """Return the step that scores candidates and clips' own sounds; scorers without a cost are named."""
    step = Step("score", ", ".join(recipe.score.scorers), _there(len(workspace.ids(Score)), "scores"))
    if cost is None:
        return step
    seconds = recipe.sample.model.spec.clip_seconds
    counted = {name: scorer_cost(name, seconds) for name in expand_sets(recipe.score.scorers)}
    sounds = num_clips * (recipe.sample.num_candidates + recipe.score.ground_truth)
    tflop = sum(num_clips * c.clip + sounds * c.candidate for c in counted.values() if c is not None)
    uncounted = [name for name, c in counted.items() if c is None]
    what = f"{step.what}; {', '.join(uncounted)} not counted" if uncounted else step.what
    return step._replace(what=what, tflop=tflop)


def _train(workspace: Workspace, recipe: Recipe, cost: Cost | None) -> Step:
    runs = [run for runs in recipe.rows().values() for run in runs]
    clips = {run.split: clips_of(workspace, recipe)[run.split] for run in runs if run.negatives}
    rows = [(row, same[0]) for row, same in recipe.rows().items()]
    what = ", ".join(f"{row} ({run.max_steps:,} steps × {batch_of(run)})" for row, run in rows)
    what += f", {len(recipe.train_seeds)} seeds" if len(recipe.train_seeds) > 1 else ""
    finished = sum(RunFiles(workspace.run_folder(run.run_name)).result.exists() for run in runs)
    passes = round(sum(map(trained_passes, runs)))
    if clips:
        what += f", {sum(clips.values()):,} clips encoded"
    step = Step("train", what, _there(finished, f"of {len(runs)} runs"), passes)
    if cost is None:
        return step
    num_clips = sum(clips.values())
    once = num_clips * (cost.features + cost.encoding)  # for rules
    tflop = passes * cost.pair / PAIR + once + sum(map(_distorted, runs)) * cost.encoding
    return step._replace(tflop=tflop, disk=num_clips * (cost.feature_bytes + cost.latent_bytes))


def _distorted(run: TrainSettings) -> float:
    """Return how many clips a run encodes again; in a joint model, encoding only sound is counted as free."""
    n = run.negatives
    if n is None or n.on == "latents":
        return 0.0
    joint = "video" in run.model.spec.latents
    share = {"video": 1.0, "either": 0.5, "audio": 0.0}[n.modality] if joint else 1.0
    return share * run.max_steps * n.rows_of(batch_of(run))


def _rounds(workspace: Workspace, recipe: Recipe, num_clips: int, cost: Cost | None) -> Step:
    """Return the step that trains every round and samples the candidates of all rounds but the first."""
    rounds = recipe.rounds
    assert rounds is not None
    runs = [run for seed in recipe.train_seeds for run in rounds.runs(seed)]
    again = sampled_passes(recipe, num_clips, rounds.num_clips, rounds.num_candidates)
    later = len(recipe.train_seeds) * (rounds.num_rounds - 1)
    finished = sum(RunFiles(workspace.run_folder(run.run_name)).result.exists() for run in runs)
    what = f"{rounds.row}: {rounds.num_rounds} rounds × {rounds.train.max_steps:,} steps, a seed"
    trained = round(sum(map(trained_passes, runs)))
    step = Step("rounds", what, _there(finished, f"of {len(runs)} runs"), trained + later * again)
    if cost is None:
        return step
    return step._replace(tflop=trained * cost.pair / PAIR + later * again * cost.network_pass)


def _test(recipe: Recipe, clips: Counter[str], cost: Cost | None) -> Step:
    num_systems = 1 + sum(len(runs) for runs in recipe.final_runs().values())
    tests, passes, num_candidates = [], 0, 0
    for e in recipe.held_out():
        scales = ", ".join(f"{scale:g}" for scale in e.guidance_scales)
        tests.append(f"{clips[e.split]:,} clips × {len(e.seeds)} seeds at guidance {scales}")
        each = num_systems * clips[e.split] * len(e.seeds)
        passes += each * sum(integration_passes(e.num_steps, e.solver, scale) for scale in e.guidance_scales)
        num_candidates += each * len(e.guidance_scales)
    step = Step("test", f"{num_systems} systems × {', '.join(tests)}", passes=passes)
    num_clips = sum(clips[split] for split in {e.split for e in recipe.held_out()})
    return step if cost is None else _sampled(step, cost, num_clips, num_candidates)


def _sampled(step: Step, cost: Cost, num_clips: int, num_candidates: int) -> Step:
    """Return the step with its cost: features of clips, passes, and decoding every candidate for scorers."""
    tflop = num_clips * cost.features + step.passes * cost.network_pass + num_candidates * cost.decoding
    disk = num_clips * cost.feature_bytes + num_candidates * cost.latent_bytes
    return step._replace(tflop=tflop, disk=disk)


def _there(num: int, what: str) -> str:
    return f"{num} {what}" if num else ""
