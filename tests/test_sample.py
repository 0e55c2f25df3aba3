"""Sampling: counts, resume, a candidate depends only on its seed, features cached once, failures recorded."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from foleypref.sample import SampleSettings, sample
from foleypref.settings.parts import build
from foleypref.workspace.records import Candidate, Clip, Failure, Feature
from tests.world_workspace import NUM_CLIPS, world_workspace

FAST = SampleSettings(num_candidates=2, num_steps=2, guidance_scale=2.0, batch_size=4)


@pytest.fixture
def workspace(tmp_path):
    return world_workspace(tmp_path)


def test_every_clip_gets_its_candidates_and_a_rerun_makes_none(workspace):
    count = sample(workspace, FAST)
    assert (count.done, count.skipped, count.failed) == (2 * NUM_CLIPS, 0, 0)
    candidates = workspace.read(Candidate)
    assert {(c.clip_id, c.seed) for c in candidates} == {
        (clip.clip_id, seed) for clip in workspace.read(Clip) for seed in (0, 1)
    }
    latents = workspace.rows(candidates)["audio"]
    assert latents.shape == (2 * NUM_CLIPS, 100, 32)
    assert latents.dtype == torch.float16
    assert torch.isfinite(latents).all()
    again = sample(workspace, FAST)
    assert (again.done, again.skipped) == (0, 2 * NUM_CLIPS)


def test_more_seeds_keep_the_old_candidates(workspace):
    sample(workspace, FAST)
    before = {c.candidate_id: c for c in workspace.read(Candidate)}
    count = sample(workspace, FAST.model_copy(update={"num_candidates": 3}))
    assert (count.done, count.skipped) == (NUM_CLIPS, 2 * NUM_CLIPS)
    after = workspace.by_id(Candidate)
    assert {i: after[i] for i in before} == before


def test_one_candidate_can_be_made_again_without_the_others(workspace, tmp_path):
    sample(workspace, FAST)
    other = world_workspace(tmp_path / "one")
    sample(other, FAST.model_copy(update={"num_clips": 1, "num_candidates": 1, "first_seed": 1}))
    (one,) = other.read(Candidate)
    same = workspace.by_id(Candidate)[one.candidate_id]
    torch.testing.assert_close(
        other.rows([one])["audio"], workspace.rows([same])["audio"], rtol=2e-3, atol=2e-3
    )


def test_settings_that_change_the_sound_change_the_id(workspace):
    sample(workspace, FAST)
    for change in ({"num_steps": 3}, {"guidance_scale": 1.0}, {"solver": "midpoint"}):
        assert sample(workspace, FAST.model_copy(update=change)).done == 2 * NUM_CLIPS


def test_features_are_cached_under_the_models_key(workspace):
    sample(workspace, FAST)
    keys = {f.key for f in workspace.read(Feature)}
    assert keys == {build("models", "world").feature_key}
    assert {f.item_id for f in workspace.read(Feature)} == {c.clip_id for c in workspace.read(Clip)}


def test_a_clip_that_cannot_be_read_costs_no_other(workspace, tmp_path):
    gone = dataclasses.replace(workspace.read(Clip)[0], clip_id="gone", path=str(tmp_path / "gone.mp4"))
    workspace.append([gone])
    count = sample(workspace, FAST)
    assert count.done == 2 * NUM_CLIPS
    (failure,) = [f for f in workspace.read(Failure) if f.stage == "features"]
    assert failure.item == "gone"
    assert "no such file" in failure.reason


def test_shares_and_workers_write_the_files_of_one_process(workspace, tmp_path):
    gone = dataclasses.replace(workspace.read(Clip)[0], clip_id="0", path="gone.mp4")
    many = [dataclasses.replace(workspace.read(Clip)[0], clip_id=f"{i:02x}-again") for i in range(40)]
    settings = FAST.model_copy(update={"num_candidates": 1, "num_steps": 1, "guidance_scale": 1.0})
    files = []
    for name, shards in (("whole", [""]), ("parts", ["2/3", "0/3", "1/3"])):
        other = world_workspace(tmp_path / name)
        other.append([gone, *many])
        counts = [sample(other, settings.model_copy(update={"shard": shard})) for shard in shards]
        assert all(count.done for count in counts)
        assert (sum(c.done for c in counts), sum(c.failed for c in counts)) == (NUM_CLIPS + 40, 1)
        paths = [*other.root.glob("tensors/*/*"), *other.root.glob("tables/[!f]*/*")]  # failures name a path
        paths += other.root.glob("tables/features/*")
        files.append({path.relative_to(other.root): path.read_bytes() for path in paths})
    assert files[0] == files[1]
    again = sample(other, settings.model_copy(update={"num_workers": 2}))
    assert (again.done, again.skipped, again.failed) == (0, NUM_CLIPS + 40, 1)


def test_a_share_is_one_process(workspace):
    with pytest.raises(ValueError, match="one process's share"):
        sample(workspace, FAST.model_copy(update={"shard": "0/2", "num_workers": 2}))


def test_an_empty_split_is_an_error_that_names_the_others(workspace):
    with pytest.raises(ValueError, match=r"no clips of split 'test'; it has align"):
        sample(workspace, FAST.model_copy(update={"split": "test"}))
