"""A router whose requests are coroutines: exact queues, slots and measurements, no network.

`request` is what a client sees. Everything the daemon may do wrong to a request shows here: `cut` counts
those whose worker went away under them, `refused` those that were turned away.
"""

from __future__ import annotations

import anyio
import anyio.lowlevel

from stoker.errors import RouterError
from stoker.model.service import ServiceKey
from stoker.model.state import Route, RoutingTable, WorkerRoute
from stoker.plugin.ports import RouterEvents
from stoker_fake.box import FakeBox
from stoker_fake.line import Flight, Line, Turn

PERIOD = 1.0
"""Seconds between two samples of a service that is not at rest."""
DEMAND_PERIOD = 0.1
"""Least seconds between two words that a request waits at zero replicas."""


class RequestRefusedError(RouterError):
    """Raised to the client of a fake request that was turned away, with what it would read."""


class FakeRouter:
    """Carries fake requests to the workers of a box. `drain_delay`: seconds before it tells that a worker is
    drained; None: it never does."""

    def __init__(self, box: FakeBox, *, drain_delay: float | None = 0.0) -> None:
        self.drain_delay = drain_delay
        self.table = RoutingTable()
        self.tables: list[RoutingTable] = []
        self.answered = 0
        self.refused = 0
        self.cut = 0
        self.longest_wait = 0.0
        self._box = box
        self._events: RouterEvents | None = None
        self._lines: dict[ServiceKey, Line] = {}
        self._told: set[str] = set()
        self._moved = anyio.Event()
        box.listen(self._stir)

    # -- the port --------------------------------------------------------------------------------------

    async def run(self, events: RouterEvents) -> None:
        """Serve callbacks until cancelled."""
        self._events = events
        for route in self.table.routes.values():
            events.bound(route.service, route.host, route.port)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._measure, events)
            tasks.start_soon(self._tell_drained, events)

    async def apply(self, table: RoutingTable) -> None:
        """Take the table over; requests on workers that are no longer in it are cut."""
        await anyio.lowlevel.checkpoint()
        known, self.table = self.table.routes, table
        self.tables.append(table)
        for route in table.routes.values():
            if self._events and route.service not in known:
                self._events.bound(route.service, route.host, route.port)
        self._told &= {w.id for route in table.routes.values() for w in route.workers if w.draining}
        self._stir()
        for line in self._lines.values():
            self._dispatch(line)

    async def stop(self, grace: float) -> None:
        """Wait for what is in flight, at most `grace` seconds."""
        with anyio.move_on_after(grace):
            while any(line.flights for line in self._lines.values()):
                await self._moved.wait()

    # -- for scenarios ---------------------------------------------------------------------------------

    async def request(self, service: ServiceKey, seconds: float) -> str:
        """One request that takes `seconds` in a worker; returns the id of the replica that answered it.

        A request whose worker goes away is repeated on another. Raises RequestRefusedError.
        """
        line, began = self._line(service), anyio.current_time()
        line.arrive(began)
        self._tell_moved()
        while True:
            flight = await self._slot(line)
            if await self._carry(line, flight, seconds):
                waited = anyio.current_time() - began - seconds
                line.complete(served=seconds, waited=waited)
                self.answered += 1
                self.longest_wait = max(self.longest_wait, waited)
                return flight.worker
            self.cut += 1

    # -- queue and slots -------------------------------------------------------------------------------

    async def _slot(self, line: Line) -> Flight:
        """Wait in the queue for a worker's slot."""
        route = self._route(line)
        turn = Turn()
        line.wait(turn, anyio.current_time())
        self._demand(line, route)
        self._dispatch(line)
        with anyio.move_on_after(route.timeout):
            await turn.come.wait()
        if turn.flight is None:
            line.give_up(turn, anyio.current_time())
            self.refused += 1
            raise RequestRefusedError(f"no worker of {line.service} became free in {route.timeout:g} s")
        return turn.flight

    def _route(self, line: Line) -> Route:
        """The route a request may wait for. Raises RequestRefusedError."""
        route = self.table.routes.get(line.service)
        if route is not None and not route.held and len(line.queue) < route.max_queue:
            return route
        self.refused += 1
        why = "there is no such service" if route is None else route.held or "the queue is full"
        raise RequestRefusedError(f"{line.service}: {why}")

    def _dispatch(self, line: Line) -> None:
        """Give free slots to the first in the queue, least loaded worker first."""
        route = self.table.routes.get(line.service)
        while line.queue and route is not None:
            free = [worker for worker in route.workers if self._has_slot(line, worker)]
            if not free:
                return
            line.serve_first(min(free, key=lambda w: line.on(w.id)).id, anyio.current_time())

    def _has_slot(self, line: Line, worker: WorkerRoute) -> bool:
        room = worker.concurrency is None or line.on(worker.id) < worker.concurrency
        return not worker.draining and room and self._reaches(line, worker.id)

    async def _carry(self, line: Line, flight: Flight, seconds: float) -> bool:
        """Hold the slot for the request's time; False if the worker went away before the answer."""
        done_at = anyio.current_time() + seconds
        try:
            while (now := anyio.current_time()) < done_at:
                if not self._reaches(line, flight.worker):
                    return False
                ends_at = self._box.worker(flight.worker).ends_at
                until = done_at if ends_at is None else min(done_at, ends_at)
                flight.stirred = anyio.Event()
                with anyio.move_on_after(until - now):
                    await flight.stirred.wait()
            return True
        finally:
            line.land(flight, anyio.current_time())
            self._tell_moved()
            self._dispatch(line)

    def _reaches(self, line: Line, worker: str) -> bool:
        route = self.table.routes.get(line.service)
        known = route is not None and any(w.id == worker for w in route.workers)
        return known and any(w.request.replica == worker for w in self._box.living(line.service))

    # -- telling the daemon ----------------------------------------------------------------------------

    def _demand(self, line: Line, route: Route) -> None:
        now = anyio.current_time()
        if any(not worker.draining for worker in route.workers) or now - line.demanded < DEMAND_PERIOD:
            return
        if self._events:
            line.demanded = now
            self._events.demand(line.service)

    async def _measure(self, events: RouterEvents) -> None:
        while True:
            while all(line.told_rest for line in self._lines.values()):
                await self._moved.wait()
            await anyio.sleep(PERIOD)
            for line in self._lines.values():
                if not line.told_rest:
                    events.sample(line.sample(anyio.current_time()))

    async def _tell_drained(self, events: RouterEvents) -> None:
        while True:
            moved = self._moved
            drained = {
                worker.id
                for route in self.table.routes.values()
                for worker in route.workers
                if worker.draining and not self._line(route.service).on(worker.id)
            }
            new, self._told = sorted(drained - self._told), self._told | drained
            if new and self.drain_delay is not None:
                await anyio.sleep(self.drain_delay)
                for worker in new:
                    events.drained(worker)
            await moved.wait()

    # -- small things ----------------------------------------------------------------------------------

    def _line(self, service: ServiceKey) -> Line:
        if service not in self._lines:
            self._lines[service] = Line(service, anyio.current_time())
        return self._lines[service]

    def _stir(self) -> None:
        """Something changed under the requests: each looks whether its worker is still there."""
        for line in self._lines.values():
            for flight in line.flights:
                flight.stirred.set()
        self._tell_moved()

    def _tell_moved(self) -> None:
        moved, self._moved = self._moved, anyio.Event()
        moved.set()
