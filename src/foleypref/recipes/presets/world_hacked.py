"""Reward hacking on the embedded world: a run pushed until its judge rises and the truth falls, and its stop.

The reward reads one judge of four, sync, and nothing holds the policy to its reference. `hacked` goes on to
the end; `caught` is the same run with a limit on a judge that the reward does not read, and exports the
weights it had within it. `world_hacked` is `recipe()`; `world_hacked-ci` shows that it runs.
"""

from __future__ import annotations

from foleypref.recipes.presets.world_methods import recipe as methods
from foleypref.recipes.recipe import Recipe, changed, every_run_changed
from foleypref.settings.parts import build
from foleypref.training.stopping import StopSettings
from foleypref.world.settings import WorldSettings

READ = "world_sync/desync_s"
WATCHED = ("world_semantic/similarity", "world_text/similarity")
MOST_LOST = 0.1  # of the watched judge's first value


def recipe() -> Recipe:
    """160 clips, 80 steps of 16 samples at guidance 1; the limit is looked at every fifth step."""
    base = methods()
    train = changed(
        base.controls["ddpo"],
        run_name="hacked",
        objective=build("objectives", "ddpo", kl_weight=0.0),
        watch=WATCHED,
        learning_rate=3e-4,
        max_steps=80,
        warmup_steps=5,
        save_steps=20,
        eval_steps=5,
        num_eval_pairs=48,
    )
    limit = StopSettings(falls_by={f"eval/watch/{WATCHED[0]}": MOST_LOST})
    return changed(
        base,
        name="world_hacked",
        world=WorldSettings(align=160, test=96),
        rate=None if base.rate is None else changed(base.rate, num_clips=None),
        fit=changed(base.fit, dimensions=(READ,)),
        train=train,
        controls={"caught": changed(train, stop=limit)},
        rounds=None,
        train_seeds=(0,),
        evaluate=changed(base.evaluate, guidance_scales=(1.0,)),
        also_evaluate=(),
    )


def ci() -> Recipe:
    """Return a short form: four steps of both methods."""
    whole = recipe()
    short = {"max_steps": 4, "warmup_steps": 1, "save_steps": 4, "eval_steps": 2, "num_eval_pairs": 4}
    return changed(
        every_run_changed(whole, **short),
        name="world_hacked-ci",
        world=WorldSettings(align=24, test=8),
        evaluate=changed(whole.evaluate, num_steps=5),
    )
