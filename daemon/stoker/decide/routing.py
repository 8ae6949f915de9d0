"""What the router is to do: each service's address and the workers behind it. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from stoker.decide.pool import Pool, is_ready, pools
from stoker.model.replica import Replica
from stoker.model.service import DesiredState, ServiceKey
from stoker.model.state import ObservedState, Route, RoutingTable, WorkerRoute

Address = tuple[str, int]


class RouteMemo:
    """Routes of pools that may be seen again unchanged. Tables are the same with and without it."""

    def __init__(self) -> None:
        self._made: dict[ServiceKey, tuple[Pool, Address, bool, Route]] = {}

    def route(self, pool: Pool, observed: ObservedState, address: Address) -> Route:
        """The route of a pool, made anew only where it is not known."""
        made = self._made.get(pool.key)
        if made is None or made[0] is not pool or made[1:3] != (address, observed.stopping):
            made = (pool, address, observed.stopping, _route(pool, observed, *address))
            self._made[pool.key] = made
        return made[3]

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
        if key in addresses and (pool.spec is not None or (_workers(pool) and addresses[key] not in in_use))
    }
    memo.forget_others(routes)
    return RoutingTable(routes=routes)


def _route(pool: Pool, observed: ObservedState, host: str, port: int) -> Route:
    workers = _workers(pool)
    held = "" if any(not worker.draining for worker in workers) else _why_never(pool, observed)
    if pool.spec is None:
        return Route(service=pool.key, host=host, port=port, workers=workers, held=held)
    traffic = pool.spec.traffic
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
    )


def _workers(pool: Pool) -> tuple[WorkerRoute, ...]:
    concurrency = pool.spec.traffic.concurrency if pool.spec else None
    return tuple(
        WorkerRoute(
            id=replica.id, endpoint=replica.endpoint, concurrency=concurrency, draining=not is_ready(replica)
        )
        for replica in pool.members
        if replica.endpoint and _in_table(replica)
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
