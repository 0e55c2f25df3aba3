"""Frieren's files, small ones: read by role from Lightning checkpoints, refused if not it, written back."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from foleypref.networks.frieren import Frieren
from foleypref.published import frieren_parts, identify
from foleypref.published.frieren_parts import MODELS, OF_TRAINING, FrierenParts, by_role, lightning_layout
from foleypref.published.mmaudio_audio import SIZES
from foleypref.published.registry import files_for
from tests.frieren_tiny import NETWORK, VOCODER, tiny_cavp, tiny_vae, vocoder_state
from tests.golden.check_frieren import network_of
from tests.golden.check_frieren_parts import filled

GOLDEN = Path(__file__).parents[1] / "golden"
CPU = torch.device("cpu")
TABLES = (
    "betas",
    "alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "posterior_mean_coef1",
)


def on_meta(build: Callable[[], Any]) -> Callable[[], Any]:
    """`build` without memory."""

    def empty() -> Any:
        with torch.device("meta"):
            return build()

    return empty


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A weights folder with every file of `frieren-base`, small."""
    monkeypatch.setattr(frieren_parts, "empty_network", on_meta(lambda: Frieren(**NETWORK)))
    monkeypatch.setattr(frieren_parts, "empty_vae", on_meta(tiny_vae))
    monkeypatch.setattr(frieren_parts, "empty_cavp", on_meta(tiny_cavp))
    monkeypatch.setitem(SIZES, 16000, VOCODER)
    monkeypatch.setitem(identify.VOCODERS, (64, 80, 8), "16k")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    path = tmp_path / "weights"
    path.mkdir()
    write_lightning(path / "frieren-noreflow.ckpt", checkpoint_state())
    cavp = {f"module.{name}": value for name, value in filled(tiny_cavp(), "b").state_dict().items()}
    cavp |= {"module.spec_encoder.fc1.bias": torch.zeros(2), "module.logit_scale": torch.zeros(())}
    torch.save({"state_dict": cavp}, path / "cavp_epoch66.ckpt")
    torch.save({"generator": vocoder_state()}, path / "best_netG.pt")  # by MMAudio's name
    return path


def checkpoint_state(rule: str = "b") -> dict[str, Tensor]:
    """A whole small checkpoint, in upstream's order."""
    state: dict[str, Tensor] = {name: torch.linspace(0, 1, 7) for name in TABLES}
    state |= network_of(NETWORK, rule).state_dict()
    return state | {f"first_stage_model.{name}": value for name, value in vae_state().items()}


def vae_state() -> dict[str, Tensor]:
    """The small autoencoder's tensors."""
    state: dict[str, Tensor] = filled(tiny_vae(), "b").state_dict()
    return state


def write_lightning(path: Path, state: dict[str, Tensor]) -> None:
    """What Lightning 1.4 writes: callbacks under class objects of a library that is not here to read them."""
    name = "pytorch_lightning.callbacks.model_checkpoint"
    callback = type("ModelCheckpoint", (), {"__module__": name})
    modules = {
        part: types.ModuleType(part) for part in ("pytorch_lightning", "pytorch_lightning.callbacks", name)
    }
    modules[name].ModelCheckpoint = callback  # type: ignore[attr-defined]
    whole = {
        "epoch": 12,
        "global_step": 345_678,
        "pytorch-lightning_version": "1.4.2",
        "state_dict": state,
        "callbacks": {callback: {"best_model_score": torch.tensor(0.5), "dirpath": "somewhere"}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 5e-5}]}],
        "lr_schedulers": [{"base_lrs": [5e-5], "last_epoch": 3}],
        "hparams_name": "kwargs",
        "hyper_parameters": {
            "timesteps": 1000,
            "scale_factor": 0.18215,
            "cond": {"fps": 4, "mean": torch.ones(2)},
        },
    }
    with pytest.MonkeyPatch.context() as patch:
        for part, module in modules.items():
            patch.setitem(sys.modules, part, module)
        torch.save(whole, path)


