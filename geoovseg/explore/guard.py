"""Who may ask: the one with the token of the address, on this machine, from the page itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from hmac import compare_digest
from typing import Any
from urllib.parse import parse_qs

LOOPBACK = ("127.0.0.1", "localhost", "::1")
EVERYWHERE = ("0.0.0.0", "::")
POLICY = (
    "default-src 'none'", "script-src 'self'", "worker-src blob:", "style-src 'self' 'unsafe-inline'",
    "img-src 'self' data: blob:", "connect-src 'self'", "base-uri 'none'", "form-action 'none'",
    "frame-ancestors 'none'",
)  # fmt: skip
SAFE = {
    "Content-Security-Policy": "; ".join(POLICY),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Headers of every answer: nothing is loaded from elsewhere, nothing is framed, nothing is kept."""
Scope = MutableMapping[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]


@dataclass(frozen=True)
class Guard:
    """Lets a request through only with the token, to this host, and from its own page."""

    app: App
    token: str
    hosts: tuple[str, ...]
    """names with ports under which this may be asked for; none: any"""

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Refuse with 403, or hand over."""
        if scope["type"] == "http" and (why := self.refuses(scope)):
            headers = [(b"content-type", b"text/plain; charset=utf-8")]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": f"refused: {why}\n".encode()})
        elif scope["type"] != "websocket":
            await self.app(scope, receive, send)

    def refuses(self, scope: Scope) -> str:
        """Why a request is refused; empty where it is not."""
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        host = headers.get("host", "").lower()
        if self.hosts and host not in self.hosts:
            return "another host than that of the address"
        if (origin := headers.get("origin")) is not None and origin.lower() != f"http://{host}":
            return "it comes from another page"
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return "it comes from another site"
        given = headers.get("x-geoovseg-token", "")
        if scope["method"] in ("GET", "HEAD") and not given:  # what is written needs the header, which no form can send
            given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        known = compare_digest(given.encode(), self.token.encode())
        return "" if known else "the token of the address is missing"


def hosts_of(host: str, port: int) -> tuple[str, ...]:
    """Under which names the page may be asked for; on this machine alone those of the loopback."""
    if host in EVERYWHERE:
        return ()
    names = ("127.0.0.1", "localhost", "[::1]") if host in LOOPBACK else (f"[{host}]" if ":" in host else host.lower(),)
    return tuple(name + end for name in names for end in ([f":{port}", ""] if port == 80 else [f":{port}"]))
