"""The configuration of one HAProxy process: one service, read once at its start. Pure.

What may change while it runs is not in it: workers come and go by the admin socket, and the limits that are
variables of the process (`proc.*`) are set there too.
"""

from __future__ import annotations

import base64
import json
import resource
from dataclasses import dataclass
from pathlib import Path
from string import Template

from stoker.model.state import Route
from stoker_haproxy.places import Places

LUA = Path(__file__).with_name("hold.lua")
_OTHER_FILES = 100
"""Descriptors for what is no request."""
MOST_CONNECTIONS = 20_000
"""Clients at a time; each costs two descriptors."""
LOG_ALL, LOG_ONE_IN = 500, 50
"""Up to so many requests a second each is told when it ends, beyond that one of so many."""
NO_LIMIT = 1_000_000_000
RETRY_HELD, RETRY_FULL = 5, 1
"""Retry-After, in seconds, of a service that is held and of one that has too much to do."""
_LONGEST = 2_000_000_000
"""Milliseconds; HAProxy takes 24 days."""
UNREACHABLE = "no worker could be reached"


@dataclass(frozen=True, slots=True)
class Settings:
    """What is fixed at the start of a process. A service that wants another gets a new process."""

    timeout: float
    protocol: str
    retry: str

    @classmethod
    def of(cls, route: Route) -> Settings:
        """What the route asks for."""
        return cls(route.timeout, route.protocol, route.retry)


def encoded(text: str) -> str:
    """A text as a value that needs no quotes on the admin socket; read there by `ub64dec`."""
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def body(reason: str) -> str:
    """The body of an answer of the router itself."""
    return json.dumps({"error": reason})


def why(settings: Settings, reason: str) -> str:
    """What `proc.why` is to be: the reason as a client of that protocol reads it."""
    return encoded(reason if settings.protocol == "grpc" else body(reason))


def configuration(
    service: str, settings: Settings, places: Places, *, ear: str, address: tuple[str, int]
) -> str:
    """The whole file. `ear`: the socket for what is logged; `address`: that of the listening socket it is
    handed; there a client without TLS says at once whether it speaks HTTP/1.1 or HTTP/2."""
    host, port = address
    refuse = _refuse_grpc if settings.protocol == "grpc" else _refuse
    return _FILE.substitute(
        service=service,
        most=min(MOST_CONNECTIONS, (resource.getrlimit(resource.RLIMIT_NOFILE)[1] - _OTHER_FILES) // 2),
        admin=places.admin,
        lua=f"{LUA} {places.plug} {places.record} {places.name}",
        ear=ear,
        no_limit=NO_LIMIT,
        why=why(settings, UNREACHABLE),
        timeout=max(1, min(int(settings.timeout * 1000), _LONGEST)),
        errors="\n".join(_errors()),
        bind=f"{'ipv6' if ':' in host else 'ipv4'}@{host}:{port}",
        name=places.name,
        log_all=LOG_ALL,
        one_in=LOG_ONE_IN,
        held=refuse(1, 503, RETRY_HELD, "%[var(proc.why),ub64dec]"),
        many=refuse(2, 429, RETRY_FULL, "too many requests at once"),
        full=refuse(3, 503, RETRY_FULL, "%[queue(pool)] requests are already waiting"),
        plug=places.plug,
        sink=places.sink,
        longest=_LONGEST,
        retry=_RETRY[settings.retry],
    )


def _refuse(number: int, status: int, retry_after: int, reason: str) -> str:
    """The answer to a request that was found to be refused for that reason."""
    text = reason if reason.startswith("%[var") else body(reason)
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    return (
        f"http-request return status {status} content-type application/json"
        f' hdr Retry-After {retry_after} lf-string "{quoted}" if {{ var(txn.refused) -m int {number} }}'
    )


def _refuse_grpc(number: int, status: int, retry_after: int, reason: str) -> str:
    """The same in gRPC's own words: an answer of trailers only."""
    code = {503: 14, 429: 8}[status]
    return (
        "http-request return status 200 hdr content-type application/grpc"
        f' hdr grpc-status {code} hdr grpc-message "{reason}" if {{ var(txn.refused) -m int {number} }}'
    )


def _errors() -> list[str]:
    """HAProxy's own answers as JSON; 503 has words that can be set while it runs."""
    fixed = {
        400: "the request is malformed",
        408: "the request did not come in time",
        500: "the router could not go on",
        502: "the worker broke off without an answer",
        504: "the worker did not answer in time",
    }
    lines = [
        f"  http-error status {status} content-type application/json string '{body(reason)}'"
        for status, reason in fixed.items()
    ]
    return [
        *lines,
        '  http-error status 503 content-type application/json lf-string "%[var(proc.why),ub64dec]"',
    ]


_RETRY = {
    "idempotent": "http-request disable-l7-retry unless { method GET HEAD OPTIONS TRACE PUT DELETE }",
    "always": "# any request that got no answer is sent again",
    "never": "http-request disable-l7-retry",
}
_FILE = Template(Path(__file__).with_name("service.cfg").read_text())
