"""Several workers, or shards started apart, write one process's records; a killed worker loses no work."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from foleypref.sample import SampleSettings, sample
from foleypref.score import ScoreSettings, ScoreWork, score
from foleypref.workspace.engines import parse_shard, run_workers
from foleypref.workspace.records import Feature, Score
from foleypref.workspace.store import Workspace
from foleypref.workspace.walk import StageCount
from tests.world_workspace import world_workspace

FEW = ScoreSettings(scorers=("world_tagger", "oracle_noise"), optional_scorers=(), batch_size=4)


def workspace_of(folder: Path) -> Workspace:
    workspace = world_workspace(folder)
    sample(workspace, SampleSettings(num_candidates=2, num_steps=2, guidance_scale=1.0))
    return workspace


def content(workspace: Workspace) -> tuple[set, set]:
    """Return the scores and the embeddings, whatever shards hold them."""
    rows = {
        (f.feature_id, workspace.rows([f])["logits"].numpy().tobytes())
        for f in Workspace(workspace.root).read(Feature)
        if f.key.startswith("world_tagger")
    }
    return {(s.score_id, s.value) for s in Workspace(workspace.root).read(Score)}, rows


class KillFirst(ScoreWork):
    """Scoring whose process dies in the first shard."""

    def __call__(self, shard: tuple[int, int]) -> StageCount:
        if shard[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(shard)


def test_shards_add_up_to_the_whole(tmp_path: Path) -> None:
    whole, parts = workspace_of(tmp_path / "whole"), workspace_of(tmp_path / "parts")
    total = score(whole, FEW).done
    done = [score(parts, FEW.model_copy(update={"shard": f"{i}/3"})).done for i in range(3)]
    assert all(done)
    assert sum(done) == total
    assert content(parts) == content(whole)
    assert score(parts, FEW).done == 0


def test_two_workers_write_what_one_does_and_a_killed_one_costs_nothing(tmp_path: Path) -> None:
    whole, parts = workspace_of(tmp_path / "whole"), workspace_of(tmp_path / "parts")
    count = score(whole, FEW)
    with pytest.raises(ValueError, match="a worker was killed"):
        run_workers(KillFirst, parts, FEW.model_copy(update={"num_workers": 2}))
    again = score(parts, FEW.model_copy(update={"num_workers": 2}))
    assert again.done + again.skipped == count.done
    assert content(parts) == content(whole)


def test_a_shard_is_held_beside_others_but_not_beside_the_whole(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "ws")
    with workspace.lock("score", (0, 2)), Workspace(tmp_path / "ws").lock("score", (1, 2)):
        for shard in ((0, 1), (0, 2)):
            with (
                pytest.raises(ValueError, match="another process is running 'score'"),
                Workspace(tmp_path / "ws").lock("score", shard),
            ):
                pass


def test_shards_are_spelled_as_clusters_do() -> None:
    assert parse_shard("3/8") == (3, 8)
    assert parse_shard("") == (0, 1)
    for wrong in ("8/8", "a/b", "3", "-1/2"):
        with pytest.raises(ValueError, match="shard is I/N"):
            parse_shard(wrong)


def test_settings_for_processes_are_dumped_after_the_stages_own() -> None:
    shared = ["num_workers", "shard", "engine", "device"]
    for settings in (SampleSettings(), ScoreSettings()):
        keys = list(settings.model_dump(mode="json"))
        assert keys[-4:] == shared
        assert keys[0] in ("model", "scorers")
        assert type(settings)(**settings.model_dump()) == settings
