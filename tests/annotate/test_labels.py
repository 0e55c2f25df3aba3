"""Labels out and in again: every format round-trips, bad rows are named by their place, old ones stay."""

from __future__ import annotations

import contextlib
import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foleypref.annotate.labels import export_labels, import_labels
from foleypref.cli import main as cli
from foleypref.workspace.records import Candidate, Failure, Rating, Vote
from foleypref.workspace.store import Workspace
from tests.annotate_workspace import HOSTILE, all_heard, event, fill, make_campaign, rate_all, without_media

SUFFIXES = [".parquet", ".csv", ".json"]
FORMULA = "=HYPERLINK(\"http://evil\")\nsecond line, with 'quotes'"


def labelled(root: Path, prompt: str = "") -> Workspace:
    """Ratings and votes by two people, by the tool and by hand, and one simulated."""
    workspace = fill(root, num_clips=4, prompt=prompt)
    campaign = without_media(make_campaign(workspace, overlap=1.0))
    for index, rater in enumerate(("ann", "bob")):
        rate_all(campaign, rater, campaign.next_tasks(rater)[0], lambda label, i=index: (ord(label) + i) % 3)
    campaign.log.close()
    ranking = without_media(make_campaign(workspace, overlap=1.0, task="rank"))
    task = ranking.next_tasks("ann")[0]
    order = [["B"], ["A", "C"]]
    ranking.post(
        "ann", event("rank", task_id=task["task_id"], heard=all_heard(task), order=order, seconds=7.5)
    )
    ids = sorted(c.candidate_id for c in workspace.read(Candidate))
    by_hand = [
        Rating.make(ids[0], "e.ve+1@x.org", 1, "human", 1.25),
        Rating.make(ids[1], "sim", 2, "simulated"),
    ]
    workspace.append(by_hand)
    return workspace


def people(workspace: Workspace) -> tuple[list[Rating], list[Vote]]:
    return [r for r in workspace.read(Rating) if r.source == "human"], workspace.read(Vote)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("prompt", ["rain", HOSTILE, FORMULA, ""])
def test_what_goes_out_comes_in_again(tmp_path: Path, suffix: str, prompt: str) -> None:
    workspace = labelled(tmp_path / "w", prompt)
    path = export_labels(workspace, tmp_path / f"labels{suffix}")
    before = people(workspace)
    assert (len(before[0]), len(before[1])) == (7, 3)
    fresh = fill(tmp_path / "fresh", num_clips=4)
    count = import_labels(fresh, path)
    assert (count.done, count.skipped, count.failed) == (10, 0, 0)
    assert people(fresh) == before
    again = import_labels(fresh, path)
    assert (again.done, again.skipped, again.failed) == (0, 10, 0)
    same = import_labels(workspace, path)
    assert (same.done, same.skipped, same.failed) == (0, 10, 0)
    assert export_labels(fresh, tmp_path / f"again{suffix}").read_bytes() == path.read_bytes() or prompt


