"""The routers of one daemon as one: each service has the router that the configuration chooses for it.

A service that changes its router keeps its listening socket, where both can hand one over: the new router
takes new connections, the one before finishes what it has.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

import anyio
from anyio.abc import TaskGroup

from stoker.errors import RouterError, StokerError
from stoker.model.load import LoadSample, RequestRecord
from stoker.model.service import ServiceKey
from stoker.model.state import Route, RoutingTable, WorkerRoute
from stoker.model.trace import SpanBatch
from stoker.plugin.ports import (
    DoorRouter,
    HandingRouter,
    InnerRouter,
    RecordingRouter,
    Router,
    RouterEvents,
    TracingRouter,
    router_shortfalls,
)
from stoker.runtime.routes import RouteFeed

PATIENCE = 5.0
"""Seconds in which connections to a service's former router may still send a request."""
LONGEST = 3600.0
"""Seconds its former router gets to finish what it has."""
DOORKEEPER = "stoker"
"""The router that is made for front doors where none is in use that can open them."""
THROUGH = "router:"
"""What the id of a worker begins with that is another router."""
HTTP = frozenset({"http", "h2"})
"""Protocols of services to which a door can lead."""
LOOK = 0.5
"""Seconds between two looks whether it has."""


class _Member:
    """One router, with what it is told and what it has told last."""

    def __init__(self, name: str, router: Router) -> None:
        self.name = name
        self.router = router
        self.feed = RouteFeed()
        self.leaving: dict[ServiceKey, Route] = {}
        """Services that another one has now and that this one still finishes."""
        self.loads: dict[ServiceKey, LoadSample] = {}

    def at_rest(self, service: ServiceKey) -> bool:
        """Whether it has told of nothing that is still to be finished."""
        load = self.loads.get(service)
        if load is None:
            return True
        if any(worker.startswith(THROUGH) for worker in load.workers):  # what a door leads on is another's
            return not any(busy for worker, busy in load.workers.items() if not worker.startswith(THROUGH))
        return not (load.in_flight or load.queued)


@dataclass(frozen=True, slots=True)
class _Ears:
    """What one member calls back."""

    routers: Routers
    member: _Member

    def sample(self, sample: LoadSample) -> None:
        """The load of a service is what the router tells that has it."""
        self.member.loads[sample.service] = sample
        if self.routers.owns(self.member, sample.service):
            self.routers.events.sample(sample)

    def demand(self, service: ServiceKey) -> None:
        """Whoever holds a request needs a worker."""
        self.routers.events.demand(service)

    def drained(self, replica: str) -> None:
        """A worker is drained once every router says so that sends it requests."""
        self.routers.heard_drained(self.member, replica)

    def bound(self, service: ServiceKey, host: str, port: int) -> None:
        """See stoker.plugin.ports.RouterEvents."""
        if self.routers.owns(self.member, service):
            self.routers.events.bound(service, host, port)

    def trouble(self, service: ServiceKey, message: str) -> None:
        """See stoker.plugin.ports.RouterEvents."""
        self.routers.events.trouble(service, message)


