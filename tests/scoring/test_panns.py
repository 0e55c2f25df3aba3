"""PANNs: golden vectors, the benchmarks' loader, closed forms of scores, files that do not fit, traps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from foleypref.evaluation.metrics.inception import inception_score
from foleypref.evaluation.metrics.kl import kl_divergence
from foleypref.networks.panns import NUM_CLASSES, SIZES, Cnn14, LogMel
from foleypref.networks.winograd import WinogradConv
from foleypref.published.taggers import benchmark_wave, build_panns, load_panns, tag
from foleypref.scoring.scorers import ScoreItem
from foleypref.scoring.scorers.panns import NO_MARGINAL, Panns, freeze_marginal, marginal_path, read_marginal
from foleypref.settings import parts as plugins
from foleypref.workspace.records import Score
from tests.golden import check_taggers as checks
from tests.golden import recipes
from tests.golden.compare import LIMIT, relative_error
from tests.judged import judged, scores_of

GOLDEN = Path(__file__).parents[1] / "golden"


def assert_agrees(name: str) -> None:
    compared = checks.CHECKS[name](GOLDEN / name)
    errors = {key: relative_error(ours, expected) for key, ours, expected in compared}
    assert errors
    assert max(errors.values()) <= LIMIT, errors


def zeros_file(path: Path, network: torch.nn.Module, **filled: Tensor) -> Path:
    """A file of weights in the official wrapper, a few kilobytes: all zero but `filled` (dots as __)."""
    state = {key: torch.zeros((), dtype=v.dtype).expand(v.shape) for key, v in network.state_dict().items()}
    state |= {key.replace("__", "."): value for key, value in filled.items()}
    torch.save({"model": state, "iteration": 7}, path)
    return path


def item(
    wave: np.ndarray, sample_rate: int = 16000, name: str = "a", seconds: float | None = None
) -> ScoreItem:
    channels = wave if wave.ndim == 2 else None
    mono = wave.mean(0) if wave.ndim == 2 else wave
    return ScoreItem(name, mono, sample_rate, channels=channels, seconds=seconds)


def noise(seconds: float, sample_rate: int = 16000, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return (0.1 * generator.standard_normal(int(seconds * sample_rate))).astype(np.float32)


def values(scores: list[Score]) -> dict[tuple[str, str], float | None]:
    return {(score.candidate_id, score.dimension): score.value for score in scores}


# -- golden vectors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["scorers_panns_keys.json", "scorers_frontends.safetensors"])
def test_golden_numbers(name: str) -> None:
    assert_agrees(name)


@pytest.fixture(scope="module")
def network() -> Cnn14:
    return build_panns(checks.panns_state("16k", "B"), "16k")


def test_golden_logits_and_features(network: Cnn14) -> None:
    golden = load_file(GOLDEN / "scorers_panns.safetensors")
    about = checks.companion(GOLDEN / "scorers_panns.safetensors")
    tags = tag(network, list(checks.waves(about["16k_input"])))
    assert relative_error(tags.logits, golden["16k_B_logits"]) <= LIMIT
    assert relative_error(tags.features, golden["16k_B_2048"]) <= LIMIT
    assert not ((tags.logits >= 0) & (tags.logits <= 1)).all()  # logits, no probabilities
    assert (tags.features >= 0).all()


def test_golden_numbers_of_the_network_that_is_made_for_speed() -> None:
    golden = load_file(GOLDEN / "scorers_panns.safetensors")
    about = checks.companion(GOLDEN / "scorers_panns.safetensors")
    fast = build_panns(checks.panns_state("16k", "B"), "16k").speed_up("cpu")
    tags = tag(fast, list(checks.waves(about["16k_input"])))
    assert relative_error(tags.logits, golden["16k_B_logits"]) <= LIMIT
    assert relative_error(tags.features, golden["16k_B_2048"]) <= LIMIT
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in fast.conv_block4.modules())
    assert isinstance(fast.get_submodule("conv_block4.conv1"), WinogradConv)


@pytest.mark.slow
def test_golden_numbers_of_both_variants_under_both_rules() -> None:
    assert_agrees("scorers_panns.safetensors")


def test_the_golden_check_fails_for_another_network(tmp_path: Path) -> None:
    golden = load_file(GOLDEN / "scorers_frontends.safetensors")
    golden["panns_logmel_32k_mean"] = golden["panns_logmel_32k_mean"] * 1.0001
    save_file(golden, tmp_path / "scorers_frontends.safetensors")
    (tmp_path / "scorers_frontends.json").write_bytes((GOLDEN / "scorers_frontends.json").read_bytes())
    compared = list(checks.frontends(tmp_path / "scorers_frontends.safetensors"))
    assert [key for key, a, b in compared if relative_error(a, b) > LIMIT] == ["panns_logmel_32k_mean"]
    save_file(golden | {"panns_extra": torch.ones(1)}, tmp_path / "scorers_frontends.safetensors")
    with pytest.raises(AssertionError, match="panns_extra"):
        list(checks.frontends(tmp_path / "scorers_frontends.safetensors"))


# -- how the benchmarks read sound -----------------------------------------------------------------------


def test_the_mean_is_of_all_channels_and_of_the_whole_file() -> None:
    step = np.ones((1, 32000), np.float32)
    step[:, 16000:] = -1  # a file mean of 0; the mean of the evaluated part would be 1
    assert torch.equal(benchmark_wave(step, 16000, 16000, 1.0), torch.ones(16000))
    assert torch.equal(benchmark_wave(step + 3, 16000, 16000, 1.0), torch.ones(16000))
    both = np.stack([noise(1), -noise(1)])
    assert benchmark_wave(both, 16000, 32000).abs().max() < 1e-7
    three = np.stack([noise(1), noise(1), 0 * noise(1)])
    torch.testing.assert_close(
        benchmark_wave(three, 16000, 16000), benchmark_wave(two_thirds(), 16000, 16000)
    )


def two_thirds() -> np.ndarray:
    return noise(1)[None] * np.float32(2 / 3)


def test_sound_is_cut_and_never_padded() -> None:
    sound = torch.from_numpy(noise(9, 44100))[None]
    assert len(benchmark_wave(sound, 44100, 16000, 8.0)) == 128000
    assert len(benchmark_wave(sound, 44100, 16000, 1.0001)) == 16001  # of 16001.6, as the benchmark
    assert len(benchmark_wave(sound[:, :44100], 44100, 32000, 8.0)) == 32000
    assert len(benchmark_wave(sound, 44100, 48000)) == 432000
    assert len(benchmark_wave(sound[:, :0], 44100, 16000, 8.0)) == 0
    torch.testing.assert_close(
        benchmark_wave(sound, 44100, 16000, 2.0), benchmark_wave(sound, 44100, 16000)[:32000]
    )


# -- the network -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["16k", "32k"])
def test_front_end_window_is_periodic_and_silence_is_at_the_floor(variant: str) -> None:
    sizes = SIZES[variant]
    front = LogMel(sizes)
    torch.testing.assert_close(front(torch.zeros(1, sizes.n_fft)), torch.full((1, 4, 64), -100.0))
    for shift in (0, 20 - sizes.n_fft // 2):  # an impulse has the window's square in every bin
        impulse = torch.zeros(1, 8 * sizes.n_fft)
        at = sizes.hop * 8
        impulse[0, at + shift] = 1
        weight = math.sin(math.pi * (sizes.n_fft // 2 + shift) / sizes.n_fft) ** 2
        expected = 10 * (weight**2 * front.melW.sum(0)).clamp(min=1e-10).log10()
        torch.testing.assert_close(front(impulse)[0, 8], expected, rtol=0, atol=1e-3)


def test_a_sound_is_tagged_alone_as_in_a_batch_of_other_lengths(network: Cnn14) -> None:
    waves = [torch.from_numpy(noise(s, seed=i)) for i, s in enumerate((1.0, 0.5, 1.0, 0.31, 0.3, 0.0, 1.0))]
    tags = tag(network, waves, at_once=2)
    for row, wave in enumerate(waves):
        alone = tag(network, [wave])
        torch.testing.assert_close(tags.logits[row], alone.logits[0], rtol=1e-4, atol=1e-4, equal_nan=True)
        torch.testing.assert_close(
            tags.features[row], alone.features[0], rtol=1e-4, atol=1e-4, equal_nan=True
        )
    assert tags.logits.isnan().any(1).tolist() == [False, False, False, False, True, True, False]
    assert tags.features.isnan().all(1).tolist() == [False, False, False, False, True, True, False]
    assert not torch.allclose(tags.logits[0], tags.logits[2], atol=0.01)  # it hears something


def test_too_short_a_sound_is_refused(network: Cnn14) -> None:
    assert network.min_samples == 4960
    network(torch.zeros(1, 4960))
    with pytest.raises(ValueError, match=r"4959 samples at 16000 Hz are too few.*give 4960 or more"):
        network(torch.zeros(1, 4959))


# -- weights ---------------------------------------------------------------------------------------------


def shapes(variant: str) -> Cnn14:
    with torch.device("meta"):
        return Cnn14(variant)  # type: ignore[arg-type]


@pytest.mark.parametrize("variant", ["16k", "32k"])
def test_the_official_wrapper_and_its_fixed_tensors_are_read(tmp_path: Path, variant: str) -> None:
    path = zeros_file(tmp_path / "a.pth", shapes(variant))
    stored = torch.load(path, weights_only=True)
    stored["model"] |= checks.stft_kernels(variant)  # type: ignore[arg-type]
    stored["model"]["logmel_extractor.melW"] = torch.full(stored["model"]["logmel_extractor.melW"].shape, 0.5)
    stored["model"]["fc1.bias"] = torch.zeros(2048).half()
    torch.save(stored, path)
    network = load_panns(variant, weights=str(path))  # type: ignore[arg-type]
    assert not network.training
    assert network.sizes == SIZES[variant]
    assert (network.logmel_extractor.melW == 0.5).all()  # the file's filters count
    assert all(p.dtype == torch.float32 and not p.requires_grad for p in network.parameters())


def test_files_that_do_not_fit_are_told(tmp_path: Path) -> None:
    path = zeros_file(tmp_path / "a.pth", shapes("32k"))
    with pytest.raises(ValueError, match="expected PANNs Cnn14 16k, found PANNs Cnn14 32k"):
        load_panns("16k", weights=str(path))
    with pytest.raises(ValueError, match=r"Cnn14_mAP=0\.431\.pth .* is missing"):
        load_panns("32k", folder=tmp_path / "empty")
    state = torch.load(zeros_file(path, shapes("16k")), weights_only=True)["model"]
    without = {key: value for key, value in state.items() if key != "bn0.weight"}
    with pytest.raises(ValueError, match=r"missing bn0\.weight.*give Cnn14_16k_mAP=0\.438\.pth"):
        build_panns(without)
    with pytest.raises(ValueError, match=r"unexpected fc2\.bias"):
        build_panns(state | {"fc2.bias": torch.zeros(3)})


def test_a_file_behind_another_window_is_refused() -> None:
    state = {
        key: torch.zeros((), dtype=v.dtype).expand(v.shape) for key, v in shapes("16k").state_dict().items()
    }
    kernels = checks.stft_kernels("16k")
    build_panns(state | kernels)
    real = "spectrogram_extractor.stft.conv_real.weight"
    for window in (torch.hamming_window(512), torch.hann_window(512, periodic=False), torch.ones(512)):
        wrong = kernels | {real: window.expand(257, 1, 512)}
        with pytest.raises(ValueError, match="not under a periodic Hann window of 512 samples"):
            build_panns(state | wrong)


# -- the scorer ------------------------------------------------------------------------------------------

BIAS = 3 * torch.randn(NUM_CLASSES, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A network that says BIAS of every sound."""
    return zeros_file(tmp_path / "cnn14.pth", shapes("16k"), fc_audioset__bias=BIAS)


