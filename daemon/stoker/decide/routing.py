"""What the router is to do: each service's address and the workers behind it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stoker.decide.pool import Pool, is_ready, pools
from stoker.model.replica import Replica
from stoker.model.service import DesiredState, ServiceKey
from stoker.model.state import ObservedState, Route, RoutingTable, WorkerRoute

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class _Made:
    """A route and what it was made of. `workers`: each with the replica that it stands for."""

    pool: Pool
    address: Address
    stopping: bool
    route: Route
    workers: Mapping[str, tuple[Replica, WorkerRoute]]


class RouteMemo:
    """Routes that may be made again of the very same. Tables are the same with and without it."""

    def __init__(self) -> None:
        self._made: dict[ServiceKey, _Made] = {}

    def route(self, pool: Pool, observed: ObservedState, address: Address) -> Route:
        """The route of a pool, made anew only as far as it is not known."""
        made = self._made.get(pool.key)
        if (
            made is None
            or made.pool is not pool
            or made.address != address
            or made.stopping != observed.stopping
        ):
            known = made.workers if made is not None and made.pool.spec is pool.spec else {}
            workers = _workers(pool, known)
            plain = tuple(worker for _, worker in workers.values())
            route = _route(pool, observed, address, plain)
            made = self._made[pool.key] = _Made(pool, address, observed.stopping, route, workers)
        return made.route

    def forget_others(self, routes: Mapping[ServiceKey, Route]) -> None:
        """Keep no more than these."""
        if len(self._made) > len(routes):
            self._made = {key: made for key, made in self._made.items() if key in routes}


def routing_table(
    desired: DesiredState,
    observed: ObservedState,
    addresses: Mapping[ServiceKey, Address],
    *,
    found: Mapping[ServiceKey, Pool] | None = None,
    memo: RouteMemo | None = None,
) -> RoutingTable:
    """Return the table for all services that have an address. Pure. `found`: the pools of these states, where
    they are known; `memo`: the one of the table before.

    A service that is gone keeps its route while workers of it finish their requests, if `addresses` still
    knows it and no other service has its address now.
    """
    memo = RouteMemo() if memo is None else memo
    found = pools(desired, observed) if found is None else found
    gone = any(pool.spec is None for pool in found.values())
    in_use = {addresses[key] for key in desired.services if key in addresses} if gone else set()
    routes = {
        key: memo.route(pool, observed, addresses[key])
        for key, pool in found.items()
        if key in addresses
        and (pool.spec is not None or (_workers(pool, {}) and addresses[key] not in in_use))
    }
    memo.forget_others(routes)
    return RoutingTable(routes=routes, doors=desired.doors)


def _route(pool: Pool, observed: ObservedState, address: Address, workers: tuple[WorkerRoute, ...]) -> Route:
    host, port = address
    held = "" if any(not worker.draining for worker in workers) else _why_never(pool, observed)
    if pool.spec is None:
        return Route(service=pool.key, host=host, port=port, workers=workers, held=held)
    traffic, endpoint = pool.spec.traffic, pool.spec.endpoint
    return Route(
        service=pool.key,
        host=host,
        port=port,
        workers=workers,
        timeout=traffic.timeout,
        max_queue=traffic.max_queue,
        max_concurrency=traffic.max_concurrency,
        retry=traffic.retry,
        protocol=traffic.protocol,
        held=held,
        tls=endpoint.tls,
        proxy_protocol=endpoint.proxy_protocol,
        trusted_proxies=endpoint.trusted_proxies,
        max_body=traffic.max_body,
        priority_header=traffic.priority_header,
        timeout_header=traffic.timeout_header,
        access_log=traffic.access_log,
        trace=traffic.trace,
    )


def _workers(
    pool: Pool, known: Mapping[str, tuple[Replica, WorkerRoute]]
) -> dict[str, tuple[Replica, WorkerRoute]]:
    """The workers in the table, by replica; of `known` those whose replica is the very same."""
    concurrency = pool.spec.traffic.concurrency if pool.spec else None
    found = {}
    for replica in pool.members:
        if (same := known.get(replica.id)) is not None and same[0] is replica:
            found[replica.id] = same
        elif replica.endpoint and _in_table(replica):
            found[replica.id] = (replica, _worker(replica, concurrency))
    return found


def _worker(replica: Replica, concurrency: int | None) -> WorkerRoute:
    return WorkerRoute(
        id=replica.id, endpoint=replica.endpoint, concurrency=concurrency, draining=not is_ready(replica)
    )


def _in_table(replica: Replica) -> bool:
    """A worker that has served stays, as draining, until its end, so that what it has in flight is not cut.
    One that no longer answers (liveness) is cut: its requests are better repeated elsewhere."""
    cut = replica.condemned and not replica.gently
    return replica.ready_at is not None and replica.alive and not cut


def _why_never(pool: Pool, observed: ObservedState) -> str:
    """Why waiting is pointless, in words for clients; "" where a worker may come."""
    name = pool.key.rpartition("/")[2]
    if pool.spec is None:
        return f"service {name} is no longer configured"
    if pool.spec.held:
        return f"service {name} is stopped by the operator"
    if observed.stopping:
        return f"service {name} is being stopped with all others"
    if pool.spec.scaling.max_replicas == 0:
        return f"service {name} has max_replicas 0"
    return _crash_loop(pool)


def _crash_loop(pool: Pool) -> str:
    """That no try has a chance just now: all replicas are in a crash loop, between two tries. The pool goes
    on trying, also for those who are refused meanwhile."""
    failing = [
        r
        for r in pool.counted
        if r.phase == "pending" and pool.spec and r.failures >= pool.spec.restart.crash_loop
    ]
    if not failing or len(failing) < len(pool.counted):
        return ""
    return f"service {pool.key.rpartition('/')[2]} is in a crash loop: {failing[0].failure}"
