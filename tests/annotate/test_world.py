"""The whole way on the embedded world: sampled candidates, decoded by the model, rated, fitted, paired."""

from __future__ import annotations

import io
import wave as wave_files
from pathlib import Path

import numpy as np
import pytest

from foleypref.annotate.assignments import make_assignments
from foleypref.annotate.campaign import Campaign
from foleypref.annotate.event_log import EventLog
from foleypref.annotate.levels import TARGET_LUFS, loudness
from foleypref.annotate.media_store import MediaStore
from foleypref.annotate.settings import AnnotateSettings
from foleypref.fit import FitSettings, fit
from foleypref.models.playback import ModelMedia
from foleypref.pair import PairSettings, pair
from foleypref.sample import SampleSettings, sample
from foleypref.score import ScoreSettings, score
from foleypref.workspace.records import Pair
from tests.annotate_http import Client, served
from tests.world_workspace import world_workspace


@pytest.mark.slow
def test_from_sampled_candidates_to_human_pairs(tmp_path: Path) -> None:
    workspace = world_workspace(tmp_path)
    sample(workspace, SampleSettings(num_candidates=3, num_steps=2))
    score(workspace, ScoreSettings(scorers=("world_semantic",)))
    settings = AnnotateSettings(repeats=0.0, degraded=0.0, require_listen_s=1.0)
    log = EventLog.of(workspace.root)
    media = MediaStore(workspace, ModelMedia(workspace, settings.model).waves)  # type: ignore[arg-type]
    campaign = Campaign(settings, log, media, make_assignments(workspace, settings))
    token = campaign.tokens.new_token("ann")
    levels = []
    with served(campaign) as port:
        ann = Client(port, token)
        while tasks := ann.get("/api/tasks/next?ahead=1").json["tasks"]:
            task = tasks[0]
            assert ann.get(f"/media/{task['task_id']}/video").headers["content-type"] == "video/mp4"
            for value, track in enumerate(task["tracks"]):
                about = {"task_id": task["task_id"], "label": track["label"]}
                with wave_files.open(
                    io.BytesIO(ann.get("/media/{task_id}/{label}".format(**about)).body)
                ) as file:
                    rate = file.getframerate()
                    samples = np.frombuffer(file.readframes(file.getnframes()), np.int16) / 32768
                assert len(samples) / rate == pytest.approx(track["seconds"])
                levels.append(loudness(samples, rate))
                heard = {track["label"]: track["seconds"]}
                assert ann.say("rate", **about, value=value, seconds=4.0, heard=heard).status == 200
    log.close()
    heard_at = np.array(levels)
    assert np.median(np.abs(heard_at - TARGET_LUFS)) < 0.1
    report = fit(workspace, FitSettings(folds=2, num_steps=50, min_ratings=10))
    assert (report.num_ratings, report.sources) == (18, {"human": 18})
    report = pair(workspace, PairSettings())
    assert report.pairs["human"] == 6
    assert all(p.complexity == 0.0 for p in workspace.read(Pair) if p.source == "human")
