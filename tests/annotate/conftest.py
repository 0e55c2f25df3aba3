"""A running rating server: a new one per test, or one for all tests that write nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.annotate_site import Site, open_site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A server for one test."""
    yield from open_site(tmp_path)


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One server for all tests of a module that must leave nothing in its event log."""
    for quiet_site in open_site(tmp_path_factory.mktemp("quiet")):
        yield quiet_site
        assert not quiet_site.campaign.log.events()
