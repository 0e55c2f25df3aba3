"""ASGI middleware before the application: checks host, origin and size, and adds security headers.

There are no cookies, so a request from another site's page carries no token; its Origin is refused as well. A
server on loopback answers only to loopback's names. Starlette's TrustedHostMiddleware is no substitute: it
cuts a host at its first colon, so that it cannot tell IPv6 addresses, and its answer is not our JSON.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from starlette.responses import JSONResponse

from foleypref.annotate.settings import LOOPBACK, is_loopback

MAX_BODY = 64 * 1024  # bytes

HEADERS = {
    "content-security-policy": (
        "default-src 'self'; media-src 'self' blob:; img-src 'self' blob: data:; style-src 'self'; "
        "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


class Guard:
    """The middleware. `host`: the address the server listens on; `public_url`: that of a proxy, if any."""

    def __init__(self, app: Any, host: str, public_url: str = "") -> None:
        self.app, self.public = app, urlsplit(public_url)
        names = {*LOOPBACK, host, self.public.hostname}
        self.names = names if is_loopback(host) else None  # None: any name that the machine has

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Refuse a request or pass it on; every answer gets the headers."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                present = {name for name, _ in message["headers"]}
                more = [(k.encode(), v.encode()) for k, v in HEADERS.items() if k.encode() not in present]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        try:
            refusal = self._refusal(dict(headers), [value for name, value in headers if name == "origin"])
        except ValueError:  # a malformed address or length
            refusal = 400, "a header cannot be read"
        if refusal is None:
            await self.app(scope, receive, send_guarded)
        else:
            status, reason = refusal
            closing = {"connection": "close"}  # the rest of the request is not read
            await JSONResponse({"reason": reason}, status, closing)(scope, receive, send_guarded)

    def _refusal(self, headers: dict[str, str], origins: list[str]) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if self.names is not None and urlsplit(f"//{host}").hostname not in self.names:
            return 400, "this server answers only to its own name"
        own = [("http", host), ("https", host), (self.public.scheme, self.public.netloc)]
        senders = [urlsplit(origin) for origin in origins]
        if not all(sender.netloc and (sender.scheme, sender.netloc) in own for sender in senders):
            return 403, "another site's page sent this"
        if int(headers.get("content-length", "0")) > MAX_BODY:
            return 413, f"a request has at most {MAX_BODY} bytes"
        return None