def loaded(weights: Path, **settings: str) -> Panns:
    return Panns(weights=str(weights), weights_folder=str(weights.parent), **settings).load()  # type: ignore[arg-type]


def test_scores_are_what_they_say(weights: Path, tmp_path: Path) -> None:
    pool = torch.randn(40, NUM_CLASSES, generator=torch.Generator().manual_seed(2))
    freeze_marginal(tmp_path / "q.safetensors", pool)
    scorer = loaded(weights, marginal=str(tmp_path / "q.safetensors"))
    by_dimension = values(scores_of(scorer, [item(noise(0.5))]))
    p = BIAS.double().softmax(0)
    assert by_dimension["a", "confidence"] == pytest.approx(float((p * p.log()).sum()), rel=1e-6)
    assert by_dimension["a", "speech"] == pytest.approx(1 / (1 + math.exp(-float(BIAS[0]))), rel=1e-6)
    mean_log_p = pool.double().softmax(1).mean(0, keepdim=True).log()
    expected = kl_divergence(BIAS[None].numpy(), mean_log_p.numpy())[0]
    assert by_dimension["a", "inception"] == pytest.approx(expected, rel=1e-6)


def test_inception_is_one_clips_part_of_the_inception_score(weights: Path, tmp_path: Path) -> None:
    logits = 2 * torch.randn(30, NUM_CLASSES, generator=torch.Generator().manual_seed(3))
    freeze_marginal(tmp_path / "q.safetensors", logits)
    scorer = loaded(weights, marginal=str(tmp_path / "q.safetensors"))
    mean = scorer._numbers(logits)["inception"].mean()
    assert float(mean.exp()) == pytest.approx(inception_score(logits.numpy(), splits=1), rel=1e-6)


