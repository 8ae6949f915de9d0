"""Who may ask, and for what: decided before anything is routed, for the unix socket and for TCP.

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

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stoker.api.answers import JSONResponse
from stoker.api.problems import MEDIA_TYPE, plain_problem
from stoker.api.roles import Allowance, Role, may

OPEN = ("/", "/healthz")
"""Paths that need no token: the page, which holds no data, and the sign of life."""
OPEN_BELOW = "/page/"
FAILURES = 20
PERIOD = 60.0
"""Wrong tokens from all peers within so many seconds, beyond which further ones are told to wait."""
RATE, BURST = 50.0, 300.0
"""Requests a second that one address on TCP, or all viewers of the socket together, may send for long, and
how many at once: fifty pages that are opened again together ask for three hundred things."""
ROLE_HEADER = "stoker-role"
"""Says with each answer what the one who asked may do, so that the page offers nothing else."""

_TITLES = {
    400: "Bad request",
    401: "Unauthorized",
    403: "Forbidden",
    421: "Misdirected request",
    429: "Too many requests",
}
_HEADERS = {401: {"www-authenticate": 'Bearer realm="stoker"'}, 429: {"retry-after": "1"}}


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


class _Refused(Exception):
    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


class Guard:
    """An ASGI application in front of another. `role`: what each peer may do, who is known already; without
    it one of `tokens` says so. `names` are host names beside IP literals and names without a dot under which
    the daemon may be reached."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        now: Callable[[], float],
        role: Role | None = None,
        tokens: Mapping[str, Role] | None = None,
        names: tuple[str, ...] = (),
    ) -> None:
        self.state = getattr(app, "state", None)
        self._app = app
        self._role = role
        self._tokens = dict(tokens or {})
        self._names = frozenset(name.lower() for name in names)
        self._refused = Refusals(now)
        self._allowance = None if role == "operate" else Allowance(now, rate=RATE, burst=BURST)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            role = self._admit(scope)
        except _Refused as no:
            answer = JSONResponse(
                plain_problem(no.status, _TITLES[no.status], no.detail),
                status_code=no.status, media_type=MEDIA_TYPE, headers=_HEADERS.get(no.status),
            )  # fmt: skip
            await answer(scope, receive, send)
        else:
            await self._app(scope, receive, send if role is None else _with_role(role, send))

    def _admit(self, scope: Scope) -> Role | None:
        """What the one who asks may do, None where it does not matter. Raises _Refused."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        host, method = headers.get("host", ""), scope["method"]
        if sum(name == b"host" for name, _ in scope["headers"]) > 1:
            raise _Refused(400, "more than one Host header: which of them is meant?")
        if not known_host(host, self._names):
            raise _Refused(421, f"this daemon is not called {host!r}; use its IP address or localhost")
        if foreign(headers, method):
            raise _Refused(403, "a page of another site may not talk to this daemon")
        if self._allowance is not None and not self._allowance.take((scope.get("client") or ("", 0))[0]):
            raise _Refused(429, f"more than {RATE:g} requests a second; ask less often")
        if scope["path"] in OPEN or scope["path"].startswith(OPEN_BELOW):
            return None
        role = self._role or self._holder(headers.get("authorization", ""))
        if not may(role, method):
            raise _Refused(403, f"you may look, not change: {method} {scope['path']} takes the role operate")
        return role

    def _holder(self, authorization: str) -> Role:
        """What the holder of a token may do. Whatever others have tried: nobody can lock out those who hold
        one. Raises _Refused."""
        scheme, _, given = authorization.partition(" ")
        sent = given.strip().encode("utf-8")
        # Compared with all of them, in the same time whichever it is.
        found = [role for token, role in self._tokens.items() if hmac.compare_digest(sent, token.encode())]
        if found and scheme.lower() == "bearer":
            return found[0]
        if given and not found:
            self._refused.add()
        if self._refused.many:
            raise _Refused(429, "too many wrong tokens; wait a minute")
        raise _Refused(401, "this address wants the daemon's token: `stoker ui` shows it")


def _with_role(role: Role, send: Send) -> Send:
    async def told(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)[ROLE_HEADER] = role
        await send(message)

    return told


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
