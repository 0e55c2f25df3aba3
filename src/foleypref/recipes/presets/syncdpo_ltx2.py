"""SyncDPO (arXiv 2605.12179) on LTX-2: clips over themselves distorted by rule, coarse first; by LoRA.

The paper's own base is Ovi, and its text could not be read beyond the abstract. From the authors' earlier
code: rank 128, α 64 on the cross-modal attention, learning rate 1e-5, Adam 0.9 / 0.95, decay 1e-4, 1,000
steps of warm-up, 4 pairs a step, some 5,000 steps, 1,271 clips (AVSync15's training clips, 5 s of 10), one
time and one noise a pair, uniform times, shift and replace on pixels and waves before the encoders. Not taken
over: their image condition, dropout in LoRA (the first loss could not be checked), cosine restarts and the
moving average (it would copy 19 B weights).

β is JavisDiT++'s (arXiv 2602.19163), 1000 for sound and 3000 for picture on the mean scale. The authors'
code has 0.1 there, with which the sigmoid stays at a half and nothing holds the policy to its reference.
The ramp's form and `scale` are guesses. `-latents` distorts latents instead: no decoding in training, but
pictures move by whole thirds of a second.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from foleypref.evaluate import EvaluateSettings
from foleypref.evaluation.metric_sets import benchmark_metrics
from foleypref.evaluation.metrics.mean import Mean
from foleypref.ingest import IngestSettings
from foleypref.models.lora import LoraSettings
from foleypref.recipes.recipe import Recipe
from foleypref.sample import SampleSettings
from foleypref.score import ScoreSettings
from foleypref.settings.parts import Part, build
from foleypref.train import TrainSettings
from foleypref.training.rule_settings import RulePairSettings

NUM_CLIPS, NUM_TEST = 1_271, 150
TRIM_S, WINDOW_S = 10.0, 5.05  # what follows the window fills what a shift leaves open
GUIDANCE, NUM_STEPS = 4.0, 40


def recipe() -> Recipe:
    """Media are distorted and encoded at every step, as the authors do: real sound and frames throughout."""
    return _recipe("syncdpo_ltx2", "media")


def latents() -> Recipe:
    """Cached latents are distorted: quicker, and coarse for pictures."""
    return _recipe("syncdpo_ltx2-latents", "latents")


def _recipe(name: str, on: Literal["latents", "media"]) -> Recipe:
    model = build("models", "ltx2")
    return Recipe(
        name=name,
        ingest=IngestSettings(folder=Path("VIDEOS"), duration_s=TRIM_S, min_duration_s=WINDOW_S),
        expected_clips={"train": NUM_CLIPS, "test": NUM_TEST},
        sample=SampleSettings(
            model=model, split="train", num_steps=NUM_STEPS, guidance_scale=GUIDANCE, batch_size=1
        ),
        score=ScoreSettings(scorers=("av_align",), optional_scorers=(), model=model),
        test_scorers=("av_benchmark",),
        train=_train(model, on),
        evaluate=EvaluateSettings(
            guidance_scales=(GUIDANCE,),
            num_steps=NUM_STEPS,
            metrics=(*benchmark_metrics(), Mean(dimension="av_align/av_align", label="AV-Align")),
            oracles=(),
        ),
    )


def _train(model: Part, on: Literal["latents", "media"]) -> TrainSettings:
    """One GPU of 80 GB: a pair at a time, four a step."""
    return TrainSettings(
        model=model,
        run_name="syncdpo",
        objective=build("objectives", "flow_dpo", beta={"audio": 1000.0, "video": 3000.0}),
        curriculum=build("curricula", "ramp"),
        negatives=RulePairSettings(rules=("shift", "replace", "scale"), on=on),
        split="train",
        max_steps=5_000,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=4,
        learning_rate=1e-5,
        warmup_steps=1_000,
        weight_decay=1e-4,
        adam_beta2=0.95,
        bf16=True,
        gradient_checkpointing=True,
        use_peft=True,
        lora=LoraSettings(r=128, lora_alpha=64.0),
        merge_adapters=False,  # 1 GB a run in place of 38
        save_steps=1_000,
        eval_steps=1_000,
        num_eval_pairs=8,  # clips, each with every rule at three severities
    )