def test_without_a_marginal_inception_alone_is_unscored(weights: Path) -> None:
    scores = scores_of(loaded(weights), [item(noise(0.5))])
    assert {s.dimension: s.reason for s in scores} == {
        "inception": NO_MARGINAL,
        "confidence": "",
        "speech": "",
    }
    assert [s.dimension for s in scores if s.value is None] == ["inception"]


def test_a_marginal_in_the_weights_folder_is_found_and_names_another_version(weights: Path) -> None:
    before = loaded(weights)
    assert before.version.endswith("-1")
    old = before.version
    freeze_marginal(marginal_path("16k", str(weights.parent)), torch.zeros(3, NUM_CLASSES))
    after = loaded(weights)
    assert after.version != old
    (first, *_) = scores_of(after, [item(noise(0.5))])
    assert first.dimension == "inception"
    p = BIAS.double().softmax(0)
    assert first.value == pytest.approx(float((p * p.log()).sum()) + math.log(NUM_CLASSES), rel=1e-6)


def test_what_cannot_be_judged_is_unscored_with_its_reason(weights: Path) -> None:
    scorer = loaded(weights)
    items = [
        item(0 * noise(1), name="silent"),
        item(0 * noise(1) + 0.5, name="constant"),  # silence, once the file's mean is gone
        item(noise(0.3), name="short"),
        item(noise(0), name="empty"),
        item(noise(1), name="fine"),
    ]
    scores, embeddings = judged(scorer, items)
    assert len(scores) == 3 * len(items)
    reasons = {s.candidate_id: s.reason for s in scores if s.dimension == "confidence"}
    assert reasons == {
        "silent": "silent", "constant": "silent", "short": "shorter than 0.31 s", "empty": "silent",
        "fine": "",
    }  # fmt: skip
    assert all((s.value is None) == bool(s.reason) for s in scores)
    assert {s.scorer for s in scores} == {"panns"}
    assert {s.version for s in scores} == {scorer.version}
    for name, width in (("logits", 527), ("features", 2048)):
        assert embeddings[name].shape == (5, width)
        assert embeddings[name].isnan().all(1).tolist() == [False, False, True, True, False]
    assert judged(scorer, []).scores == []
    assert scorer.judge([]).embeddings["logits"].shape == (0, 527)


