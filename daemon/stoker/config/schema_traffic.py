"""The keys about requests: how they reach replicas, at which addresses, by which rules."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_network
from typing import Annotated, Any, Literal

from pydantic import Field

from stoker.config.fields import (
    SECONDS_ABOVE_ZERO,
    SIZE,
    Flag,
    JsonSchema,
    Kind,
    Text,
    Whole,
    plain,
    wanted,
)
from stoker.config.section import Section
from stoker.model.door import LOOPBACK

HEADER = Text("the name of a header field", "X-Priority", r"[A-Za-z0-9-]{1,64}")
HOST = Text("a host name or address", "127.0.0.1", r"[A-Za-z0-9.:_-]+", 255)
SERVICE = Text("the name of a service", "tokenize", r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@dataclass(frozen=True, slots=True)
class Share(Kind):
    """A part of all: 0 to 1."""

    def check(self, value: Any) -> float:
        value = plain(value)
        if type(value) not in (int, float) or not 0 <= value <= 1:
            raise wanted("a number from 0 to 1, for example 0.01", value)
        return float(value)

    def json_schema(self) -> JsonSchema:
        return {"type": "number", "minimum": 0, "maximum": 1}


@dataclass(frozen=True, slots=True)
class Network(Kind):
    """An address, or a network of addresses."""

    def check(self, value: Any) -> str:
        try:
            return str(ip_network(value if isinstance(value, str) else "", strict=False))
        except ValueError:
            raise wanted("an address or a network, for example 10.0.0.0/8", value) from None

    def json_schema(self) -> JsonSchema:
        return {"type": "string", "minLength": 2}


Networks = list[Annotated[str, Network()]]


class TrafficSection(Section):
    """How requests reach the replicas."""

    concurrency: Annotated[int, Whole(1, 1_000_000, 4)] | None = None
    """Requests one replica gets at a time; the rest queue. Absent: no limit."""
    timeout: Annotated[float, SECONDS_ABOVE_ZERO] = 60.0
    """Longest time for a whole answer."""
    max_queue: Annotated[int, Whole(0, 10_000_000, 1000)] = 1000
    """Requests that may wait; more are refused with 503."""
    max_concurrency: Annotated[int, Whole(1, 10_000_000, 100)] | None = None
    """Requests of the whole service at a time, queued ones included; more are refused."""
    protocol: Literal["http", "h2", "grpc"] = "http"
    """What the service speaks: HTTP/1.1 and WebSocket, HTTP/2 without TLS, or gRPC. The last two select a
    router that speaks them, for this service alone."""
    retry: Literal["idempotent", "always", "never"] = "idempotent"
    """Which requests go to another replica if one dies before it has answered."""
    max_body: Annotated[int, SIZE] | None = None
    """Largest body of a request; a larger one is refused with 413. Absent: no limit."""
    priority_header: Annotated[str, HEADER] | None = Field(default=None, examples=["X-Priority"])
    """Field by which requests say who is served first: a whole number, the largest first, or RFC 9218's
    u=0 to u=7. Only where those who may ask are trusted to."""
    timeout_header: Annotated[str, HEADER] | None = Field(default=None, examples=["X-Request-Timeout"])
    """Field by which a request says how many seconds it is worth waiting for, at most `timeout`."""
    access_log: Annotated[float, Share()] = 0.0
    """The part of the requests that is written to the access log: 1 is all, 0.01 one in a hundred and every
    error, 0 none."""
    trace: Literal["pass", "start"] = "pass"
    """W3C trace context passes as it is; start: a request that has none is given one. See `--spans`."""


class TlsSection(Section):
    """HTTPS. The files are watched: a new certificate is used for the connections that come after it."""

    cert: Annotated[str, Text()] | None = Field(default=None, examples=["tls/cert.pem"])
    """File of the certificate and its chain (PEM), relative to the file that says it."""
    key: Annotated[str, Text()] | None = Field(default=None, examples=["tls/key.pem"])
    """File of the private key (PEM, without a passphrase), relative to the file that says it."""


class AddressSection(Section):
    """An address at which clients ask."""

    host: Annotated[str, HOST] = "127.0.0.1"
    """Address to listen on."""
    tls: TlsSection | None = None
    """Speak HTTPS there, with this certificate. Absent: HTTP."""
    proxy_protocol: Annotated[bool, Flag()] = False
    """Connections begin with a PROXY header, v1 or v2, from a trusted proxy."""
    trusted_proxies: Networks = Field(default=list(LOOPBACK), examples=[["10.0.0.0/8"]])
    """Addresses whose X-Forwarded-* fields are believed; those of all others are replaced."""


class EndpointSection(AddressSection):
    """The service's stable address."""

    port: Annotated[int, Whole(0, 65535, 8001)] = 0
    """Port to listen on; 0 is chosen once and kept."""


class IngressRouteSection(Section):
    """Which requests go to a service."""

    service: Annotated[str, SERVICE] | None = None
    """The service."""
    host: Annotated[str, HOST] | None = Field(default=None, examples=["chat.example.com"])
    """Requests that name this host. Absent: any."""
    path: Annotated[str, Text("a path that begins with /", "/chat", r"/[!-~]*")] = "/"
    """Requests for this path and all below it; of several rules the longest path counts."""
    strip: Annotated[bool, Flag()] = False
    """Leave that beginning of the path out of what the service is asked for."""


class IngressSection(AddressSection):
    """The front door: one address for several services, beside that of each. Deployments may share one."""

    port: Annotated[int, Whole(1, 65535, 8080)] = 8080
    """Port to listen on."""
    entry: Annotated[str, SERVICE] | None = Field(default=None, examples=["chat"])
    """The service that gets what no route names. Default: the one that no other depends on."""
    routes: list[IngressRouteSection] = Field(default=[], examples=[[{"service": "embed", "path": "/embed"}]])
    """Which requests go to which service."""
    waiting_page: Annotated[float, SECONDS_ABOVE_ZERO] = 2.0
    """A browser that waits so long for a service without a replica is shown a page that asks again."""
