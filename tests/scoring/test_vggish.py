"""VGGish: golden vectors, patches against a plain Fourier sum, how many there are, rows of a set metric."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from foleypref.networks.mel_basis import kaldi_basis
from foleypref.networks.vggish import VGGish, num_patches, vggish_patches
from foleypref.published.taggers import benchmark_wave, build_vggish, embed_patches, load_vggish
from foleypref.scoring.scorers.vggish import PATCH_S, Vggish
from tests.golden import check_taggers as checks
from tests.golden.compare import LIMIT, relative_error
from tests.judged import judged
from tests.scoring.test_panns import assert_agrees, item, noise, zeros_file

GOLDEN = Path(__file__).parents[1] / "golden"
BIAS = torch.randn(128, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def network() -> VGGish:
    return build_vggish(checks.filled(VGGish, "B"))


def meta() -> VGGish:
    with torch.device("meta"):
        return VGGish()


# -- golden vectors --------------------------------------------------------------------------------------


def test_golden_embeddings(network: VGGish) -> None:
    golden, about = (read(GOLDEN / "scorers_vggish.safetensors") for read in (load_file, checks.companion))
    patches = torch.stack(embed_patches(network, list(checks.waves(about["input"]))))
    assert relative_error(patches, golden["B_embed"]) <= LIMIT
    assert (patches < 0).any()  # no ReLU at the end


def test_pooling_before_the_relu_is_pooling_after_it() -> None:
    network, x = meta(), torch.randn(1, 1, 96, 64)
    kinds = [type(layer).__name__ for layer in network.features]
    assert [index for index, kind in enumerate(kinds) if kind == "Conv2d"] == [
        0,
        3,
        6,
        8,
        11,
        13,
    ]  # the file's
    assert [kinds[index - 1] for index, kind in enumerate(kinds) if kind == "_Pool"] == ["Conv2d"] * 4
    pool, relu = network.features[1], network.features[2]
    assert torch.equal(relu(pool(x.clone())), torch.nn.functional.max_pool2d(x.relu(), 2))


@pytest.mark.slow
def test_golden_numbers_under_both_rules_and_shapes() -> None:
    assert_agrees("scorers_vggish.safetensors")


# -- patches ---------------------------------------------------------------------------------------------


def test_patches_are_log_mels_of_uncentred_frames_under_a_periodic_hann_window() -> None:
    wave = noise(2.0)
    patches = vggish_patches(torch.from_numpy(wave))
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    basis = kaldi_basis(16000, 512, 64, 125.0, 7500.0).numpy()
    for patch, row in ((0, 0), (0, 95), (1, 7)):
        start = 160 * (96 * patch + row)
        magnitude = np.abs(np.fft.rfft(wave[start : start + 400].astype(np.float64) * window, 512))
        expected = np.log(basis @ magnitude + 0.01)  # magnitude, not power
        assert relative_error(patches[patch, row], torch.from_numpy(expected).float()) < 1e-5


def test_how_many_patches_a_sound_has() -> None:
    counts = {0: 0, 399: 0, 15599: 0, 15600: 1, 30959: 1, 30960: 2, 128000: 8, 160000: 10}
    for samples, count in counts.items():
        assert num_patches(samples) == count
        assert vggish_patches(torch.zeros(samples)).shape == (count, 96, 64)


def test_patches_of_many_sounds_go_through_together_and_come_back_apart(network: VGGish) -> None:
    waves = [torch.from_numpy(noise(s, seed=i)) for i, s in enumerate((2.0, 0.5, 1.0))]
    patches = embed_patches(network, waves, at_once=2)
    assert [len(rows) for rows in patches] == [2, 0, 1]
    for wave, rows in zip(waves, patches):
        torch.testing.assert_close(embed_patches(network, [wave])[0], rows, rtol=1e-4, atol=1e-5)
    assert embed_patches(network, []) == []


def test_flattening_is_channels_last(network: VGGish) -> None:
    patch = vggish_patches(torch.from_numpy(noise(1.0)))
    with torch.inference_mode():
        x = network.features(patch[:, None])
        assert x.shape == (1, 512, 6, 4)
        by_hand = torch.stack([x[0, :, t, f] for t in range(6) for f in range(4)]).flatten()
        torch.testing.assert_close(network.embeddings(by_hand[None]), network(patch))


# -- weights and scorer ----------------------------------------------------------------------------------


def test_files_that_do_not_fit_are_told(tmp_path: Path) -> None:
    path = zeros_file(tmp_path / "a.pth", meta())
    assert not load_vggish(weights=str(path)).training
    state = torch.load(path, weights_only=True)["model"]
    with pytest.raises(ValueError, match=r"unexpected pproc\.pca_means; give vggish-10086976\.pth"):
        build_vggish(state | {"pproc.pca_means": torch.zeros(128, 1)})
    with pytest.raises(ValueError, match=r"vggish-10086976\.pth .* is missing"):
        load_vggish(folder=tmp_path / "empty")


def scorer(tmp_path: Path) -> Vggish:
    """A scorer that says BIAS of every patch."""
    return Vggish(weights=str(zeros_file(tmp_path / "a.pth", meta(), embeddings__4__bias=BIAS))).load()


def test_a_row_holds_the_patches_of_the_evaluated_time_and_ends_in_nan(tmp_path: Path) -> None:
    judge = scorer(tmp_path)
    lengths = {"whole": 3.0, "longer": 4.0, "shorter": 1.5, "none": 0.9}
    items = [item(noise(s, 44100), 44100, name, seconds=3.0) for name, s in lengths.items()]
    items.append(item(0 * noise(3.0), name="silent", seconds=3.0))
    scores, embeddings = judged(judge, items)
    rows = embeddings["patches"]
    assert rows.shape == (5, 3, 128)
    assert rows.isnan().any(2).tolist() == [
        [False] * 3, [False] * 3, [False, True, True], [True] * 3, [False] * 3,
    ]  # fmt: skip
    torch.testing.assert_close(rows[:3, 0], BIAS.expand(3, 128))
    torch.testing.assert_close(judge.judge(items[2:3]).embeddings["patches"], rows[2:3], equal_nan=True)
    assert [s.value for s in scores] == [3 * PATCH_S, 3 * PATCH_S, PATCH_S, None, None]
    assert [s.reason for s in scores] == ["", "", "", "shorter than one patch of 0.975 s", "silent"]
    assert {(s.scorer, s.version, s.dimension) for s in scores} == {("vggish", judge.version, "heard_s")}
    assert judged(judge, []).scores == []


def test_without_an_evaluated_time_the_longest_sound_decides(tmp_path: Path) -> None:
    judge = scorer(tmp_path)
    assert judge.judge([item(noise(2.0)), item(noise(1.0))]).embeddings["patches"].shape == (2, 2, 128)
    assert judge.judge([item(noise(0.5))]).embeddings["patches"].shape == (1, 1, 128)


def test_the_scorer_hears_all_channels(tmp_path: Path, network: VGGish) -> None:
    judge = scorer(tmp_path)
    judge._network = network
    stereo = np.stack([noise(1.2, 44100, seed=1), 0.3 * noise(1.2, 44100, seed=2)])
    expected: Tensor = embed_patches(network, [benchmark_wave(stereo, 44100, 16000)])[0]
    torch.testing.assert_close(judge.judge([item(stereo, 44100)]).embeddings["patches"][0], expected)
