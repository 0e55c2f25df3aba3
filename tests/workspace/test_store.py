"""The workspace: appends are atomic and idempotent, shards read as safetensors reads them, locks hold."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from foleypref.media.files import atomic_path
from foleypref.workspace import shards, store
from foleypref.workspace.columns import among
from foleypref.workspace.records import Candidate, Clip, Failure, Score
from foleypref.workspace.shards import ShardReader, write_shard
from foleypref.workspace.store import Workspace


def failures(*names: str) -> list[Failure]:
    return [Failure.make("ingest", name, f"because of {name}") for name in names]


def test_records_come_back_equal_and_in_the_order_of_their_ids(workspace: Workspace) -> None:
    clip = Clip("c1", "a.mp4", "train", "häuser ✓", 0.0, 4.0, 25.0, 96, 96, True, {"deep": [1, {"x": None}]})
    scores = [
        Score.make("a1", "clap", "1", "text", 0.25),
        Score.make("a1", "pesq", "1", "mos", None, "silent"),
    ]
    workspace.append([*scores, clip])
    again = Workspace(workspace.root)
    assert again.read(Clip) == [clip]
    assert again.read(Score) == sorted(scores, key=lambda s: s.score_id)
    assert again.ids(Score) == {s.score_id for s in scores}
    assert again.by_id(Clip) == {"c1": clip}


def test_writing_the_same_records_twice_makes_one_file(workspace: Workspace) -> None:
    workspace.append(failures("a", "b"))
    before = {p: p.read_bytes() for p in workspace.root.rglob("*.parquet")}
    workspace.append(failures("b", "a"))
    assert {p: p.read_bytes() for p in workspace.root.rglob("*.parquet")}.keys() == before.keys()
    assert len(workspace.read(Failure)) == 2


def test_a_record_in_two_parts_is_counted_once(workspace: Workspace) -> None:
    workspace.append(failures("a", "b"))
    workspace.append(failures("b", "c"))
    assert sorted(f.item for f in workspace.read(Failure)) == ["a", "b", "c"]


def test_what_another_process_appended_is_seen(workspace: Workspace) -> None:
    workspace.append(failures("a"))
    assert len(workspace.read(Failure)) == 1
    Workspace(workspace.root).append(failures("b"))
    assert len(workspace.read(Failure)) == 2


def test_replace_table_leaves_only_the_new_records(workspace: Workspace) -> None:
    workspace.append(failures("a", "b"))
    workspace.append(failures("c"))
    workspace.replace_table(Failure, failures("c"))
    assert [f.item for f in workspace.read(Failure)] == ["c"]
    workspace.replace_table(Failure, [])
    assert workspace.read(Failure) == []


def test_a_write_that_dies_before_its_rename_is_never_seen(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(descriptor: int) -> None:
        raise KeyboardInterrupt

    workspace.append(failures("a"))
    monkeypatch.setattr(os, "fsync", die)
    with pytest.raises(KeyboardInterrupt):
        workspace.append(failures("b"))
    monkeypatch.undo()
    assert [f.item for f in Workspace(workspace.root).read(Failure)] == ["a"]


def test_a_lock_removes_what_killed_writers_left(workspace: Workspace) -> None:
    workspace.append(failures("a"))
    torn = workspace.table_folder("failures") / "x.parquet"
    child = os.fork()
    if child == 0:
        with atomic_path(torn) as temporary:
            temporary.write_bytes(b"torn")
            os._exit(0)
    os.waitpid(child, 0)
    (left,) = torn.parent.glob(".*")
    with workspace.lock("ingest"):
        assert not left.exists()
        assert len(workspace.read(Failure)) == 1


def test_a_second_process_is_refused_while_the_lock_is_held_and_let_in_after_a_kill(
    workspace: Workspace,
) -> None:
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        with Workspace(workspace.root).lock("sample"):
            os.write(tell, b"1")
            signal.pause()
        os._exit(0)
    os.read(ready, 1)
    try:
        with pytest.raises(ValueError, match="another process is running 'sample'"), workspace.lock("sample"):
            pass
        with workspace.lock("score"):  # another stage is free
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    with workspace.lock("sample"):
        pass


def test_another_format_version_is_refused(workspace: Workspace) -> None:
    (workspace.root / "workspace.json").write_text(json.dumps({"format_version": 99}))
    with pytest.raises(ValueError, match="format 99, this foleypref reads 1"):
        Workspace(workspace.root)


def test_a_folder_with_other_things_is_not_taken_over(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match="exists and is not a workspace"):
        Workspace(tmp_path)
    with pytest.raises(ValueError, match="is not a workspace"):
        Workspace(tmp_path / "absent", create=False)
    assert not (tmp_path / "absent").exists()


def test_a_workspace_whose_first_write_was_killed_can_be_opened(tmp_path: Path) -> None:
    (tmp_path / ".workspace.json.0a1b2c3d-4e5f6a7b-99.tmp").write_bytes(b"{")
    Workspace(tmp_path)


def shard_tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    wave = torch.randn(7, 5, 3, generator=generator)
    return {
        "f32": wave, "f16": wave.half(), "bf16": wave.bfloat16(), "f64": wave.double(),
        "i64": torch.arange(7), "u8": torch.arange(14, dtype=torch.uint8).reshape(7, 2), "bool": wave > 0,
    }  # fmt: skip


def test_rows_equal_what_safetensors_reads(tmp_path: Path) -> None:
    write_shard(tmp_path / "kind" / "one.safetensors", shard_tensors())
    reader, order = ShardReader(tmp_path), [6, 0, 3, 3]
    with safe_open(tmp_path / "kind" / "one.safetensors", "pt") as file:
        assert reader.keys("kind/one") == sorted(file.keys())
        for key in file.keys():  # noqa: SIM118  safe_open is no mapping
            rows = reader.rows([("kind/one", row) for row in order], key)
            expected = file.get_tensor(key)[order]
            assert rows.dtype == expected.dtype
            assert torch.equal(rows, expected), key


def test_rows_come_in_the_order_asked_for_over_more_shards_than_may_be_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "MAX_OPEN_FILES", 2)
    for index in range(5):
        write_shard(tmp_path / f"{index}.safetensors", {"x": torch.arange(3) + 10 * index})
    before = len(os.listdir("/proc/self/fd"))
    reader = ShardReader(tmp_path)
    places = [(str(i), r) for r in (2, 0, 1) for i in (4, 0, 3, 1, 2)]
    assert reader.rows(places, "x").tolist() == [10 * int(i) + r for i, r in places]
    assert len(os.listdir("/proc/self/fd")) <= before + 2
    reader.close()


def test_a_shard_cut_short_says_so(tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    write_shard(path, {"x": torch.zeros(4, 100)})
    path.write_bytes(path.read_bytes()[:-50])
    reader = ShardReader(tmp_path)
    assert reader.rows([("one", 2)], "x").shape == (1, 100)  # what is whole can still be read
    with pytest.raises(ValueError, match="cut short: row 3 of 'x'"):
        reader.rows([("one", 3)], "x")


def test_wrong_shards_rows_and_keys_are_named(tmp_path: Path) -> None:
    write_shard(tmp_path / "one.safetensors", {"x": torch.zeros(4, 2)})
    reader = ShardReader(tmp_path)
    with pytest.raises(ValueError, match=r"two\.safetensors is missing"):
        reader.rows([("two", 0)], "x")
    with pytest.raises(ValueError, match="has no tensor 'y'; it has x"):
        reader.rows([("one", 0)], "y")
    for row in (4, -1):
        with pytest.raises(ValueError, match="has 4 rows of 'x'"):
            reader.rows([("one", row)], "x")


def test_latents_follow_their_candidates(workspace: Workspace) -> None:
    rows = {"audio": torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(1))}
    ids = ["a", "b", "c"]
    shard = workspace.write_rows("latents", ids, rows)
    unplaced = Candidate.make("c0", "world", "w", solver="euler", num_steps=10, guidance_scale=2.0)
    workspace.append([replace(unplaced, candidate_id=i, shard=shard, row=row) for row, i in enumerate(ids)])
    stored = Workspace(workspace.root)
    picked = [stored.by_id(Candidate)[i] for i in ("c", "a")]
    assert torch.equal(stored.rows(picked)["audio"], rows["audio"][[2, 0]])


def test_float16_rows_are_read_under_autocast_too(workspace: Workspace) -> None:
    rows = {"audio": torch.randn(3, 2, generator=torch.Generator().manual_seed(0)).half()}
    shard = workspace.write_rows("latents", ["a", "b", "c"], rows)
    with torch.autocast("cpu", torch.bfloat16):
        stored = workspace.shards.rows([(shard, 2), (shard, 0)], "audio")
    assert stored.dtype == torch.float16
    assert torch.equal(stored, rows["audio"][[2, 0]])


def test_records_are_picked_over_many_parts(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "BLOCK_ROWS", 4)
    stored = [replace(Candidate.make("clip", "world"), candidate_id=f"c{n}", row=n) for n in range(11)]
    for begin in range(0, len(stored), 3):
        workspace.append(stored[begin : begin + 3])
    workspace.append(stored[2:5])  # again, in another part
    picked = {"c0", "c4", "c10", "absent"}
    assert workspace.read(Candidate, among("candidate_id", picked)) == [stored[0], stored[10], stored[4]]
    assert workspace.read(Candidate, among("candidate_id", [])) == []
    assert workspace.ids(Candidate) == {c.candidate_id for c in stored}
