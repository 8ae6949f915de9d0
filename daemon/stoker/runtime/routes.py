"""Hands the routing table to the router: always the newest, one at a time."""

from __future__ import annotations

import anyio

from stoker.model.state import RoutingTable
from stoker.plugin.ports import Router


class RouteFeed:
    """Between the control loop, which makes tables, and the router, which takes its time."""

    def __init__(self) -> None:
        self._table = RoutingTable()
        self._known: frozenset[str] | None = None
        """None: nothing was published yet. The router may still go by the table of the daemon before."""
        self._changed = anyio.Event()

    def publish(self, table: RoutingTable) -> None:
        """The table that counts from now on."""
        self._table = table
        self._known = frozenset(worker.id for route in table.routes.values() for worker in route.workers)
        self._changed.set()

    def knows(self, replica: str) -> bool:
        """Whether the router may have requests in flight to that replica."""
        return self._known is None or replica in self._known

    async def run(self, router: Router) -> None:
        """Serve until cancelled."""
        while True:
            await self._changed.wait()
            self._changed = anyio.Event()
            await router.apply(self._table)
