"""The hint that ends a message about an unknown name: the nearest known one, or which there are."""

from __future__ import annotations

from collections.abc import Iterable

_MOST = 40  # names in a message


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "did you mean 'x'?" if a known name is close to `name`, else "there are: a, b"; ignores case."""
    import difflib  # only a mistake pays for it

    by_key = {_key(other): other for other in known}
    close = difflib.get_close_matches(_key(name), by_key, n=1)
    if close:
        return f"did you mean {by_key[close[0]]!r}?"
    more = f" and {len(by_key) - _MOST} more" if len(by_key) > _MOST else ""
    return f"there are: {', '.join([*by_key.values()][:_MOST]) or 'none'}{more}"


def _key(name: str) -> str:
    return name.lower().replace("-", "_")
