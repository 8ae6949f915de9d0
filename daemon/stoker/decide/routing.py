"""What the router is to do: each service's address and the workers behind it. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from stoker.decide.pool import Pool, is_ready, pools
from stoker.model.replica import Replica
from stoker.model.service import DesiredState, ServiceKey
from stoker.model.state import ObservedState, Route, RoutingTable, WorkerRoute


def routing_table(
    desired: DesiredState, observed: ObservedState, addresses: Mapping[ServiceKey, tuple[str, int]]
) -> RoutingTable:
    """Return the table for all services that have an address. Pure.

    A service that is gone keeps its route while workers of it finish their requests, if `addresses` still
    knows it and no other service has its address now.
    """
    in_use = {addresses[key] for key in desired.services if key in addresses}
    return RoutingTable(
        routes={
            key: _route(pool, observed, *addresses[key])
            for key, pool in pools(desired, observed).items()
            if key in addresses
            and (pool.spec is not None or (_workers(pool) and addresses[key] not in in_use))
        }
    )


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
    return replica.ready_at is not None and replica.alive and not replica.condemned


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
    return ""
