"""Many raters at once while the server is killed: a short run of benchmarks/annotate_load.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import annotate_postgres
from tests.annotate_load import Result, check, run_load


def assert_exactly_once(root: Path, result: Result, kills: int) -> None:
    counts = check(root, result)
    assert counts.pop("acknowledged") == counts.pop("stored") >= 20
    assert counts == dict.fromkeys(counts, 0)
    assert len(result.down_s) == kills
    assert not result.refused


@pytest.mark.slow
@pytest.mark.parametrize("rate", [10, 100])
def test_every_acknowledged_rating_is_there_once(tmp_path: Path, rate: float) -> None:
    result = run_load(tmp_path / "w", num_raters=20, posts_per_s=rate, seconds=6.0, kills=1)
    assert_exactly_once(tmp_path / "w", result, 1)


@pytest.mark.slow
def test_the_same_on_a_postgresql_server(tmp_path: Path) -> None:
    reason = annotate_postgres.why_not()
    if reason:
        pytest.skip(reason)
    with annotate_postgres.postgres() as url:
        result = run_load(tmp_path / "w", 20, 40, seconds=6.0, kills=2, database=url)
        assert_exactly_once(tmp_path / "w", result, 2)
