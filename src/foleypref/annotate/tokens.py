"""Tokens: each rater's address contains one, and the event log has only its SHA-256.

The token is in the fragment of the address, which browsers do not send; the page sends it in a header.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time

from foleypref.annotate.event_log import EventLog
from foleypref.annotate.rows import Rater
from foleypref.annotate.settings import OPERATOR, check_name

REFRESH_S = 2.0  # seconds until raters that another server on the same log has added are known here


class Tokens:
    """Creates tokens, and tells whose token a request carries."""

    def __init__(self, log: EventLog) -> None:
        self.log = log
        self._lock = threading.Lock()
        self._raters: list[Rater] = []
        self._read_time = -REFRESH_S

    def raters(self) -> list[Rater]:
        """Return everybody who has an address, including the operator."""
        with self._lock:
            if time.monotonic() - self._read_time >= REFRESH_S:
                self._raters, self._read_time = self.log.raters(), time.monotonic()
            return self._raters

    def names(self) -> list[str]:
        """Return the raters' names, without the operator."""
        return [rater.name for rater in self.raters() if rater.role != OPERATOR]

    def who(self, token: str) -> Rater | None:
        """Return whose token this is. A wrong token takes as long as a right one."""
        presented = hash_of(token)
        owners = [r for r in self.raters() if hmac.compare_digest(r.token_hash, presented)]
        return owners[0] if owners else None

    def new_token(self, name: str, role: str = "rater") -> str:
        """Return a token for a new rater, or one that replaces the token of a rater who has one."""
        check_name(name)
        if (name == OPERATOR) != (role == OPERATOR):
            raise ValueError(f"the name {OPERATOR!r} is the operator's; choose another")
        token = secrets.token_urlsafe(32)
        self.log.put_rater(name, role, hash_of(token))
        with self._lock:
            self._read_time = -REFRESH_S
        return token


def hash_of(token: str) -> str:
    """Return a token's SHA-256. A plain hash is enough, as 256 random bits cannot be guessed."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
