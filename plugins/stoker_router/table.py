"""The routing table as the program reads it from the wire. Light values, no import of the daemon's model."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_network
from typing import Any, NamedTuple


class WorkerConfig(NamedTuple):
    """One worker: where it is and how many requests it gets at a time (None: no limit). `host` is the path of
    a unix socket where `port` is 0."""

    id: str
    host: str
    port: int
    concurrency: int | None
    draining: bool


class TlsConfig(NamedTuple):
    """Files of a certificate and its key; `version` tells their content from another."""

    cert: str
    key: str
    version: str


class RouteConfig(NamedTuple):
    """One service: its address, its limits, its workers. `prefer`: the port to take again if `port` is 0."""

    service: str
    host: str
    port: int
    prefer: int = 0
    timeout: float = 60.0
    max_queue: int = 1000
    max_concurrency: int | None = None
    retry: str = "idempotent"
    protocol: str = "http"
    held: str = ""
    leaving: bool = False
    inner: bool = False
    workers: tuple[WorkerConfig, ...] = ()
    tls: TlsConfig | None = None
    proxy_protocol: bool = False
    trusted_proxies: tuple[str, ...] = ()
    max_body: int | None = None
    priority_header: str | None = None
    timeout_header: str | None = None
    access_log: float = 0.0
    trace: str = "pass"


class RuleConfig(NamedTuple):
    """Which requests at a door go to a service."""

    service: str
    host: str
    path: str
    strip: bool


class DoorConfig(NamedTuple):
    """One address for several services. `service` is its name among the addresses, which no service has."""

    service: str
    host: str
    port: int
    tls: TlsConfig | None
    proxy_protocol: bool
    trusted_proxies: tuple[str, ...]
    waiting_page: float | None
    rules: tuple[RuleConfig, ...]
    prefer: int = 0


class Table(NamedTuple):
    """All routes and doors, by name."""

    routes: Mapping[str, RouteConfig]
    doors: Mapping[str, DoorConfig]


def read_table(routes: list[Mapping[str, Any]], doors: list[Mapping[str, Any]] | None = None) -> Table:
    """The routes and doors by name. Raises KeyError, TypeError or ValueError for what is no table. Fields
    that this program does not know are left alone: a newer daemon may have adopted it."""
    return Table(
        {route["service"]: _route(dict(route)) for route in routes},
        {door["service"]: _door(dict(door)) for door in doors or ()},
    )


def _route(raw: dict[str, Any]) -> RouteConfig:
    workers = tuple(_worker(worker) for worker in raw.pop("workers"))
    known = _address({name: value for name, value in raw.items() if name in RouteConfig._fields})
    return RouteConfig(**known, workers=workers)


def _door(raw: dict[str, Any]) -> DoorConfig:
    rules = tuple(RuleConfig(*(rule[name] for name in RuleConfig._fields)) for rule in raw.pop("rules"))
    known = _address({name: value for name, value in raw.items() if name in DoorConfig._fields})
    return DoorConfig(**known, rules=rules)


def _address(known: dict[str, Any]) -> dict[str, Any]:
    """The fields of an address in their own types."""
    tls = known.get("tls")
    known["tls"] = None if tls is None else TlsConfig(tls["cert"], tls["key"], tls["version"])
    known["trusted_proxies"] = tuple(str(ip_network(text)) for text in known.get("trusted_proxies", ()))
    return known


def _worker(raw: Mapping[str, Any]) -> WorkerConfig:
    host, port = split_address(raw["endpoint"])
    return WorkerConfig(raw["id"], host, port, raw["concurrency"], raw["draining"])


def split_address(address: str) -> tuple[str, int]:
    """`host:port`, `[host]:port` or `unix:/path` in its parts. Raises ValueError."""
    if address.startswith("unix:/"):
        return address[5:], 0
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
