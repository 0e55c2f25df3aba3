"""LTX-2 end to end on tiny parts: clips in, candidates, training on rule-made negatives, sound out."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from foleypref.generate import GenerateSettings, generate
from foleypref.media.clip import read_wave
from foleypref.models.backbones.ltx2 import LTX2
from foleypref.models.lora import LoraSettings
from foleypref.models.tools import with_weights
from foleypref.published.ltx2_parts import LTX2Parts
from foleypref.recipes.recipe import resolve
from foleypref.sample import SampleSettings, sample
from foleypref.settings import parts as plugins
from foleypref.settings.yaml import dump
from foleypref.train import TrainResult, TrainSettings, train
from foleypref.training.log import read_metrics
from foleypref.training.rule_settings import RulePairSettings
from foleypref.workspace.records import Candidate, Feature
from tests.ltx2_tiny import SETTINGS, tiny_folder
from tests.test_train import TWO_PROCESSES, _spawn
from tests.world_workspace import NUM_CLIPS, world_workspace

pytestmark = pytest.mark.slow


def model(**changes: Any) -> LTX2:
    return LTX2(**{"weights_folder": str(tiny_folder()), **SETTINGS, **changes})


def settings(name: str, on: str = "latents") -> TrainSettings:
    """As the recipe has it, but for size: two steps of two pairs."""
    recipe = resolve("syncdpo_ltx2").train
    return recipe.model_copy(
        update={
            "model": model(dtype="bfloat16"),
            "run_name": name,
            "split": "align",
            "negatives": RulePairSettings(rules=("shift", "replace", "scale"), on=cast(Any, on)),
            "max_steps": 2,
            "gradient_accumulation_steps": 2,
            "learning_rate": 1e-2,
            "warmup_steps": 0,
            "lora": LoraSettings(r=2, lora_alpha=1.0),
            "merge_adapters": True,
            "num_eval_pairs": 1,
            "logging_steps": 1,
            "tensorboard": False,
        }
    )


def logged(result: TrainResult, key: str) -> list[float]:
    return [row[key] for row in read_metrics(result.folder) if key in row]


def test_from_videos_to_a_tuned_model_and_its_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = world_workspace(tmp_path)
    made = SampleSettings(model=model(), num_candidates=1, num_steps=2, guidance_scale=2.0, num_clips=3)
    assert sample(workspace, made).done == 3
    rows = workspace.rows(workspace.read(Candidate))
    assert {key: tuple(value.shape) for key, value in rows.items()} == {
        "video": (3, 5, 32, 8),
        "audio": (3, 28, 16),
    }

    result = train(workspace, settings("rules"))
    assert logged(result, "loss")[0] == pytest.approx(2 * math.log(2), abs=1e-3)
    assert result.steps == 2
    truths = {f.key for f in workspace.read(Feature) if f.key.startswith("truths/")}
    assert len(truths) == 1
    assert sum(f.key in truths for f in workspace.read(Feature)) == NUM_CLIPS

    adapters = load_file(result.folder / "adapter" / "adapter_model.safetensors")
    assert all("audio_to_video_attn" in key or "video_to_audio_attn" in key for key in adapters)
    base = model(dtype="bfloat16").load().network.state_dict()
    tuned = load_file(result.weights)
    moved = {key for key in base if not torch.equal(base[key], tuned[key])}
    assert moved
    assert all("_to_video_attn.to_" in key or "_to_audio_attn.to_" in key for key in moved)

    # the same settings again are the same run, and neither text encoder nor codecs are loaded for it
    monkeypatch.setattr(LTX2Parts, "_load", lambda self, name: pytest.fail(f"{name} was loaded"))
    again = train(workspace, settings("again"))
    assert logged(again, "loss") == logged(result, "loss")
    for key, value in load_file(again.weights).items():
        assert torch.equal(value, tuned[key])
    monkeypatch.undo()

    how = GenerateSettings(
        model=model(weights=str(result.weights)), prompt="a dog barks", num_steps=2, guidance_scale=2.0
    )
    (written,) = generate(None, tmp_path / "dog.wav", how)
    wave, rate = read_wave(written)
    assert (rate, len(wave)) == (24_000, 27_000)
    assert np.abs(wave).max() > 0.01


def test_the_recipe_leaves_adapters_alone(tmp_path: Path) -> None:
    """Merged at load they are the weights that a merged run exports; nothing as large as those is written."""
    assert not resolve("syncdpo_ltx2").train.merge_adapters
    workspace = world_workspace(tmp_path)
    whole = train(workspace, settings("whole"))
    alone = train(workspace, settings("alone").model_copy(update={"merge_adapters": False}))
    assert alone.weights == alone.folder / "adapter"
    assert not (alone.folder / "model.safetensors").exists()
    assert train(workspace, settings("alone").model_copy(update={"merge_adapters": False})) == alone
    tuned = cast(LTX2, with_weights(model(dtype="bfloat16"), alone.weights)).load()
    for key, value in load_file(whole.weights).items():
        assert torch.equal(tuned.network.state_dict()[key], value), key
    again = settings("again").model_copy(update={"model": tuned, "merge_adapters": False})
    with pytest.raises(ValueError, match="the model has adapters of its own"):
        train(workspace, again)


def test_weights_cut_over_two_processes(tmp_path: Path) -> None:
    """FSDP2 on blocks of bfloat16 weights with float32 adapters in them: one process's losses."""
    workspace = world_workspace(tmp_path)
    one = train(workspace, settings("one"))
    shares = {"gradient_accumulation_steps": 1, "shard_weights": True}
    code, said = _spawn(workspace, settings("two").model_copy(update=shares), *TWO_PROCESSES)
    assert code == 0, said
    two = workspace.run_folder("two")
    found = [row["loss"] for row in read_metrics(two) if "loss" in row]
    assert found == pytest.approx(logged(one, "loss"), abs=1e-5)
    mine, theirs = load_file(one.weights), load_file(two / "model.safetensors")
    for key, value in mine.items():
        torch.testing.assert_close(theirs[key].float(), value.float(), rtol=1e-2, atol=1e-3)
    assert (two / "adapter" / "adapter_config.json").exists()


def test_media_are_distorted_and_encoded_on_the_way(tmp_path: Path) -> None:
    workspace = world_workspace(tmp_path)
    result = train(workspace, settings("media", on="media"))
    assert logged(result, "loss")[0] == pytest.approx(2 * math.log(2), abs=1e-3)
    assert result.steps == 2


@pytest.mark.parametrize("name", ["syncdpo_ltx2", "syncdpo_ltx2-latents"])
def test_the_recipe_is_data(name: str, tmp_path: Path) -> None:
    recipe = resolve(name)
    path = tmp_path / "recipe.yaml"
    path.write_text(dump(recipe))
    assert resolve(str(path)) == recipe
    assert recipe.learns_from() == {"clips"}
    assert cast(plugins.Part, recipe.train.model).part_name() == "ltx2"
