"""Who may ask at all: decided before anything is routed, for the unix socket and for TCP.

On the unix socket the kernel has said who the peer is; on TCP a bearer token does. Either way a request that
a browser sends on behalf of another site is refused: what reaches the daemon through a forwarded port carries
the authority of whoever forwards it, and any page in that person's browser can send requests there.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections import deque
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from stoker.api.problems import MEDIA_TYPE, plain_problem

OPEN = ("/", "/healthz")
"""Paths that need no token: the page, which holds no data, and the sign of life."""
OPEN_BELOW = "/page/"
FAILURES = 20
PERIOD = 60.0
"""Wrong tokens from all peers within so many seconds, beyond which further ones are told to wait."""


class Refusals:
    """Counts wrong tokens, so that guessing is told apart. `now` gives monotonic seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._times: deque[float] = deque(maxlen=FAILURES)

    def add(self) -> None:
        """One more."""
        self._times.append(self._now())

    @property
    def many(self) -> bool:
        """Whether there were too many just now."""
        return len(self._times) == FAILURES and self._now() - self._times[0] < PERIOD


class Guard:
    """An ASGI application in front of another. `token` None: the peer is known already. `names` are host
    names beside IP literals and names without a dot under which the daemon may be reached."""

    def __init__(
        self, app: ASGIApp, *, now: Callable[[], float], token: str | None = None, names: tuple[str, ...] = ()
    ) -> None:
        self.state = getattr(app, "state", None)
        self._app = app
        self._token = token
        self._names = frozenset(name.lower() for name in names)
        self._refused = Refusals(now)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (refusal := self._refusal(scope)):
            status, detail = refusal
            headers = {"www-authenticate": 'Bearer realm="stoker"'} if status == 401 else None
            titles = {
                401: "Unauthorized",
                403: "Forbidden",
                421: "Misdirected request",
                429: "Too many requests",
            }
            answer = JSONResponse(
                plain_problem(status, titles[status], detail),
                status_code=status, media_type=MEDIA_TYPE, headers=headers,
            )  # fmt: skip
            await answer(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """The status and the words, None for what may pass."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "")
        if not known_host(host, self._names):
            return 421, f"this daemon is not called {host!r}; use its IP address or localhost"
        if foreign(headers, scope["method"]):
            return 403, "a page of another site may not talk to this daemon"
        if self._token is None or scope["path"] in OPEN or scope["path"].startswith(OPEN_BELOW):
            return None
        if self._holds(headers.get("authorization", "")):
            return None  # whatever others have tried: nobody can lock out those who hold it
        if self._refused.many:
            return 429, "too many wrong tokens; wait a minute"
        return 401, "this address wants the daemon's token: `stoker ui` shows it"

    def _holds(self, authorization: str) -> bool:
        scheme, _, given = authorization.partition(" ")
        assert self._token is not None
        right = hmac.compare_digest(given.strip().encode("utf-8"), self._token.encode())
        if given and not right:
            self._refused.add()
        return right and scheme.lower() == "bearer"


def known_host(host: str, names: frozenset[str] = frozenset()) -> bool:
    """Whether a Host header may be ours: an IP literal, a name without a dot, or one of `names`. A foreign
    site that lets its name point here (DNS rebinding) has a dot in it. Pure."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return "." not in name.rstrip(".") or name in names or name.endswith(".localhost")
    return True


def foreign(headers: Mapping[str, str], method: str) -> bool:
    """Whether a browser sends this on behalf of another site. Following a link is no fault. Pure."""
    site = headers.get("sec-fetch-site", "none")
    if site in {"cross-site", "same-site"}:
        link = headers.get("sec-fetch-mode") == "navigate" and method in {"GET", "HEAD"}
        return not link
    origin = headers.get("origin")
    if origin is None:
        return False
    try:
        return urlsplit(origin).netloc.lower() != headers.get("host", "").lower()
    except ValueError:
        return True
