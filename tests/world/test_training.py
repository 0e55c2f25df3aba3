"""The loop that trained the world's networks: learning, averaging, and going on after a stop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tools.train_world.data import batches
from tools.train_world.fitting import Fit, fit_network, update_average
from torch import Tensor, nn


class Stopped(Exception):
    """Stands for a kill in the middle of a training."""


def train(steps: int, checkpoint: Path | None, rows: list[dict[str, Any]], stop: int = -1) -> list[Tensor]:
    """Fit a line, and return its weights with their average; stop before step `stop`."""
    torch.manual_seed(0)
    network = nn.Linear(1, 1)
    average = {key: value.clone() for key, value in network.state_dict().items()}

    def loss(step: int) -> Tensor:
        if step == stop:
            raise Stopped
        update_average(average, network, step, limit=0.99)
        x = torch.rand(8, 1, generator=torch.Generator().manual_seed(step))
        return (network(x) - (2 * x + 1)).square().mean()

    fit = Fit(steps, 0, rows.append, checkpoint)
    fit_network("line", network, loss, fit, learning_rate=0.05, average=average)
    return [*network.parameters(), *average.values()]


def test_it_learns_and_logs_every_hundred_steps() -> None:
    rows: list[dict[str, Any]] = []
    weight, bias, *_ = train(400, None, rows)
    assert (weight.item(), bias.item()) == (pytest.approx(2, abs=0.1), pytest.approx(1, abs=0.1))
    assert [row["step"] for row in rows] == [100, 200, 300, 400]
    assert rows[-1]["loss"] < 0.01 * rows[0]["loss"]


def test_a_stopped_training_resumes_to_the_same_bits(tmp_path: Path) -> None:
    path = tmp_path / "work" / "line.checkpoint.pt"
    with pytest.raises(Stopped):
        train(250, path, [], stop=170)
    rows: list[dict[str, Any]] = []
    resumed = train(250, path, rows)
    assert [row["step"] for row in rows] == [200, 250]
    assert all(torch.equal(a, b) for a, b in zip(resumed, train(250, None, []), strict=True))


@pytest.mark.parametrize(("num", "sizes"), [(8, [8]), (64, [32, 32]), (70, [35, 35])])
def test_batches_hold_every_row_once(num: int, sizes: list[int]) -> None:
    parts = list(batches(num, 32))
    assert [len(part) for part in parts] == sizes
    assert [i for part in parts for i in part] == list(range(num))