class Routers:
    """A `RecordingRouter` (see stoker.plugin.ports) made of several.

    `make` makes a router by its name (PluginError); `choose` names the router of a service, None for one that
    is configured no more; `known`: that of the box and those that the daemon before had, whose programs may
    still run; `keep` is told the names whenever they change.
    """

    def __init__(
        self,
        *,
        make: Callable[[str], Router],
        choose: Callable[[ServiceKey], str | None],
        known: Iterable[str] = (),
        keep: Callable[[Sequence[str]], None] = lambda names: None,
    ) -> None:
        self._make = make
        self._choose = choose
        self._known = tuple(known)
        self._keep = keep
        self._members: dict[str, _Member] = {}
        self._owners: dict[ServiceKey, str] = {}
        self._table = RoutingTable()
        self._places: dict[str, ServiceKey] = {}
        """The service of each worker in it."""
        self._told: dict[str, set[str]] = {}
        """Draining workers, each with the routers that say it is drained."""
        self._failed: dict[str, str] = {}
        self._tasks: TaskGroup | None = None
        self.events: RouterEvents

    # -- the port --------------------------------------------------------------------------------------

    async def run(self, events: RouterEvents) -> None:
        """See stoker.plugin.ports.Router."""
        self.events = events
        async with anyio.create_task_group() as tasks:
            for member in self._members.values():
                self._begin(member, tasks)
            self._tasks = tasks  # from now on a member begins as soon as it is made
            for name in self._known:
                self._member(name)
            await anyio.sleep_forever()

    async def apply(self, table: RoutingTable) -> None:
        """See stoker.plugin.ports.Router. Each router is told by itself: none waits for another."""
        self._table = table
        self._places = {w.id: service for service, route in table.routes.items() for w in route.workers}
        chosen = {service: self._chosen(service) for service in table.routes}
        for service, name in chosen.items():
            before, member = self._members.get(self._owners.get(service, "")), self._member(name)
            if before is not None and member is None:
                continue  # the new one cannot be had: what serves goes on
            if before is not None and member is not None and before is not member:
                await self._hand_over(service, before, member)
            self._owners[service] = name
        self._owners = {service: name for service, name in self._owners.items() if service in table.routes}
        draining = {w.id for route in table.routes.values() for w in route.workers if w.draining}
        self._told = {replica: told for replica, told in self._told.items() if replica in draining}
        if table.doors and self._doorkeeper() is None:
            self._member(DOORKEEPER)
        for member in self._members.values():
            self._publish(member)

    async def stop(self, grace: float) -> None:
        """See stoker.plugin.ports.Router."""
        async with anyio.create_task_group() as tasks:
            for member in self._members.values():
                tasks.start_soon(member.router.stop, grace)

    async def record(self, services: Sequence[ServiceKey]) -> AsyncGenerator[Sequence[RequestRecord], None]:
        """See stoker.plugin.ports.RecordingRouter. Of services with different routers it is refused."""
        names = {self._owners[service] for service in services if service in self._owners}
        routers = [self._members[name].router for name in names if name in self._members]
        router = routers[0] if len(routers) == 1 else None
        if not isinstance(router, RecordingRouter):
            found = " and ".join(sorted(names)) or "none"
            raise RouterError(f"single requests are not told by every router (of these services: {found})")
        async with aclosing(router.record(services)) as batches:
            async for batch in batches:
                yield batch

    async def spans(self) -> AsyncGenerator[SpanBatch, None]:
        """See stoker.plugin.ports.TracingRouter. Those of the first router that has any."""
        able = (one.router for one in self._members.values() if isinstance(one.router, TracingRouter))
        router = next(able, None)
        if router is None:
            raise RouterError(f"no spans of requests are told by: {', '.join(self._members) or 'no router'}")
        async with aclosing(router.spans()) as batches:
            async for batch in batches:
                yield batch

    def about(self, service: ServiceKey) -> str:
        """The router that has the service, with what it says of the load that it tells; "" without one."""
        name = self._owners.get(service, "")
        member = self._members.get(name)
        words = router_shortfalls(member.router).get("load", "") if member is not None else ""
        return f"{name}: {words}" if words else name

    # -- members ---------------------------------------------------------------------------------------

    def _chosen(self, service: ServiceKey) -> str:
        return self._choose(service) or self._owners.get(service) or next(iter(self._known), "stoker")

    def _member(self, name: str) -> _Member | None:
        """The router of that name, made on first use; None, which is said once, if it cannot be made."""
        if name in self._members:
            return self._members[name]
        try:
            router = self._make(name)
        except StokerError as error:
            if self._failed.get(name) != str(error) and self._tasks is not None:
                self._failed[name] = str(error)
                self.events.trouble("", str(error))
            return None
        member = self._members[name] = _Member(name, router)
        self._keep([*self._members, *(one for one in self._known if one not in self._members)])
        if self._tasks is not None:
            self._begin(member, self._tasks)
        return member

    def _begin(self, member: _Member, tasks: TaskGroup) -> None:
        tasks.start_soon(member.router.run, _Ears(self, member))
        tasks.start_soon(member.feed.run, member.router)

    def _publish(self, member: _Member) -> None:
        routes = {
            service: route
            for service, route in self._table.routes.items()
            if self._owners.get(service) == member.name
        }
        for service, former in member.leaving.items():
            route = self._table.routes.get(service, replace(former, workers=()))
            routes[service] = replace(route, leaving=True)
        doors = self._table.doors if member is self._doorkeeper() else ()
        for service in {rule.service for door in doors for rule in door.rules}:
            inner = None if self._owners.get(service) == member.name else self._inner(service)
            if inner is None:
                continue
            mine = routes[service].workers if service in routes else ()
            finishing = tuple(replace(worker, draining=True) for worker in mine)
            routes[service] = replace(inner, leaving=service in routes, workers=(*inner.workers, *finishing))
        member.feed.publish(RoutingTable(routes=routes, doors=doors))

    def _inner(self, service: ServiceKey) -> Route | None:
        """How a door leads to a service of another router, None where it cannot. Without workers requests
        wait at the door, which has pages for people."""
        route, owner = self._table.routes.get(service), self._members.get(self._owners.get(service, ""))
        if route is None or owner is None or not isinstance(owner.router, InnerRouter):
            return None
        endpoint = owner.router.inside(service)
        if route.protocol not in HTTP or not endpoint:
            return None
        serving = any(not worker.draining for worker in route.workers)
        through = WorkerRoute(id=f"{THROUGH}{owner.name}", endpoint=endpoint)
        return replace(
            route,
            inner=True,
            protocol="http",
            workers=(through,) if serving else (),
            max_concurrency=None,
            tls=None,
            proxy_protocol=False,
        )

    def _doorkeeper(self) -> _Member | None:
        """Who opens the front doors: the first that can."""
        able = (one for one in self._members.values() if isinstance(one.router, DoorRouter))
        return next(able, None)

    def owns(self, member: _Member, service: ServiceKey) -> bool:
        """Whether it is that router that has the service; of services nobody has yet it is believed."""
        return self._owners.get(service, member.name) == member.name

    # -- a change of routers ---------------------------------------------------------------------------

    async def _hand_over(self, service: ServiceKey, old: _Member, new: _Member) -> None:
        new.leaving.pop(service, None)
        if self._tasks is None or not isinstance(old.router, HandingRouter):
            return
        fd = old.router.listening(service)
        if fd is None or not isinstance(new.router, HandingRouter):
            return
        try:
            await new.router.inherit(service, fd)
        except StokerError as error:
            self.events.trouble(service, f"its address is closed and opened again: {error}")
            return
        finally:
            os.close(fd)
        old.leaving[service] = self._table.routes[service]
        self._tasks.start_soon(self._finish, service, old)

    async def _finish(self, service: ServiceKey, old: _Member) -> None:
        """Let a former router go once it has nothing left."""
        began = anyio.current_time()
        await anyio.sleep(PATIENCE)
        while service in old.leaving and not old.at_rest(service):
            await anyio.sleep(LOOK)
            if anyio.current_time() > began + LONGEST:
                break
        if old.leaving.pop(service, None) is not None:
            self._publish(old)
            for replica in list(self._told):
                self._tell_drained(replica)

    def heard_drained(self, member: _Member, replica: str) -> None:
        """One router has nothing in flight on a draining worker."""
        self._told.setdefault(replica, set()).add(member.name)
        self._tell_drained(replica)

    def _tell_drained(self, replica: str) -> None:
        if self._holders(replica) <= self._told[replica]:
            self.events.drained(replica)

    def _holders(self, replica: str) -> set[str]:
        """The routers that may send requests to that worker."""
        service = self._places.get(replica)
        if service is None:
            return set()
        return {
            self._owners[service],
            *(one.name for one in self._members.values() if service in one.leaving),
        }
