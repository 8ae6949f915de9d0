"""The configuration of one HAProxy process: one service, read once at its start. Pure.

What may change while it runs is not in it: workers come and go by the admin socket, and the limits that are
variables of the process (`proc.*`) are set there too.
"""

from __future__ import annotations

import base64
import json
import resource
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

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
_LARGEST = 1 << 60
"""Bytes of a body without a limit."""
UNREACHABLE = "no worker could be reached"


@dataclass(frozen=True, slots=True)
class Settings:
    """What is fixed at the start of a process. A service that wants another gets a new process."""

    timeout: float
    protocol: str
    retry: str
    max_body: int | None = None
    proxy_protocol: bool = False
    trusted: tuple[str, ...] = ()
    cert: str = ""
    key: str = ""
    version: str = ""
    """Of the certificate: another one is served by another process."""
    door: bool = False
    """It listens for the doors of another router too. Processes of an older Stoker do not."""

    @classmethod
    def of(cls, route: Route) -> Settings:
        """What the route asks for."""
        tls = route.tls
        return cls(
            timeout=route.timeout,
            protocol=route.protocol,
            retry=route.retry,
            max_body=route.max_body,
            proxy_protocol=route.proxy_protocol,
            trusted=route.trusted_proxies,
            cert="" if tls is None else tls.cert,
            key="" if tls is None else tls.key,
            version="" if tls is None else tls.version,
            door=True,
        )

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> Settings:
        """From a record. Raises TypeError for another."""
        return cls(**{**raw, "trusted": tuple(raw["trusted"])})


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
    service: str, settings: Settings, places: Places, *, ear: str, door: str, address: tuple[str, int]
) -> str:
    """The whole file. `ear`: the socket for what is logged; `door`: that for doors of another router;
    `address`: that of the listening socket it is handed; there a client without TLS says at once whether it
    speaks HTTP/1.1 or HTTP/2."""
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
        bind=f"{'ipv6' if ':' in host else 'ipv4'}@{host}:{port}{_tls(settings, places)}",
        door=door,
        proxied=_PROXIED if settings.proxy_protocol else "# connections begin with a request",
        trusted=f"src {' '.join(settings.trusted)}" if settings.trusted else "always_false",
        max_body=_LARGEST if settings.max_body is None else settings.max_body,
        trailers=_TRAILERS if settings.protocol == "grpc" else "# refusals are JSON",
        large=refuse(4, 413, None, "the body is larger than it may be"),
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


def _tls(settings: Settings, places: Places) -> str:
    if not settings.cert:
        return ""
    return f" ssl crt {places.certificate} alpn h2,http/1.1 ssl-min-ver TLSv1.2"


def _refuse(number: int, status: int, retry_after: int | None, reason: str) -> str:
    """The answer to a request that was found to be refused for that reason."""
    text = reason if reason.startswith("%[var") else body(reason)
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    after = "" if retry_after is None else f" hdr Retry-After {retry_after}"
    return (
        f"http-request return status {status} content-type application/json"
        f'{after} lf-string "{quoted}" if {{ var(txn.refused) -m int {number} }}'
    )


def _refuse_grpc(number: int, status: int, retry_after: int | None, reason: str) -> str:
    """The same in gRPC's own words: an answer of trailers only."""
    code = {503: 14, 429: 8, 413: 8}[status]
    return (
        "http-request return status 200"
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


_TRAILERS = "http-after-response set-header content-type application/grpc if { var(txn.refused) -m int 1:4 }"
_PROXIED = "tcp-request connection expect-proxy layer4 if believed"
_RETRY = {
    "idempotent": "http-request disable-l7-retry unless { method GET HEAD OPTIONS TRACE PUT DELETE }",
    "always": "# any request that got no answer is sent again",
    "never": "http-request disable-l7-retry",
}
_FILE = Template(Path(__file__).with_name("service.cfg").read_text())
