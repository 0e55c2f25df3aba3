"""What a recipe would do in a workspace: its steps, how much of each is there, and what it costs.

Operations are counted on the model's and the scorers' own networks; hours follow from a sustained rate that
the reader gives or that is assumed and said. Decoding of media is left out, and scorers that nobody counted,
which the plan names.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple, cast

from foleytune.config import Recipe
from foleytune.costs import Cost
from foleytune.flow import STAGES
from foleytune.models import Model
from foleytune.objectives import Objective
from foleytune.published.scorer_cost import scorer_cost
from foleytune.records import GROUND_TRUTH, Candidate, Clip, Pair, Rating, Score
from foleytune.scorers._presets import expand
from foleytune.store import Workspace
from foleytune.train import TrainSettings
from foleytune.train_settings import needs_of

JUDGED = frozenset({"pairs", "labels", "reward"})  # what candidates, scores and AudioScore are there for
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
    """The steps of a recipe in order; those that none of its runs needs are left out."""
    clips, cost = _clips(workspace, recipe), _cost(recipe)
    steps = [Step("ingest", f"{recipe.ingest.folder} -> clips", _there(len(workspace.ids(Clip)), "clips"))]
    if recipe.world is not None:
        text = ", ".join(f"{num} {split}" for split, num in recipe.world.counts().items())
        steps.insert(0, Step("world", f"render clips: {text}"))
    if recipe.learns_from() & JUDGED:
        steps += _judged(workspace, recipe, clips[recipe.sample.split], cost)
    steps.append(_train(workspace, recipe, cost))
    if recipe.rounds is not None:
        steps.append(_rounds(workspace, recipe, clips[recipe.sample.split], cost))
    steps.append(_test(recipe, clips, cost))
    return [
        *steps,
        Step("evaluate", f"{len(recipe.evaluate.metrics)} metrics, {len(recipe.evaluate.oracles)} oracles"),
        Step("report", "one HTML page"),
    ]


def _judged(workspace: Workspace, recipe: Recipe, num_clips: int, cost: Cost | None) -> list[Step]:
    """From candidates to pairs."""
    sampled = _sample(workspace, recipe, num_clips, cost)
    steps = [sampled, _score(workspace, recipe, num_clips, cost)]
    if recipe.rate is not None:
        steps.append(Step("rate", "simulated raters", _there(len(workspace.ids(Rating)), "ratings")))
    steps.append(Step("fit", "ratings and scores -> AudioScore"))
    pairs = _there(len(workspace.ids(Pair)), "pairs")
    return [*steps, Step("pair", f"{recipe.pair.pairing.part_name()} pairs", pairs)]


def passes_of(workspace: Workspace, recipe: Recipe) -> dict[str, float]:
    """What each row costs, in forward passes of one latent: the candidates it learns from, and its training.

    A backward counts as two, a solver's step with guidance too. What AudioScore was fitted on is left out, as
    all rows share it.
    """
    num_clips = _clips(workspace, recipe)[recipe.sample.split]
    sampled = _sampled_passes(recipe, num_clips)
    found = {
        row: trained_passes(runs[0]) + (sampled if _reads_candidates(runs[0]) else 0)
        for row, runs in recipe.rows().items()
    }
    rounds = recipe.rounds
    if rounds is not None:
        runs = rounds.runs(recipe.train_seeds[0])
        again = _sampled_passes(recipe, num_clips, rounds.num_clips, rounds.num_candidates)
        found[rounds.row] = sum(map(trained_passes, runs)) + sampled + (len(runs) - 1) * again
    return found


def _reads_candidates(run: TrainSettings) -> bool:
    return bool(needs_of(run) & {"pairs", "labels"})


def trained_passes(run: TrainSettings) -> float:
    return run.max_steps * _batch(run) * cast(Objective, run.objective).forwards


def _sampled_passes(
    recipe: Recipe, num_clips: int, only: int | None = None, num_candidates: int | None = None
) -> int:
    s = recipe.sample
    limits = [n for n in (s.num_clips, only) if n is not None]
    num = min([num_clips, *limits]) * (num_candidates or s.num_candidates)
    return num * s.num_steps * _branches(s.guidance_scale) * STAGES.get(s.solver, 1)


def plan_text(root: str, recipe: Recipe, steps: list[Step], tflops: float | None = None) -> str:
    """The plan for a workspace at `root`, for people; hours at `tflops` 1e12 operations a second."""
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
    cost, total = _cost(recipe), sum(step.tflop for step in steps)
    assert cost is not None, "steps have operations"
    adapters = recipe.train.use_peft
    memory = cost.training_bytes(adapters=adapters) / 1e9
    kept = "weights" if adapters else "weights, gradients, AdamW and reference"
    said = f"an assumed {rate:g} TFLOP/s (--tflops)" if assumed else f"{rate:g} TFLOP/s"
    return [
        f"  {total / 1e3:,.0f} PFLOP: {total / rate / 3600:.1f} GPU hours at {said}; "
        f"{sum(step.disk for step in steps) / 1e9:.1f} GB on disk",
        f"  {cost.parameters / 1e6:,.0f} M parameters: {memory:.1f} GB of {kept} in training, "
        "activations on top",
    ]


def _cost(recipe: Recipe) -> Cost | None:
    return cast(Model, recipe.sample.model).cost()


def _sample(workspace: Workspace, recipe: Recipe, num_clips: int, cost: Cost | None) -> Step:
    s = recipe.sample
    num = num_clips if s.num_clips is None else min(num_clips, s.num_clips)
    what = f"{num:,} clips × {s.num_candidates} seeds, {s.num_steps} steps at guidance {s.guidance_scale:g}"
    made = sum(c.model != GROUND_TRUTH for c in workspace.read(Candidate))
    passes = num * s.num_candidates * s.num_steps * _branches(s.guidance_scale)
    step = Step("sample", what, _there(made, "candidates"), passes)
    return step if cost is None else _sampled(step, cost, num, num * s.num_candidates)


def _score(workspace: Workspace, recipe: Recipe, num_clips: int, cost: Cost | None) -> Step:
    """Every candidate and the clip's own sound; where nobody counted a scorer, it is named."""
    step = Step("score", ", ".join(recipe.score.scorers), _there(len(workspace.ids(Score)), "scores"))
    if cost is None:
        return step
    seconds = cast(Model, recipe.sample.model).spec.clip_seconds
    counted = {name: scorer_cost(name, seconds) for name in expand(recipe.score.scorers)}
    sounds = num_clips * (recipe.sample.num_candidates + recipe.score.ground_truth)
    tflop = sum(num_clips * c.clip + sounds * c.candidate for c in counted.values() if c is not None)
    uncounted = [name for name, c in counted.items() if c is None]
    what = f"{step.what}; {', '.join(uncounted)} not counted" if uncounted else step.what
    return step._replace(what=what, tflop=tflop)