def test_the_scorer_hears_all_channels_at_its_rate_for_the_evaluated_time(
    weights: Path, network: Cnn14
) -> None:
    scorer = loaded(weights)
    scorer._network = network
    stereo = np.stack([noise(2, 44100, seed=1), 0.3 * noise(2, 44100, seed=2)])
    (row,) = scorer.judge([item(stereo, 44100, seconds=1.0)]).embeddings["logits"]
    expected = tag(network, [benchmark_wave(stereo, 44100, 16000, 1.0)]).logits[0]
    torch.testing.assert_close(row, expected)
    other = scorer.judge([item(stereo, 44100, seconds=2.0)]).embeddings["logits"][0]
    assert not torch.allclose(row, other, atol=1e-3)


def test_variants_have_names_of_their_own(tmp_path: Path) -> None:
    assert Panns().variant == "16k"  # the benchmarks'
    other = plugins.build("scorers", "panns-32k")
    assert isinstance(other, Panns)
    path = zeros_file(tmp_path / "b.pth", shapes("32k"))
    scorer = other.with_settings(weights=str(path), weights_folder=str(tmp_path)).load()
    assert {s.scorer for s in scores_of(scorer, [item(noise(0.5))])} == {"panns-32k"}


# -- the marginal ----------------------------------------------------------------------------------------