def parts(folder: Path, weights: Path | None = None, variant: str = "base") -> FrierenParts:
    """Parts of a variant from a folder."""
    return FrierenParts(variant, str(weights or ""), str(folder), CPU)


def tuned(loaded: FrierenParts) -> Frieren:
    """The network, moved a little."""
    network = loaded.load_network(torch.float32)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.01)
    return network


# -- reading ------------------------------------------------------------------------------------------------


def test_network_codec_and_cavp_come_out_of_their_files(folder: Path) -> None:
    loaded = parts(folder)
    network = loaded.load_network(torch.float32)
    expected = network_of(NETWORK, "b").state_dict()
    assert network.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())
    assert all(p.requires_grad and p.is_leaf for p in network.parameters())
    vae = vae_state()
    assert all(torch.equal(value, vae[name]) for name, value in loaded.codec.vae.state_dict().items())
    assert not any(p.requires_grad for p in (*loaded.codec.parameters(), *loaded.cavp.parameters()))
    assert not any(module.training for module in (*loaded.codec.modules(), *loaded.cavp.modules()))
    frames = torch.randint(0, 255, (3, 32, 32, 3), dtype=torch.uint8)
    found = loaded.cavp_features(frames.numpy())
    torch.testing.assert_close(found, loaded.cavp.features(frames.movedim(-1, 1) / 255))


def test_training_changes_nothing_that_was_read(folder: Path) -> None:
    loaded = parts(folder)
    tuned(loaded)
    for again in (loaded, parts(folder)):
        found = next(iter(again.load_network(torch.float32).parameters()))
        assert torch.equal(found, next(iter(network_of(NETWORK, "b").parameters())))


def test_weights_in_half_precision_are_asked_for(folder: Path) -> None:
    assert parts(folder).load_network(torch.bfloat16).dtype == torch.bfloat16


def test_variants_are_one_network_in_three_files() -> None:
    assert set(MODELS) == {"base", "reflow", "distilled"}
    files = [files_for(name) for name in MODELS.values()]
    assert len({network.name for network, *_ in files}) == 3
    assert len({tuple(rest) for _, *rest in files}) == 1
    assert {network.role.split(",")[0] for network, *_ in files} == {"Frieren"}


def test_tables_are_left_silently_and_unknown_tensors_are_named(folder: Path) -> None:
    state = checkpoint_state()
    assert by_role(state).unknown == []
    extra = {"model_ema.a": torch.zeros(1), "other.b": torch.zeros(1)}
    write_lightning(folder / "frieren-noreflow.ckpt", state | extra)
    warning = r"noreflow\.ckpt: 2 tensors have no use here, left out: model_ema, other"
    with pytest.warns(UserWarning, match=warning):
        parts(folder).load_network(torch.float32)
    cavp = filled(tiny_cavp(), "b").state_dict() | {"video_pool.weight": torch.zeros(1)}
    torch.save({"state_dict": cavp}, folder / "cavp_epoch66.ckpt")
    with pytest.warns(UserWarning, match=r"cavp_epoch66\.ckpt: 1 tensors .* left out: video_pool"):
        _ = parts(folder).cavp


@pytest.mark.parametrize("part", ["model.diffusion_model.x_proj.bias", "cond_stage_model.embedder.0.weight"])
def test_a_tensor_that_is_missing_or_of_another_shape_is_named(folder: Path, part: str) -> None:
    state = checkpoint_state()
    wrong = dict(state)
    wrong[part] = torch.zeros(5)
    write_lightning(folder / "frieren-noreflow.ckpt", wrong)
    with pytest.raises(
        ValueError, match=rf"not the weights of Frieren's network.* 1 problems, first {part} is \(5,\)"
    ):
        parts(folder).load_network(torch.float32)
    del wrong[part]
    write_lightning(folder / "frieren-noreflow.ckpt", wrong)
    with pytest.raises(ValueError, match=rf"first missing {part}; give a released checkpoint"):
        parts(folder).load_network(torch.float32)


