"""The tiny MMAudio networks of the golden files, built once per test module."""

from __future__ import annotations

import pytest

from tests.golden.check_mmaudio_network import Golden
from tests.networks.mmaudio_golden import GOLDEN


@pytest.fixture(scope="module", params=["v1", "v2"])
def tiny(request: pytest.FixtureRequest) -> Golden:
    """The tiny network of either version and its golden tensors."""
    return Golden(GOLDEN / f"mmaudio_tiny_{request.param}.safetensors")


@pytest.fixture(scope="module")
def tiny_v2() -> Golden:
    """The tiny network of version 2 and its golden tensors."""
    return Golden(GOLDEN / "mmaudio_tiny_v2.safetensors")