def test_a_marginal_is_the_mean_posterior(tmp_path: Path) -> None:
    logits = 5 * torch.randn(7, NUM_CLASSES)
    path = tmp_path / "q.safetensors"
    freeze_marginal(path, logits, "32k")
    q = read_marginal(path, "32k")
    torch.testing.assert_close(q, logits.double().softmax(1).mean(0))
    assert q.dtype == torch.float64
    with pytest.raises(ValueError, match="marginal of PANNs 32k, here is 16k"):
        read_marginal(path, "16k")


def test_a_marginal_of_anything_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "q.safetensors"
    bad = torch.zeros(3, NUM_CLASSES)
    bad[1, 5] = math.nan
    with pytest.raises(ValueError, match="1 rows that are not finite"):
        freeze_marginal(path, bad)
    with pytest.raises(ValueError, match=r"found \(0, 527\)"):
        freeze_marginal(path, torch.zeros(0, NUM_CLASSES))
    with pytest.raises(ValueError, match=r"found \(3, 521\)"):
        freeze_marginal(path, torch.zeros(3, 521))
    assert not path.exists()
    with pytest.raises(ValueError, match="is no marginal of PANNs"):
        read_marginal(path)
    path.write_bytes(b"no tensors")
    with pytest.raises(ValueError, match="is no marginal of PANNs"):
        read_marginal(path)
    good = torch.full((NUM_CLASSES,), 1 / NUM_CLASSES)
    for tensors in (wrong_sum(good), {"marginal": good[:5]}, {"marginal": torch.eye(NUM_CLASSES)[0]}):
        save_file(dict(tensors), path, {"variant": "16k"})
        with pytest.raises(ValueError, match="no distribution over 527 classes"):
            read_marginal(path)
    save_file({"q": good}, path, {"variant": "16k"})
    with pytest.raises(ValueError, match="is no marginal of PANNs"):
        read_marginal(path)


def wrong_sum(q: Tensor) -> Mapping[str, Tensor]:
    return {"marginal": 2 * q}


def test_the_recipe_of_the_golden_wave_is_the_files() -> None:
    golden = load_file(GOLDEN / "scorers_frontends.safetensors")
    assert relative_error(recipes.wave(8, 16000, seed=100)[:64], golden["wave16k_first64"]) <= LIMIT