def _train(workspace: Workspace, recipe: Recipe, cost: Cost | None) -> Step:
    runs = [run for runs in recipe.rows().values() for run in runs]
    rows = {row: found[0] for row, found in recipe.rows().items()}
    what = ", ".join(f"{row} ({run.max_steps:,} steps × {_batch(run)})" for row, run in rows.items())
    what += f", {len(recipe.train_seeds)} seeds" if len(recipe.train_seeds) > 1 else ""
    finished = sum((workspace.run_folder(run.run_name) / "result.json").exists() for run in runs)
    passes = round(sum(map(trained_passes, runs)))
    step = Step("train", what, _there(finished, f"of {len(runs)} runs"), passes)
    return step if cost is None else step._replace(tflop=passes * cost.pair / PAIR)


def _rounds(workspace: Workspace, recipe: Recipe, num_clips: int, cost: Cost | None) -> Step:
    """Every round's training, and the candidates of all but the first."""
    rounds = recipe.rounds
    assert rounds is not None
    runs = [run for seed in recipe.train_seeds for run in rounds.runs(seed)]
    again = _sampled_passes(recipe, num_clips, rounds.num_clips, rounds.num_candidates)
    later = len(recipe.train_seeds) * (rounds.num_rounds - 1)
    finished = sum((workspace.run_folder(run.run_name) / "result.json").exists() for run in runs)
    what = f"{rounds.row}: {rounds.num_rounds} rounds × {rounds.train.max_steps:,} steps, a seed"
    trained = round(sum(map(trained_passes, runs)))
    step = Step("rounds", what, _there(finished, f"of {len(runs)} runs"), trained + later * again)
    if cost is None:
        return step
    return step._replace(tflop=trained * cost.pair / PAIR + later * again * cost.network_pass)


def _test(recipe: Recipe, clips: Counter[str], cost: Cost | None) -> Step:
    num_systems = 1 + sum(len(runs) for runs in recipe.final_runs().values())
    whole, said, made = Step("test", ""), [], 0
    for e in recipe.held_out():
        scales = ", ".join(f"{scale:g}" for scale in e.guidance_scales)
        said.append(f"{clips[e.split]:,} clips × {len(e.seeds)} seeds at guidance {scales}")
        each = num_systems * clips[e.split] * len(e.seeds)
        passes = sum(each * e.num_steps * _branches(scale) for scale in e.guidance_scales)
        whole, made = whole._replace(passes=whole.passes + passes), made + each * len(e.guidance_scales)
    whole = whole._replace(what=f"{num_systems} systems × {', '.join(said)}")
    splits = {e.split for e in recipe.held_out()}
    return whole if cost is None else _sampled(whole, cost, sum(clips[s] for s in splits), made)


def _sampled(step: Step, cost: Cost, num_clips: int, num_candidates: int) -> Step:
    """With the features of the clips, the passes, and the decoding of every candidate for the scorers."""
    tflop = num_clips * cost.features + step.passes * cost.network_pass + num_candidates * cost.decoding
    return step._replace(
        tflop=tflop, disk=num_clips * cost.feature_bytes + num_candidates * cost.latent_bytes
    )


def _clips(workspace: Workspace, recipe: Recipe) -> Counter[str]:
    """Clips by split: those the recipe renders, those that are there, or those that it expects."""
    if recipe.world is not None:
        return Counter(recipe.world.counts())
    return Counter(clip.split for clip in workspace.read(Clip)) or Counter(recipe.expected_clips)


def _there(num: int, what: str) -> str:
    return f"{num} {what}" if num else ""


def _branches(guidance_scale: float) -> int:
    return 1 if guidance_scale == 1 else 2


def _batch(run: TrainSettings) -> int:
    return run.per_device_train_batch_size * run.gradient_accumulation_steps