def test_a_file_of_another_model_is_refused_by_its_content(folder: Path) -> None:
    with pytest.raises(ValueError, match="expected Frieren, found CAVP"):
        parts(folder, folder / "cavp_epoch66.ckpt").load_network(torch.float32)
    write_lightning(
        folder / "other.ckpt",
        {
            "model.diffusion_model.input_blocks.0.weight": torch.zeros(2),
            "first_stage_model.x": torch.zeros(1),
        },
    )
    with pytest.raises(ValueError, match=r"not the weights of Frieren's network, .*other\.ckpt"):
        parts(folder, folder / "other.ckpt").load_network(torch.float32)


def test_the_released_layout_reads_and_keeps_its_entries() -> None:
    whole = lightning_layout(GOLDEN / "frieren_pl14_layout.ckpt")
    assert (whole["epoch"], whole["global_step"], whole["pytorch-lightning_version"]) == (12, 345678, "1.4.2")
    assert {key: whole[key] for key in OF_TRAINING} == OF_TRAINING
    found = by_role(whole["state_dict"])
    assert len(found.network) == 4
    assert set(found.vae) == {"quant_conv.weight"}


# -- the autoencoder's places -------------------------------------------------------------------------------


def test_tuned_weights_alone_take_the_autoencoder_of_the_release_or_its_own_file(folder: Path) -> None:
    loaded = parts(folder)
    loaded.export_network(tuned(loaded), folder / "tuned.safetensors")
    again = parts(folder, folder / "tuned.safetensors")
    again.load_network(torch.float32)
    first = again.network_hashes("")
    assert torch.equal(again.codec.vae.quant_conv.bias, vae_state()["quant_conv.bias"])  # type: ignore[arg-type]
    for path in folder.glob("frieren-noreflow.ckpt*"):
        path.unlink()
    with pytest.raises(ValueError, match=r"frieren-noreflow\.ckpt .*is missing"):
        _ = parts(folder, folder / "tuned.safetensors").codec
    other = vae_state() | {"loss.logvar": torch.zeros(()), "quant_conv.bias": torch.full((40,), 0.5)}
    torch.save({"state_dict": other}, folder / "epoch=000032.ckpt")
    again = parts(folder, folder / "tuned.safetensors")
    assert float(again.codec.vae.quant_conv.bias[0]) == 0.5  # type: ignore[index]
    assert again.network_hashes("") != first


def test_a_whole_tuned_checkpoint_brings_its_own(folder: Path) -> None:
    state = checkpoint_state()
    state["first_stage_model.quant_conv.bias"] = torch.full((40,), 0.25)
    write_lightning(folder / "mine.ckpt", state)
    for path in folder.glob("frieren-noreflow.ckpt*"):
        path.unlink()
    loaded = parts(folder, folder / "mine.ckpt")
    loaded.load_network(torch.float32)
    assert float(loaded.codec.vae.quant_conv.bias[0]) == 0.25  # type: ignore[index]
    loaded.export_network(tuned(loaded), folder / "again.ckpt")
    written = torch.load(folder / "again.ckpt", weights_only=True)
    assert float(written["state_dict"]["first_stage_model.quant_conv.bias"][0]) == 0.25


def test_the_fingerprint_hears_every_file_that_shapes_the_sound(folder: Path) -> None:
    prints = {parts(folder).network_hashes("")}
    vocoder = vocoder_state()
    vocoder["conv_pre.bias"] = vocoder["conv_pre.bias"] + 1
    torch.save({"generator": vocoder}, folder / "best_netG.pt")
    prints.add(parts(folder).network_hashes(""))
    write_lightning(folder / "frieren-noreflow.ckpt", checkpoint_state("a"))
    prints.add(parts(folder).network_hashes(""))
    assert len(prints) == 3
    seen = parts(folder).cavp_hash()
    torch.save({"state_dict": filled(tiny_cavp(), "a").state_dict()}, folder / "cavp_epoch66.ckpt")
    assert parts(folder).cavp_hash() != seen
    with pytest.raises(ValueError, match=r"adapter_model\.safetensors does not exist"):
        parts(folder).network_hashes(str(folder / "none"))


