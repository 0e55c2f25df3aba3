"""LoRA runs: ln 2 at the start, resume to the bit, adapters that peft itself loads and merges."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file

from foleypref.models.lora import LoraSettings, WithoutAdapters, add_adapters, merged, trained_state
from foleypref.models.tools import fingerprint_of
from foleypref.train import train
from foleypref.training.log import read_metrics
from foleypref.workspace.store import Workspace
from tests.test_train import _spawn, make_settings, metrics_without_time, train_elsewhere
from tests.tiny import TinyModel

pytest.importorskip("peft")
LORA = {"use_peft": True, "lora": LoraSettings(r=4, lora_alpha=8.0)}


def _inputs() -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        {"audio": torch.randn(5, 6, 4, generator=generator)},
        torch.rand(5, generator=generator),
        torch.randn(5, 3, generator=generator),
    )


def test_a_run_starts_at_ln_2_learns_and_leaves_the_base_alone(filled: Workspace) -> None:
    result = train(filled, make_settings(max_steps=60, learning_rate=2e-3, **LORA))
    lines = read_metrics(result.folder)
    assert lines[0]["eval/loss"] == pytest.approx(0.693147, abs=1e-6)
    assert result.logs["eval/loss"] < 0.5
    base, tuned = TinyModel().load().network.state_dict(), load_file(result.weights)
    assert set(tuned) == set(base)
    for key, value in base.items():
        difference = tuned[key] - value
        if key.endswith("weight"):
            assert 0 < torch.linalg.matrix_rank(difference, atol=1e-5) <= 4
        else:
            assert not difference.any()  # biases are not adapted


def test_peft_loads_the_adapters_and_gets_the_merged_weights(filled: Workspace) -> None:
    from peft import PeftModel

    result = train(filled, make_settings(**LORA))
    network = TinyModel().load().network
    loaded = PeftModel.from_pretrained(cast(Any, network), str(result.folder / "adapter"))
    tuned = TinyModel(weights=str(result.weights)).load().network
    assert torch.allclose(loaded(*_inputs())["audio"], tuned(*_inputs())["audio"], atol=1e-6)
    whole = merged(loaded).state_dict()
    for key, value in tuned.state_dict().items():
        assert torch.allclose(whole[key], value, atol=1e-6)


def test_checkpoints_hold_the_adapters_alone(filled: Workspace) -> None:
    result = train(filled, make_settings(**LORA))
    stored = load_file(result.folder / "checkpoint-12" / "network.safetensors")
    assert stored
    assert all("lora_" in key for key in stored)


def test_a_killed_run_goes_on_to_the_same_bits(filled: Workspace, tmp_path: Path) -> None:
    settings = make_settings(**LORA)
    assert _spawn(filled, settings, KILL_AT_STEP="10")[0] == -9
    resumed = train(filled, settings)
    unbroken = train_elsewhere(tmp_path, settings)
    assert resumed.weights.read_bytes() == unbroken.weights.read_bytes()
    assert metrics_without_time(resumed.folder) == metrics_without_time(unbroken.folder)


def test_the_reference_is_the_network_without_its_adapters() -> None:
    base = TinyModel().load().network
    before, said = fingerprint_of(base), base(*_inputs())["audio"]
    adapted = add_adapters(base, LoraSettings(), "all-linear", seed=0)
    reference = WithoutAdapters(adapted)
    assert torch.equal(adapted(*_inputs())["audio"], said)  # B is zero
    with torch.no_grad():
        for key, value in trained_state(adapted).items():
            if "lora_B" in key:
                value.add_(1.0)
    assert not torch.allclose(adapted(*_inputs())["audio"], said)
    assert torch.equal(reference(*_inputs())["audio"], said)
    assert fingerprint_of(reference) == before
    assert not list(reference.parameters())


def test_the_seed_draws_the_adapters() -> None:
    states = [
        trained_state(add_adapters(TinyModel().load().network, LoraSettings(), "all-linear", seed))
        for seed in (0, 0, 1)
    ]
    key = next(key for key in states[0] if "lora_A" in key)
    assert torch.equal(states[0][key], states[1][key])
    assert not torch.equal(states[0][key], states[2][key])


def test_adapters_alone_want_a_model_that_takes_them(filled: Workspace) -> None:
    with pytest.raises(ValueError, match="TinyModel takes none; leave it on"):
        train(filled, make_settings(use_peft=True, merge_adapters=False))


def test_targets_that_match_nothing_are_refused(filled: Workspace) -> None:
    settings = make_settings(use_peft=True, lora=LoraSettings(target_modules="nothing"))
    with pytest.raises(ValueError, match=r"lora\.target_modules 'nothing'"):
        train(filled, settings)