def test_a_caption_is_no_formula_in_a_spreadsheet(tmp_path: Path) -> None:
    for prompt in (FORMULA, "+1", "-1", "@x", "\tx"):
        workspace = labelled(tmp_path / prompt.encode().hex()[:12], prompt)
        with export_labels(workspace, tmp_path / "labels.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert all(row["prompt"] == f"'{prompt}" for row in rows)
        assert {row["value"] for row in rows if row["kind"] == "vote"} <= {"-1", "0", "1"}


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "candidate": ({"candidate_id": "nobody"}, "no candidate 'nobody'"),
    "clip": ({"clip_id": "elsewhere"}, "belongs to another clip"),
    "rater": ({"rater": "../../etc"}, "a rater's name"),
    "nobody": ({"rater": ""}, "a rater's name"),
    "value": ({"value": "3"}, "label is 0 (bad), 1 (medium) or 2 (good), found 3"),
    "half": ({"value": "1.5"}, "value is a whole number or one of bad, medium, good"),
    "word": ({"value": "great"}, "value is a whole number or one of bad, medium, good"),
    "no value": ({"value": ""}, "value is a whole number"),
    "infinite": ({"value": "inf"}, "value is a whole number"),
    "kind": ({"kind": "guess"}, "kind is rating or vote"),
    "source": ({"source": "oracle"}, "source is human or simulated"),
    "seconds": ({"seconds": "-1"}, "seconds is a number"),
    "nan": ({"seconds": "nan"}, "seconds is a number"),
    "vote of one": ({"kind": "vote", "second": ""}, "second is another candidate"),
    "vote": ({"kind": "vote", "second": "CLIP"}, "belongs to another clip"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_bad_row_is_a_failure_with_its_line(
    tmp_path: Path, mistake: str, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = fill(tmp_path / "w", num_clips=2)
    first, *_, last = sorted(workspace.read(Candidate), key=lambda c: c.clip_id)
    good = {"kind": "rating", "candidate_id": first.candidate_id, "rater": "ann", "value": "good"}
    changes, reason = MISTAKES[mistake]
    bad = {**good, "rater": "bob", **changes}
    bad = {key: last.candidate_id if value == "CLIP" else value for key, value in bad.items()}
    path = tmp_path / "labels.csv"
    columns = ["kind", "candidate_id", "rater", "value", "clip_id", "second", "seconds", "source", "prompt"]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows([{**good, "prompt": "two\nlines"}, bad])
    count = import_labels(workspace, path)
    assert (count.done, count.failed) == (1, 1)
    (failure,) = workspace.read(Failure)
    assert failure.item == f"{path}:line 4"  # the first row has two lines
    assert reason in failure.reason
    assert "line 4" in capsys.readouterr().err
    (rating,) = workspace.read(Rating)
    assert (rating.rater, rating.label, rating.source) == ("ann", 2, "human")


def test_what_was_said_first_stays(tmp_path: Path) -> None:
    workspace = labelled(tmp_path / "w")
    path = export_labels(workspace, tmp_path / "labels.json")
    tasks = json.loads(path.read_text())
    choice = tasks[0]["annotations"][0]["result"][0]["value"]
    choice["choices"] = ["Bad" if choice["choices"] != ["Bad"] else "Good"]
    path.write_text(json.dumps(tasks))
    before = people(workspace)
    count = import_labels(workspace, path)
    assert (count.skipped, count.failed) == (9, 1)
    assert "another label before" in workspace.read(Failure)[0].reason
    assert workspace.read(Failure)[0].item == f"{path}:task 1, annotation 1"
    assert people(workspace) == before


def test_a_vote_may_stand_either_way(tmp_path: Path) -> None:
    workspace = fill(tmp_path / "w", num_clips=1)
    a, b = sorted(c.candidate_id for c in workspace.read(Candidate))[:2]
    rows = [
        {"kind": "vote", "candidate_id": b, "second": a, "rater": "ann", "value": 1},
        {"kind": "vote", "candidate_id": a, "second": b, "rater": "ann", "value": -1},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "labels.parquet")
    count = import_labels(workspace, tmp_path / "labels.parquet")
    assert (count.done, count.skipped) == (1, 1)  # they say the same
    (vote,) = workspace.read(Vote)
    assert (vote.first, vote.second, vote.preference) == (a, b, -1)


def test_what_label_studio_writes_itself_is_read(tmp_path: Path) -> None:
    """Users by number, the Pairwise tag, cancelled annotations, other results beside ours."""
    workspace = fill(tmp_path / "w", num_clips=1)
    a, b = sorted(c.candidate_id for c in workspace.read(Candidate))[:2]
    other = {"from_name": "note", "to_name": "video", "type": "textarea", "value": {"text": ["hm"]}}
    good = {"from_name": "rating", "to_name": "video", "type": "choices", "value": {"choices": ["Good"]}}
    right = {"from_name": "pw", "to_name": "a,b", "type": "pairwise", "value": {"selected": "right"}}
    tasks = [
        {
            "id": 7, "data": {"candidate_id": a, "video": "x.mp4"}, "project": 3, "predictions": [],
            "annotations": [
                {"completed_by": 12, "lead_time": 4.2, "was_cancelled": False, "result": [other, good]},
                {"id": 2, "completed_by": 13, "was_cancelled": True, "result": []},
                {"id": 3, "completed_by": 14, "was_cancelled": False, "result": [other]},
            ],
        },
        {
            "id": 8, "data": {"candidate_id": a, "second": b},
            "annotations": [{"completed_by": {"email": "eve@x.org"}, "result": [right], "lead_time": None}],
        },
        {"id": 9, "data": None},
        "nonsense",
    ]  # fmt: skip
    path = tmp_path / "export.json"
    path.write_text(json.dumps(tasks))
    count = import_labels(workspace, path)
    assert (count.done, count.failed) == (2, 3)
    (rating,), (vote,) = workspace.read(Rating), workspace.read(Vote)
    assert (rating.rater, rating.label, rating.seconds) == ("labelstudio-12", 2, 4.2)
    assert (vote.rater, vote.preference) == ("eve@x.org", -1)
    assert {f.item.split(":")[-1] for f in workspace.read(Failure)} == {
        "task 1, annotation 3", "task 3", "task 4",
    }  # fmt: skip


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, path = str(labelled(tmp_path / "w").root), str(tmp_path / "labels.parquet")
    fresh = str(fill(tmp_path / "fresh", num_clips=4).root)
    assert cli.main(["annotate", "export", root, path]) == 0
    assert capsys.readouterr().out == f"{path}\n"
    assert cli.main(["annotate", "import", fresh, path]) == 0
    assert "10 done, 0 skipped, 0 failed" in capsys.readouterr().err
    for wrong, message in (
        (["export", root], "missing: FILE"),
        (["import", root, path, "more"], "Unrecognized options: more"),
        (["import", str(tmp_path / "nowhere"), path], "no such folder"),
        (["export", root, "labels.xlsx"], "labels are .parquet, .csv, .json files"),
        ([root, "--task", "guess"], "--task"),
    ):
        assert cli.main(["annotate", *wrong]) == 2
        assert message in capsys.readouterr().err
    for asked, shown in (
        (["--help"], "foleypref annotate import"),
        (["import", "--help"], "usage: foleypref annotate import [-h] WORKSPACE FILE"),
    ):
        with contextlib.suppress(SystemExit):
            cli.main(["annotate", *asked])
        assert shown in " ".join(capsys.readouterr().out.split())


def test_files_that_are_none_are_said(tmp_path: Path) -> None:
    workspace = fill(tmp_path / "w", num_clips=1)
    with pytest.raises(ValueError, match="no ratings or votes"):
        export_labels(workspace, tmp_path / "labels.csv")
    for name, content, message in (
        ("labels.txt", b"", "labels are .parquet, .csv, .json files"),
        ("a.json", b"{}", "list of tasks"),
        ("b.json", b"[" * 100_000, "cannot be read"),
        ("c.json", b"\xff\xfe\x00", "cannot be read"),
        ("d.csv", b"", "lacks the column"),
        ("e.csv", b"kind,rater\n", "lacks the column candidate_id, value"),
        ("f.parquet", b"PAR1", "cannot be read"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=message):
            import_labels(workspace, tmp_path / name)
    with pytest.raises(FileNotFoundError):
        import_labels(workspace, tmp_path / "nothing.csv")
