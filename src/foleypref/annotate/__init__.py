"""People rate soundtracks of silent videos in a browser, blind: server, storage, and what becomes records.

Nothing of the `annotate` extra is imported before it is needed: a workspace that nobody has annotated is
fitted and paired without it.
"""

from __future__ import annotations

import importlib.util

EXTRAS = {"fastapi": "annotate", "uvicorn": "annotate", "sqlalchemy": "annotate", "psycopg": "postgres"}


def require(*packages: str) -> None:
    """Raise ValueError naming the extra if one of the packages is not installed."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise ValueError(
                f"annotate needs the package {package!r}; "
                f"install it with `pip install 'foleypref[{EXTRAS[package]}]'`"
            )
