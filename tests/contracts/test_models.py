"""Every model in the drawer: shapes, equivariance, direction of the velocity, codec bound, dtype.

A model whose weights are not in the package is tested on small random ones of its own architecture; what only
trained weights can show (direction, codec) is then left to its golden tests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from foleypref.flow.convention import interpolate, noise_like_rows
from foleypref.media.clip import write_video
from foleypref.models.backbones import Media, Model, build_model
from foleypref.models.tools import frozen_copy, sample_latents
from foleypref.published.places import MissingWeights
from foleypref.sample import SampleSettings
from foleypref.scoring.scorers._world import PICTURE
from foleypref.settings import parts as plugins
from tests.frieren_tiny import patch_frieren
from tests.ltx2_tiny import SETTINGS as LTX2_SETTINGS
from tests.ltx2_tiny import patch_ltx2
from tests.mmaudio_tiny import patch_mmaudio
from tests.world_items import world_items

STAND_INS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], dict[str, Any]]] = {
    "frieren": (patch_frieren, {}),
    "ltx2": (patch_ltx2, LTX2_SETTINGS),
    "mmaudio": (patch_mmaudio, {"variant": "small-16k", "duration": 1.0}),
}
"""Model -> what makes its networks small, and settings for the tests."""


@pytest.fixture(scope="module", params=plugins.names("models"))
def model(request: pytest.FixtureRequest):
    patch, settings = STAND_INS.get(request.param, (lambda _: None, {}))
    with pytest.MonkeyPatch.context() as monkeypatch:
        patch(monkeypatch)
        try:
            found = build_model(request.param, **settings).load()
        except MissingWeights as error:  # a small network that somebody has yet to train
            pytest.skip(str(error))
        yield found


@pytest.fixture
def trained(model: Model) -> None:
    if model.part_name() in STAND_INS:
        pytest.skip("random weights know no direction")


@pytest.fixture(scope="module")
def media(model: Model, tmp_path_factory: pytest.TempPathFactory) -> list[Media]:
    folder = tmp_path_factory.mktemp("videos")
    found = []
    for item in world_items()[:6]:
        path = write_video(folder / f"{item.candidate_id}.mp4", item.frames[PICTURE.key], PICTURE.fps)
        read = model.read(path, 0.0, item.prompt, audio=False)
        found.append(replace(read, wave=item.wave))
    return found


@pytest.fixture(scope="module")
def waves(model: Model, media):
    n = round(model.spec.clip_seconds * model.spec.sample_rate)
    return torch.from_numpy(np.stack([m.wave[:n] for m in media]))


@pytest.fixture(scope="module")
def x1(model: Model, media, waves):
    return model.encode_media([replace(m, wave=w) for m, w in zip(media, waves.numpy())])


@pytest.fixture(scope="module")
def conditions(model: Model, media):
    return model.condition(media)


def noise(model: Model, num: int):
    return noise_like_rows(model.spec.latents, list(range(num)))


def test_velocity_keeps_shape_dtype_and_device(model, conditions, media):
    x = noise(model, len(media))
    with torch.no_grad():
        v = model.velocity(x, torch.full((len(media),), 0.5), conditions)
    assert v.keys() == x.keys() == model.spec.latents.keys()
    for key in x:
        assert (v[key].shape, v[key].dtype, v[key].device) == (x[key].shape, x[key].dtype, x[key].device)


def test_permuting_the_batch_permutes_the_velocity(model, conditions, media):
    x, t = noise(model, len(media)), torch.linspace(0.1, 0.9, len(media))
    order = torch.randperm(len(media), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        v = model.velocity(x, t, conditions)
        w = model.velocity(
            {k: a[order] for k, a in x.items()}, t[order], {k: a[order] for k, a in conditions.items()}
        )
    for key in v:
        torch.testing.assert_close(w[key], v[key][order], rtol=1e-4, atol=1e-5)


def test_one_x_t_serves_every_group_of_conditions(model, conditions, media):
    x, t = noise(model, len(media)), torch.linspace(0.1, 0.9, len(media))
    null = model.null(conditions)
    with torch.no_grad():
        both = model.velocity(x, t, model.prepare({k: torch.cat([conditions[k], null[k]]) for k in null}))
        halves = [model.velocity(x, t, half) for half in (conditions, null)]
    for key in x:
        expected = torch.cat([half[key] for half in halves])
        torch.testing.assert_close(both[key], expected, rtol=1e-4, atol=1e-5)


def test_an_adaptive_solver_makes_a_row_whatever_its_batch(model, conditions):
    few = {key: value[:2] for key, value in conditions.items()}
    how = {"num_steps": 1, "guidance_scale": 1.0, "solver": "dopri5"}
    if model.times(1) is not None:  # steps of its own, which leave no room for adaptive ones
        with pytest.raises(ValueError, match="dopri5 takes equal steps"):
            sample_latents(model, few, [5, 6], **how)
        return
    with torch.no_grad():
        both = sample_latents(model, few, [5, 6], **how)
        alone = sample_latents(model, {key: value[1:2] for key, value in few.items()}, [6], **how)
    for key in both:
        assert torch.equal(both[key][1:], alone[key])


def test_velocity_points_from_noise_to_data(model, trained, conditions, waves, x1):
    x0 = noise(model, len(waves))
    with torch.no_grad():
        x_t = interpolate(x0, x1, torch.full((len(waves),), 0.5))
        v = model.velocity(x_t, torch.full((len(waves),), 0.5), conditions)
    for key in x1:
        cosine = torch.cosine_similarity(v[key].flatten(), (x1[key] - x0[key]).flatten(), dim=0)
        assert cosine > 0.5, f"{key}: velocity against x1 - x0 has cosine {cosine:.2f}"


def test_null_has_the_shapes_of_conditions_and_forgets_what_guidance_strengthens(model, conditions):
    """Whatever the conditions say, null says one thing; only a scene may stay just as it is."""
    null = model.null(conditions)
    shuffled = model.null({k: v.flip(0) + 1 for k, v in conditions.items()})
    assert {k: v.shape for k, v in null.items()} == {k: v.shape for k, v in conditions.items()}
    kept = {"scene"} if "scene" in null and torch.equal(null["scene"], conditions["scene"]) else set()
    assert null.keys() - kept
    for key in null.keys() - kept:
        torch.testing.assert_close(null[key], shuffled[key])


def test_conditions_matter(model, conditions, media):
    x, t = noise(model, len(media)), torch.full((len(media),), 0.3)
    with torch.no_grad():
        a = model.velocity(x, t, conditions)
        b = model.velocity(x, t, {k: v.flip(0) for k, v in conditions.items()})
    assert any(not torch.allclose(a[key], b[key], atol=1e-3) for key in a)


def test_decode_of_encode_has_the_length(model, waves, x1):
    assert {k: v.shape[1:] for k, v in x1.items()} == model.spec.latents
    assert torch.equal(x1["audio"], model.encode(waves)["audio"])
    rebuilt = model.decode(x1)
    assert rebuilt.abs().max() <= 1
    assert 0 <= rebuilt.shape[1] - waves.shape[1] < model.spec.sample_rate / 10  # whole latent frames


def test_decode_of_encode_keeps_the_spectrum(model, trained, waves):
    rebuilt = model.decode(model.encode(waves))
    window = torch.hann_window(512)

    def level(wave):
        spectrum = torch.stft(wave, 512, 160, window=window, return_complex=True).abs()
        return 20 * torch.log10(
            spectrum.unflatten(1, (257, 1))[:, 1:].squeeze(2).unfold(1, 16, 16).mean(-1) + 1e-2
        )

    assert (level(rebuilt) - level(waves)).abs().mean() < 3.0  # dB over 16-bin bands


def test_sampling_is_a_function_of_the_seed_alone(model, conditions):
    two = {k: v[:2] for k, v in conditions.items()}
    one = {k: v[1:2] for k, v in conditions.items()}
    with torch.inference_mode():
        a = sample_latents(model, two, [5, 6], num_steps=3, guidance_scale=2.0)
        b = sample_latents(model, one, [6], num_steps=3, guidance_scale=2.0)
    for key in a:
        torch.testing.assert_close(a[key][1:], b[key], rtol=1e-4, atol=1e-4)
        assert not torch.allclose(a[key][0], a[key][1])


def test_preparing_conditions_changes_no_velocity(model, conditions, media):
    x, t = noise(model, len(media)), torch.full((len(media),), 0.5)
    with torch.no_grad():
        a, b = model.velocity(x, t, conditions), model.velocity(x, t, model.prepare(conditions))
    for key in a:
        torch.testing.assert_close(a[key], b[key])


def test_missing_picture_and_prompt_are_the_null(model):
    nothing = model.condition([Media()])
    for key, value in model.null(nothing).items():
        torch.testing.assert_close(value, nothing[key])


def test_guidance_one_is_the_plain_flow(model, conditions):
    few = {k: v[:2] for k, v in conditions.items()}
    with torch.inference_mode():
        plain = sample_latents(model, few, [1, 2], num_steps=2, guidance_scale=1.0)
        near = sample_latents(model, few, [1, 2], num_steps=2, guidance_scale=1.0 + 1e-6)
    for key in plain:
        torch.testing.assert_close(plain[key], near[key], rtol=1e-3, atol=1e-3)


def test_exported_weights_load_again(model, conditions, tmp_path):
    path = tmp_path / "tuned.safetensors"
    model.export(str(path))
    again = model.with_settings(weights=str(path)).load()
    x, t = noise(model, 2), torch.full((2,), 0.5)
    few = {k: v[:2] for k, v in conditions.items()}
    with torch.no_grad():
        a, b = model.velocity(x, t, few), again.velocity(x, t, few)
    for key in a:
        torch.testing.assert_close(a[key], b[key])


def test_a_tuned_model_finds_the_encoded_clips_of_its_base(model, tmp_path):
    if model.fingerprint in model.latent_key:
        pytest.skip("the key names all weights: right, but of use to no other tuning")
    tuned, path = frozen_copy(model), tmp_path / "tuned.safetensors"
    with torch.no_grad():
        next(tuned.network.parameters()).add_(0.1)
    tuned.export(str(path))
    again = model.with_settings(weights=str(path)).load()
    assert again.fingerprint != model.fingerprint
    assert again.latent_key == model.latent_key


def test_only_models_are_taken_for_one():
    objective = "foleypref.training.objectives.sft:SFT"
    with pytest.raises(ValueError, match="does not subclass Model"):
        build_model(objective)
    with pytest.raises(ValueError, match="instance of Model"):
        SampleSettings(model=objective)


def test_a_model_must_write_the_whole_contract():
    class Silent(Model):
        notice = ""
        lora_targets = ""

    with pytest.raises(TypeError, match=r"abstract methods.*velocity"):
        Silent()
