"""Iterated rounds and held-out classes through a whole small recipe: what each stage leaves for the next."""

from __future__ import annotations

from pathlib import Path

import pytest

from foleypref.align import align
from foleypref.evaluation.result import load_evaluation
from foleypref.recipes.passes import passes_of
from foleypref.recipes.plan import plan
from foleypref.recipes.recipe import Recipe, RoundSettings, changed, resolve
from foleypref.workspace.records import GROUND_TRUTH, Candidate, Clip, Pair
from foleypref.workspace.store import Workspace
from foleypref.world.scenes import indices_of, sample_scene
from foleypref.world.settings import WorldSettings

HELD_OUT = ("dog", "drum", "rain")


def small() -> Recipe:
    """Eight clips, two candidates of two steps, four training steps a run."""
    demo = resolve("world_demo-ci")
    short = {
        "max_steps": 4, "warmup_steps": 1, "save_steps": 2, "eval_steps": 2, "num_eval_pairs": 0,
        "per_device_train_batch_size": 2, "tensorboard": False,
    }  # fmt: skip
    train = changed(demo.train, **short)
    evaluate = changed(demo.evaluate, num_steps=2, guidance_scales=(1.0,), num_resamples=20)
    return changed(
        demo,
        world=WorldSettings(align=10, test=3, unseen=2, held_out_classes=HELD_OUT),
        sample=changed(demo.sample, num_steps=2, num_candidates=3),
        fit=changed(demo.fit, min_ratings=10),
        train=train,
        controls={},
        rounds=RoundSettings(train=train, num_clips=6),
        evaluate=evaluate,
        also_evaluate=(changed(evaluate, name="unseen", split="unseen"),),
    )


def test_classes_that_are_held_out_show_in_their_split_alone() -> None:
    world = WorldSettings(align=1, unseen=1, held_out_classes=HELD_OUT)
    assert world.counts() == {"align": 1, "unseen": 1}
    for split in ("align", "test", "unseen"):
        chosen = indices_of(split, 0, 0, 12, world.classes(split))
        assert len(set(chosen)) == 12
        for index in chosen:
            shown = set(sample_scene(split, 0, index).labels)
            assert shown <= set(HELD_OUT) if split == "unseen" else not shown & set(HELD_OUT)
    assert indices_of("wild", 0, 5, 3, world.classes("wild")) == [5, 6, 7]
    with pytest.raises(ValueError, match="no class is called dgo"):
        indices_of("test", 0, 0, 1, ("dgo",))


@pytest.mark.slow
def test_a_round_learns_from_what_its_own_model_made(tmp_path: Path) -> None:
    workspace, recipe = Workspace(tmp_path), small()
    align(workspace, recipe, until="train")
    first = [p for p in workspace.read(Pair) if p.source == "auto"]
    align(workspace, recipe)

    pairs, candidates = workspace.read(Pair), workspace.by_id(Candidate)
    later = [p for p in pairs if p.source == "round2-iterated-0"]
    assert [p for p in pairs if p.source == "auto"] == first
    assert later
    made_by = {candidates[i].weights for p in later for i in (p.chosen, p.rejected)}
    base = {candidates[i].weights for p in first for i in (p.chosen, p.rejected)}
    assert len(made_by) == 1
    assert made_by.isdisjoint(base)
    assert len({p.clip_id for p in later}) <= 6
    splits = {c.clip_id: c.split for c in workspace.read(Clip)}
    noises = {
        c.seed for c in candidates.values() if c.weights in made_by and splits[c.clip_id] == "align"
    }  # the first round equals v2a_dpo, which is tested with noise 0
    assert min(noises) >= recipe.sample.num_candidates  # noise that the first round has not met

    assert set(splits.values()) == {"align", "test", "unseen"}
    for name, num in (("evaluation", 3), ("unseen", 2)):
        evaluation = load_evaluation(workspace, name)
        assert {row.system for row in evaluation.rows} == {"base", "v2a_dpo", "iterated", GROUND_TRUTH}
        assert all(row.num_clips == num for row in evaluation.rows)
        # 10 clips × 3 candidates × 2 steps × 2 branches, 4 steps × 2 pairs × 8; then 6 clips and 4 steps more
        assert evaluation.settings["compute"] == {"v2a_dpo": 120 + 64, "iterated": 120 + 64 + 72 + 64}

    before = {path: path.read_bytes() for path in tmp_path.rglob("*.safetensors")}
    align(workspace, recipe)  # again: everything is there
    assert workspace.read(Pair) == pairs
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.safetensors")} == before


def test_the_plan_names_rounds_and_what_they_cost(tmp_path: Path) -> None:
    workspace, recipe = Workspace(tmp_path), small()
    steps = {step.name: step for step in plan(workspace, recipe)}
    assert list(steps)[-5:] == ["train", "rounds", "test", "evaluate", "report"]
    assert steps["train"].passes == 64
    assert steps["rounds"].passes == 2 * 64 + 72
    assert passes_of(workspace, recipe)["iterated"] == 320
