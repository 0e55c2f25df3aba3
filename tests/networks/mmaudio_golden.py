"""The tiny MMAudio networks of the golden files, for the tests of its network and of its precision."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from foleypref.networks.mmaudio import MMAudio
from tests.golden.check_mmaudio_network import Golden

GOLDEN = Path(__file__).parents[1] / "golden"
CPU = torch.device("cpu")
SMALL = {"latent_dim": 4, "clip_dim": 12, "sync_dim": 10, "text_dim": 14, "text_len": 5}
SMALL |= {"hidden_dim": 16, "depth": 3, "fused_depth": 1, "num_heads": 2}


def flow_of(golden: Golden, network: MMAudio | None = None) -> Tensor:
    """The velocity that the file calls `out.flow`."""
    network = golden.network if network is None else network
    with torch.no_grad():
        prepared = network.prepare(*golden.features())
        return network(golden["in.latent"], golden["in.t"], prepared)


def rms_error(ours: Tensor, expected: Tensor) -> float:
    """Relative root mean square of the difference."""
    return float(((ours.float() - expected).norm() / expected.norm()).detach())
