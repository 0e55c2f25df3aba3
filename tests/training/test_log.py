"""metrics.jsonl: lines cut short, and numbers that are not finite."""

from __future__ import annotations

from pathlib import Path

from foleypref.training.log import RunLog, read_metrics


def test_a_last_line_cut_short_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.4}\n{"step": 3, "lo'
    )
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2]
    log = RunLog(tmp_path, 1, tensorboard=False)
    log.write(2, {"loss": float("nan")})
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1, "loss": 0.5}\n{"step": 2, "loss": null}\n'
