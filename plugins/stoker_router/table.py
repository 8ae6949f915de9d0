"""The routing table as the program reads it from the wire. Light values, no import of the daemon's model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class WorkerConfig(NamedTuple):
    """One worker: where it is and how many requests it gets at a time (None: no limit)."""

    id: str
    host: str
    port: int
    concurrency: int | None
    draining: bool


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
    workers: tuple[WorkerConfig, ...] = ()


def read_table(routes: list[Mapping[str, Any]]) -> dict[str, RouteConfig]:
    """The routes by service. Raises KeyError, TypeError or ValueError for what is no table. Fields that this
    program does not know are left alone: a newer daemon may have adopted it."""
    return {route["service"]: _route(dict(route)) for route in routes}


def _route(raw: dict[str, Any]) -> RouteConfig:
    workers = tuple(_worker(worker) for worker in raw.pop("workers"))
    known = {name: value for name, value in raw.items() if name in RouteConfig._fields}
    return RouteConfig(**known, workers=workers)


def _worker(raw: Mapping[str, Any]) -> WorkerConfig:
    host, port = split_address(raw["endpoint"])
    return WorkerConfig(raw["id"], host, port, raw["concurrency"], raw["draining"])


def split_address(address: str) -> tuple[str, int]:
    """`host:port` or `[host]:port` in its parts. Raises ValueError."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
