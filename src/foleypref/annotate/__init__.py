"""The rating tool: raters judge soundtracks of a silent video blindly in a browser.

Packages of the `annotate` extra are imported only when they are needed: `fit` and `pair` of a workspace
without an event log do without them.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

STATIC = Path(__file__).parent / "static"
EXTRAS = {"fastapi": "annotate", "uvicorn": "annotate", "sqlalchemy": "annotate", "psycopg": "postgres"}


def require(*packages: str) -> None:
    """Raise ValueError naming the extra if one of the packages is not installed."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise ValueError(
                f"annotate needs the package {package!r}; "
                f"install it with `pip install 'foleypref[{EXTRAS[package]}]'`"
            )
