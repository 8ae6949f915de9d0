"""The two states that are compared: what is wanted and what is there. Frozen snapshots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from stoker.model.device import Inventory
from stoker.model.door import LOOPBACK, Door, Tls
from stoker.model.replica import Replica
from stoker.model.replicas import Replicas
from stoker.model.service import DesiredState, ServiceKey, ServiceSpec

__all__ = ["DesiredState", "ObservedState", "Rejection", "Route", "RoutingTable", "WorkerRoute"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """A revision that did not prove itself, and the one its service is back on. `wall`: seconds since the
    epoch."""

    revision: str
    back_on: str
    reason: str
    wall: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedState:
    """What the daemon knows to be so. `targets` are the settled wanted counts; a service without one is
    wanted at `min_replicas`. `serial` makes the next replica id. `stopping`: drain everything."""

    replicas: Replicas = field(default_factory=Replicas)
    inventory: Inventory = field(default_factory=Inventory)
    targets: Mapping[ServiceKey, int] = field(default_factory=dict)
    demand: frozenset[ServiceKey] = frozenset()
    """Services for which a request waits at zero replicas."""
    serial: int = 0
    stopping: bool = False
    good: Mapping[ServiceKey, ServiceSpec] = field(default_factory=dict)
    """What each service was when it last proved itself: what an update that fails goes back to."""
    rejected: Mapping[ServiceKey, Rejection] = field(default_factory=dict)
    """Services that are not on the revision that is configured."""
    preparing: Mapping[ServiceKey, str] = field(default_factory=dict)
    """What new workers of a service wait for before they may start, in words: an image that is fetched."""
    causes: Mapping[str, str] = field(default_factory=dict)
    """Ids of the events behind wanted numbers: by service key, and under "config" and "inventory"."""

    def of(self, service: ServiceKey) -> tuple[Replica, ...]:
        """The replicas of one service, oldest first."""
        return self.replicas.of(service)

    def __post_init__(self) -> None:
        if not isinstance(self.replicas, Replicas):
            object.__setattr__(self, "replicas", Replicas(self.replicas))


UNIX = "unix:"
"""What the endpoint of a worker on a unix socket begins with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRoute:
    """One worker behind a service's address."""

    id: str
    endpoint: str
    """host:port, or unix:PATH of a socket."""
    concurrency: int | None = None
    draining: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One service's address and the workers behind it. `held` says why there will be none, "" if it is
    worth waiting. `leaving`: another router has the address now; take no new connections there, answer what
    is here and close each connection after its next answer. `inner`: another router has the address and is
    the one worker; only doors lead to it here."""

    service: ServiceKey
    host: str
    port: int
    workers: tuple[WorkerRoute, ...] = ()
    timeout: float = 60.0
    max_queue: int = 1000
    max_concurrency: int | None = None
    retry: str = "idempotent"
    protocol: str = "http"
    held: str = ""
    leaving: bool = False
    inner: bool = False
    tls: Tls | None = None
    proxy_protocol: bool = False
    trusted_proxies: tuple[str, ...] = LOOPBACK
    max_body: int | None = None
    priority_header: str | None = None
    timeout_header: str | None = None
    access_log: float = 0.0
    trace: str = "pass"


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingTable:
    """All routes, by service, and the doors that lead to them. Routers apply the difference to what they
    have."""

    routes: Mapping[ServiceKey, Route] = field(default_factory=dict)
    doors: tuple[Door, ...] = ()
