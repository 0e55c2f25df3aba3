"""Who is asking: a token a rater in the address they were given, of which only the SHA-256 is kept.

The token is in the address's fragment, which browsers send to nobody; the page sends it as a header.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time

from foleypref.annotate.book import EventBook
from foleypref.annotate.rows import Rater
from foleypref.annotate.settings import OPERATOR, check_name

REFRESH_S = 2.0  # after this, raters that another server on the same book added are known here


class Doorkeeper:
    """Tells tokens apart, and makes them."""

    def __init__(self, book: EventBook) -> None:
        self.book = book
        self._lock = threading.Lock()
        self._raters: list[Rater] = []
        self._read_at = -REFRESH_S

    def known(self) -> list[Rater]:
        """Everybody with an address."""
        with self._lock:
            if time.monotonic() - self._read_at >= REFRESH_S:
                self._raters, self._read_at = self.book.raters(), time.monotonic()
            return self._raters

    def names(self) -> list[str]:
        """The raters, without the operator."""
        return [rater.name for rater in self.known() if rater.role != OPERATOR]

    def who(self, token: str) -> Rater | None:
        """Whose token this is. Takes as long for a wrong one as for a right one."""
        presented = hash_of(token)
        found = None
        for rater in self.known():
            if hmac.compare_digest(rater.token_hash, presented):
                found = rater
        return found

    def new_token(self, name: str, role: str = "rater") -> str:
        """A token for a new rater, or another one for a known rater whose old one ends."""
        check_name(name)
        if (name == OPERATOR) != (role == OPERATOR):
            raise ValueError(f"the name {OPERATOR!r} is the operator's; choose another")
        token = secrets.token_urlsafe(32)
        self.book.put_rater(name, role, hash_of(token))
        with self._lock:
            self._read_at = -REFRESH_S
        return token


def hash_of(token: str) -> str:
    """What is kept of a token. It has 256 random bits, so a plain hash cannot be searched."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
