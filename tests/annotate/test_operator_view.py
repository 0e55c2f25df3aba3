"""The operator's numbers, on judgements whose agreement is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foleypref.annotate.campaign import Campaign
from foleypref.annotate.operator_view import OperatorView, summary
from foleypref.flow.convention import seed_of
from foleypref.scoring.agreement import krippendorff_alpha
from tests.annotate_workspace import all_heard, event, fill, make_campaign, rate_all, without_media


def everybody(campaign: Campaign, say: Any) -> None:
    """Work through all tasks; `say(rater, shown, task)` judges one."""
    for rater in campaign.tokens.names():
        while shown := campaign.next_tasks(rater):
            say(rater, shown[0], campaign.histories.of(rater).tasks[shown[0]["task_id"]])


def true_label(candidate_id: str) -> int:
    return seed_of(candidate_id) % 3


def rate_truly(campaign: Campaign, noise: float = 0.0, seed: int = 0) -> Any:
    generator = np.random.default_rng(seed)

    def say(rater: str, shown: Any, task: Any) -> None:
        def label_of(label: str) -> int:
            track = next(t for t in task.tracks if t.label == label)
            if generator.random() < noise:
                return int(generator.integers(3))
            return 0 if track.degraded else true_label(track.candidate_id)

        rate_all(campaign, rater, shown, label_of)

    return say


def test_raters_who_agree_in_everything(tmp_path: Path) -> None:
    campaign = without_media(make_campaign(fill(tmp_path / "w", 30), overlap=0.5, repeats=0.3, degraded=0.3))
    everybody(campaign, rate_truly(campaign))
    view = summary(campaign)
    agreement = view["agreement"]
    assert (agreement["alpha"], agreement["pairwise"], agreement["interval"]) == (1.0, 1.0, [1.0, 1.0])
    assert agreement["overlap_items"] == 15 * 3
    assert agreement["num_pairs"] > 0
    for rater in view["raters"]:
        assert rater["repeats"]["agree"] == rater["repeats"]["of"] > 0
        assert rater["degraded"]["caught"] == rater["degraded"]["of"] > 0
        assert rater["done"] == rater["total"]
        assert (rater["median_seconds"], rater["last_seen"] > 0) == (3.0, True)
    totals = view["totals"]
    assert totals["repeats"]["of"] == sum(rater["repeats"]["of"] for rater in view["raters"])
    assert (totals["clips"], totals["overlap_clips"]) == (30, 15)


def test_raters_who_guess(tmp_path: Path) -> None:
    campaign = without_media(make_campaign(fill(tmp_path / "w", 60), overlap=1.0, repeats=0.2, degraded=0.2))
    everybody(campaign, rate_truly(campaign, noise=1.0))
    view = summary(campaign)
    low, high = view["agreement"]["interval"]
    assert low < 0 < high
    assert abs(view["agreement"]["alpha"]) < 0.2
    assert 0.4 < view["agreement"]["pairwise"] < 0.6
    caught, of = view["totals"]["degraded"]["caught"], view["totals"]["degraded"]["of"]
    assert 0.2 < caught / of < 0.75  # 5 of 9 guesses: bad, or lower than the original
    assert 0.2 < view["totals"]["repeats"]["agree"] / view["totals"]["repeats"]["of"] < 0.5


def test_alpha_is_krippendorff_s_of_the_labels(tmp_path: Path) -> None:
    workspace = fill(tmp_path / "w", 20)
    campaign = without_media(make_campaign(workspace, ("ann", "bob", "eve"), overlap=1.0))
    values: dict[str, dict[str, int]] = {}
    generator = np.random.default_rng(5)

    def say(rater: str, shown: Any, task: Any) -> None:
        if rater == "eve" and task.number > 7:
            reason = campaign.settings.skip_reasons[0]
            campaign.post(rater, event("skip", task_id=task.task_id, reason=reason))
            return
        labels = {a: min(2, true_label(c) + int(generator.integers(2))) for a, c in task.genuine.items()}
        values.setdefault(rater, {}).update({task.genuine[a]: value for a, value in labels.items()})
        rate_all(campaign, rater, shown, labels.__getitem__)

    everybody(campaign, say)
    ids = sorted({c for one in values.values() for c in one})
    table = np.array([[values[r].get(c, np.nan) for c in ids] for r in ("ann", "bob", "eve")])
    view = summary(campaign)
    assert view["agreement"]["alpha"] == pytest.approx(krippendorff_alpha(table), abs=1e-4)
    assert view["totals"]["skipped"] == {"does not play": 13}
    low, high = view["agreement"]["interval"]
    assert low < view["agreement"]["alpha"] < high
    everything = view["totals"]["verdicts"]
    assert everything == sum(len(one) for one in values.values())


@pytest.mark.parametrize("kind", ["compare", "rank"])
def test_comparisons_and_ranks(tmp_path: Path, kind: str) -> None:
    workspace = fill(tmp_path / "w", 12)
    campaign = without_media(make_campaign(workspace, overlap=1.0, task=kind, repeats=0.2, degraded=0.3))

    def say(rater: str, shown: Any, task: Any) -> None:
        worth = {t.label: -1.0 if t.degraded else float(seed_of(t.candidate_id)) for t in task.tracks}
        mine = {"task_id": task.task_id, "heard": all_heard(shown), "seconds": 5.0}
        if kind == "rank":
            order = [[label] for label in sorted(worth, key=lambda a: -worth[a])]
            campaign.post(rater, event("rank", order=order, **mine))
        else:
            value = 1 if worth["A"] > worth["B"] else -1
            campaign.post(rater, event("compare", first="A", second="B", value=value, **mine))

    everybody(campaign, say)
    view = summary(campaign)
    assert (view["agreement"]["alpha"], view["agreement"]["pairwise"]) == (1.0, 1.0)
    for rater in view["raters"]:
        assert rater["repeats"]["agree"] == rater["repeats"]["of"] > 0
        assert rater["degraded"]["caught"] == rater["degraded"]["of"] > 0


def test_a_large_book_is_not_counted_at_every_glance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    campaign = without_media(make_campaign(fill(tmp_path / "w"), overlap=1.0))
    watch, clock, counted = OperatorView(campaign), [100.0], []
    takes = [0.01]

    def slow(_: Campaign) -> dict[str, Any]:
        clock[0] += takes[0]
        counted.append(clock[0])
        return {"number": len(counted)}

    monkeypatch.setattr("foleypref.annotate.operator_view.summary", slow)
    monkeypatch.setattr("foleypref.annotate.operator_view.time.monotonic", lambda: clock[0])
    assert [watch.summary()["number"] for _ in range(3)] == [1, 2, 3]  # quick: always fresh
    takes[0] = 1.0
    assert [watch.summary()["number"] for _ in range(3)] == [4, 4, 4]
    clock[0] += 8.9
    assert watch.summary()["number"] == 4
    clock[0] += 0.2
    assert watch.summary()["number"] == 5


def test_before_anybody_came(tmp_path: Path) -> None:
    view = summary(without_media(make_campaign(fill(tmp_path / "w"))))
    assert view["agreement"] == {
        "alpha": None, "interval": None, "pairwise": None, "num_pairs": 0, "overlap_items": 0,
    }  # fmt: skip
    assert [r["name"] for r in view["raters"]] == ["ann", "bob"]
    assert all(r["last_seen"] is None and r["per_hour"] is None for r in view["raters"])