# -- writing ------------------------------------------------------------------------------------------------


def test_an_exported_checkpoint_is_the_released_one_with_other_weights(folder: Path) -> None:
    loaded = parts(folder)
    network = tuned(loaded)
    loaded.export_network(network, folder / "out" / "tuned.ckpt")
    written = torch.load(folder / "out" / "tuned.ckpt", weights_only=True)  # nothing in it needs a library
    original, state = checkpoint_state(), written.pop("state_dict")
    assert list(state) == list(original)
    moved = network.state_dict()
    for name, value in state.items():
        assert torch.equal(value, moved.get(name, original[name])), name
        assert value.dtype == original[name].dtype
        assert value.is_contiguous()
    assert sum(not torch.equal(state[name], original[name]) for name in state) == len(moved)
    assert written.pop("hyper_parameters")["cond"]["mean"].tolist() == [1.0, 1.0]
    assert written == {
        "epoch": 12, "global_step": 345_678, "pytorch-lightning_version": "1.4.2", "hparams_name": "kwargs",
        **OF_TRAINING,
    }  # fmt: skip
    again = parts(folder, folder / "out" / "tuned.ckpt").load_network(torch.float32)
    assert all(torch.equal(value, moved[name]) for name, value in again.state_dict().items())
    assert [path.name for path in (folder / "out").iterdir()] == ["tuned.ckpt"]


def test_the_conversion_serves_where_the_original_is_gone(folder: Path) -> None:
    loaded = parts(folder)
    network = tuned(loaded)  # made the conversion
    (folder / "frieren-noreflow.ckpt").unlink()
    loaded = parts(folder)
    loaded.load_network(torch.float32)
    loaded.export_network(network, folder / "tuned.ckpt")
    written = torch.load(folder / "tuned.ckpt", weights_only=True)
    assert set(written) == {"state_dict"}
    assert written["state_dict"].keys() == checkpoint_state().keys()


def test_exported_safetensors_hold_the_network_alone_in_float32(folder: Path) -> None:
    loaded = parts(folder)
    rough = tuned(loaded).to(torch.bfloat16)
    loaded.export_network(rough, folder / "tuned.safetensors")
    stored = load_file(folder / "tuned.safetensors")
    assert stored.keys() == rough.state_dict().keys()
    assert {value.dtype for value in stored.values()} == {torch.float32}
    again = parts(folder, folder / "tuned.safetensors").load_network(torch.float32)
    assert all(torch.equal(value, stored[name]) for name, value in again.state_dict().items())


def test_adapters_are_merged_at_load(folder: Path) -> None:
    pytest.importorskip("peft")
    from foleypref.models.backbones.frieren import Frieren as Model
    from foleypref.models.lora import (
        LoraSettings,
        add_adapters,
        merged,
        merging,
        save_adapters,
        trained_state,
    )

    adapted = add_adapters(
        parts(folder).load_network(torch.float32), LoraSettings(r=2), Model.lora_targets, 0
    )
    with torch.no_grad():
        for name, value in trained_state(adapted).items():
            if "lora_B" in name:
                value.fill_(0.1)
    save_adapters(adapted, folder / "adapter")
    found = parts(folder).load_network(torch.float32, merging(str(folder / "adapter"))).state_dict()
    for name, value in merged(adapted).state_dict().items():
        torch.testing.assert_close(found[name], value)
    assert parts(folder).network_hashes(str(folder / "adapter")) != parts(folder).network_hashes("")


def test_a_bare_state_dict_has_a_layout_too(tmp_path: Path) -> None:
    state = {"model.diffusion_model.x_proj.bias": torch.ones(2)}
    save_file(state, tmp_path / "bare.safetensors")
    torch.save(state, tmp_path / "bare.pth")
    for name in ("bare.safetensors", "bare.pth"):
        whole = lightning_layout(tmp_path / name)
        assert set(whole) == {"state_dict"}
        assert torch.equal(whole["state_dict"]["model.diffusion_model.x_proj.bias"], torch.ones(2))
