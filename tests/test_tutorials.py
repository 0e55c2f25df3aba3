"""The flat tutorial runs as it stands, and preference moves its points where shuffled labels do not."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "docs" / "tutorials" / "preference-in-sixty-lines.py"


def test_preference_in_sixty_lines_moves_the_points_and_its_control_does_not() -> None:
    ran = subprocess.run(
        [sys.executable, str(SCRIPT)], capture_output=True, text=True, timeout=250, check=True
    )
    rows = dict(re.findall(r"^(.+?)\s+right of the middle ([\d.]+)", ran.stdout, re.M))
    shares = {name: float(share) for name, share in rows.items()}
    assert shares["flow_dpo"] > 0.9
    assert abs(shares["base"] - 0.5) < 0.05
    assert abs(shares["shuffled labels"] - shares["base"]) < 0.05


def test_the_tutorial_is_about_sixty_lines_and_needs_only_torch() -> None:
    source = SCRIPT.read_text()
    assert len([line for line in source.splitlines() if line.strip()]) <= 62
    imported = {name.partition(".")[0] for name in re.findall(r"^(?:import|from) ([\w.]+)", source, re.M)}
    assert imported == {"copy", "math", "torch"}
