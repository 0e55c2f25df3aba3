"""Pairs are equal after export and import, and a bad row costs only itself."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from foleypref.pair import PairSettings, pair
from foleypref.scoring.pairs_folder import DATA, export_pairs, import_pairs
from foleypref.workspace.records import Failure, Pair
from foleypref.workspace.store import Workspace
from tests import scored_workspace
from tests.test_pair import NAME, transparent


@pytest.fixture
def filled(tmp_path) -> tuple[Workspace, list[Pair]]:
    workspace, candidates = scored_workspace.fill(tmp_path / "w", 3, {}, num_candidates=2)
    pairs = []
    for index in range(3):
        clip = scored_workspace.make_clip(index)
        a, b = (c.candidate_id for c in candidates[2 * index : 2 * index + 2])
        pair_id = Pair.make_id(clip.clip_id, a, b, "auto")
        pairs.append(Pair(pair_id, clip.clip_id, clip.prompt, a, b, 0.9, 0.1, 0.75 + 0.1 * index, "auto"))
    workspace.append(pairs)
    return workspace, workspace.read(Pair)


def test_there_and_back(filled, tmp_path):
    workspace, pairs = filled
    path = export_pairs(workspace, tmp_path / "out")
    assert path == tmp_path / "out" / DATA
    rows = pq.read_table(path).to_pylist()
    assert rows[0]["video"].endswith(".mp4")
    assert rows[0]["chosen_latents"].startswith("tensors/latents/none.safetensors#")
    front = yaml.safe_load((tmp_path / "out" / "README.md").read_text().split("---")[1])
    assert front["configs"][0]["data_files"][0]["path"] == "data/train-*.parquet"
    other, _ = scored_workspace.fill(tmp_path / "other", 3, {}, num_candidates=2)
    count = import_pairs(other, tmp_path / "out")
    assert (count.done, count.skipped, count.failed) == (3, 0, 0)
    assert other.read(Pair) == pairs
    again = import_pairs(other, tmp_path / "out")
    assert (again.done, again.skipped) == (0, 3)


def bad_rows(good: dict) -> list[tuple[dict, str]]:
    other = {**good, "clip_id": "clip00001"}
    return [
        ({**good, "clip_id": "nowhere"}, "no clip 'nowhere'"),
        ({**good, "chosen": "nobody"}, "no candidate 'nobody'"),
        ({k: v for k, v in good.items() if k != "rejected"}, "rejected: no candidate ''"),
        (other, "belongs to another clip"),
        ({**good, "rejected": good["chosen"]}, "same candidate"),
        ({**good, "complexity": 1.5}, "complexity is in"),
        ({**good, "score_chosen": "high"}, "score_chosen is a number"),
    ]


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_a_bad_row_is_one_recorded_failure(filled, tmp_path, form):
    workspace, pairs = filled
    good = {"clip_id": pairs[0].clip_id, "chosen": pairs[0].rejected, "rejected": pairs[0].chosen}
    if good["clip_id"] == "clip00001":
        good = {"clip_id": pairs[1].clip_id, "chosen": pairs[1].rejected, "rejected": pairs[1].chosen}
    cases = bad_rows(good)
    rows = [*(row for row, _ in cases), good]
    folder = tmp_path / "in"
    folder.mkdir()
    if form == "jsonl":
        (folder / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    else:
        names = ["clip_id", "chosen", "rejected", "complexity", "score_chosen"]
        lines = [",".join(str(row.get(name, "")) for name in names) for row in rows]
        (folder / "metadata.csv").write_text("\n".join([",".join(names), *lines]))
    count = import_pairs(workspace, folder)
    assert (count.done, count.failed) == (1, len(cases))
    failures = {f.item.rpartition(":")[2]: f for f in workspace.read(Failure)}
    for number, (_, reason) in enumerate(cases, 1):
        assert reason in failures[str(number)].reason
        assert failures[str(number)].stage == "import_pairs"
    (added,) = [q for q in workspace.read(Pair) if q.source == "human"]
    assert (added.chosen, added.complexity) == (good["chosen"], 0.0)
    assert added.prompt == f"sound {int(added.clip_id[4:])}"  # the clip's own


def test_nothing_to_read_or_write_is_said(filled, tmp_path):
    workspace, pairs = filled
    (tmp_path / "in" / "data").mkdir(parents=True)
    with pytest.raises(ValueError, match="holds no pairs"):
        import_pairs(workspace, tmp_path / "in")
    (tmp_path / "in" / "metadata.jsonl").write_text("{not json")
    with pytest.raises(ValueError, match="cannot be read"):
        import_pairs(workspace, tmp_path / "in")
    (tmp_path / "in" / "metadata.jsonl").write_text('["a list"]')
    assert import_pairs(workspace, tmp_path / "in").failed == 1
    pq.write_table(pa.table({"other": np.arange(2)}), tmp_path / "in" / "data" / "x.parquet")
    assert import_pairs(workspace, tmp_path / "in").failed == 2
    workspace.replace_table(Pair, [])
    with pytest.raises(ValueError, match="foleypref pair"):
        export_pairs(workspace, tmp_path / "out")
    lost = Pair("x", "nowhere", "", pairs[0].chosen, pairs[0].rejected, 1.0, 0.0, 0.5, "auto")
    workspace.append([lost])
    with pytest.raises(ValueError, match="gone"):
        export_pairs(workspace, tmp_path / "out")


def test_imported_pairs_stay_when_pair_runs_again_and_its_own_are_replaced(tmp_path):
    values = np.tile([1.0, 0, -1], 3)
    workspace, candidates = scored_workspace.fill(tmp_path / "w", 3, {NAME: values}, num_candidates=3)
    transparent(workspace)
    scored_workspace.rate(workspace, candidates[:3], np.array([0, 1, 2]))
    first = pair(workspace, PairSettings())
    own = workspace.read(Pair)
    assert (first.pairs, first.others) == ({"auto": 2, "human": 1}, {})
    assert "left in place" not in first.line()

    ids = [c.candidate_id for c in candidates]
    rows = [  # another source, none at all (human), and the two that the stage itself makes
        {"clip_id": candidates[3].clip_id, "chosen": ids[4], "rejected": ids[3], "source": "shop"},
        {"clip_id": candidates[3].clip_id, "chosen": ids[5], "rejected": ids[3]},
        {"clip_id": candidates[6].clip_id, "chosen": ids[7], "rejected": ids[6], "source": "auto"},
        {
            "clip_id": own[0].clip_id,
            "chosen": own[0].chosen,
            "rejected": own[0].rejected,
            "source": own[0].source,
        },
    ]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    count = import_pairs(workspace, tmp_path / "in")
    assert (count.done, count.skipped) == (3, 1)
    everything = workspace.read(Pair)
    assert len(everything) == len(own) + 3

    for _ in range(2):
        again = pair(workspace, PairSettings())
        assert workspace.read(Pair) == everything
        assert again.pairs == first.pairs
        assert again.others == {"auto": 1, "human": 1, "shop": 1}
        assert "(left in place: 1 auto, 1 human, 1 shop)" in again.line()
        assert json.loads((workspace.root / "pairs.json").read_text())["others"] == again.others

    assert pair(workspace, PairSettings(human=False)).pairs == {"auto": 3}
    left = [p for p in workspace.read(Pair) if p.source == "human"]
    assert [(p.chosen, p.rejected) for p in left] == [(ids[5], ids[3])]  # not the one that raters decided
    pair(workspace, PairSettings(source="round2-x"))
    later = [p.source for p in workspace.read(Pair)]
    assert later.count("human") == 2
    pair(workspace, PairSettings(source="round2-x"))
    assert [p.source for p in workspace.read(Pair)] == later


def test_a_pair_that_was_imported_and_is_made_as_well_is_there_once_as_imported(tmp_path):
    workspace, candidates = scored_workspace.fill(
        tmp_path / "w", 1, {NAME: np.array([1.0, -1])}, num_candidates=2
    )
    transparent(workspace)
    good, bad = (c.candidate_id for c in candidates)
    row = {
        "clip_id": candidates[0].clip_id,
        "chosen": good,
        "rejected": bad,
        "source": "auto",
        "complexity": 0.25,
    }
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "metadata.jsonl").write_text(json.dumps(row))
    import_pairs(workspace, tmp_path / "in")
    report = pair(workspace, PairSettings())
    (imported,) = workspace.read(Pair)
    assert imported.complexity == 0.25
    assert (report.pairs, report.others) == ({}, {"auto": 1})
