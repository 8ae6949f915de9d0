"""The routers of one daemon as one: each service has the router that the configuration chooses for it.

A service that changes its router keeps its listening socket, where both can hand one over: the new router
takes new connections, the one before finishes what it has. A router that can have several processes is as
many routers here, among which its services are spread.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial

import anyio
from anyio.abc import TaskGroup

from stoker.decide.spread import spread
from stoker.errors import RouterError, StokerError
from stoker.model.load import RequestRecord
from stoker.model.service import ServiceKey
from stoker.model.state import Route, RoutingTable, WorkerRoute
from stoker.model.trace import SpanBatch
from stoker.plugin.ports import (
    DoorRouter,
    HandingRouter,
    InnerRouter,
    MeasuringRouter,
    RecordingRouter,
    Router,
    RouterEvents,
    SeveralRouter,
    TracingRouter,
    router_shortfalls,
)
from stoker.runtime.router_member import THROUGH, Member, base_of, place_of, process_name
from stoker.runtime.router_streams import merged

PATIENCE = 5.0
"""Seconds in which connections to a service's former router may still send a request."""
LONGEST = 3600.0
"""Seconds its former router gets to finish what it has."""
DOORKEEPER = "stoker"
"""The router that is made for front doors where none is in use that can open them."""
HTTP = frozenset({"http", "h2"})
"""Protocols of services to which a door can lead."""
LOOK = 0.5
"""Seconds between two looks whether it has."""
FAREWELL = 10.0
"""Seconds for a process without services to end."""


class Routers:
    """A `RecordingRouter` (see stoker.plugin.ports) made of several.

    `make` makes a router by its name (PluginError); `choose` names the router of a service, None for one that
    is configured no more; `known`: that of the box and those that the daemon before had, whose programs may
    still run, each with its services; `keep` is told all of them whenever they change; `processes`: how many
    a router gets that can have several.
    """

    def __init__(
        self,
        *,
        make: Callable[[str], Router],
        choose: Callable[[ServiceKey], str | None],
        known: Mapping[str, Sequence[ServiceKey]] | None = None,
        keep: Callable[[Mapping[str, Sequence[ServiceKey]]], None] = lambda members: None,
        processes: Callable[[], int] = lambda: 1,
    ) -> None:
        self._make = make
        self._choose = choose
        self._known = dict(known or {})
        self._keep = keep
        self._kept: Mapping[str, Sequence[ServiceKey]] = {}
        self._processes = processes
        self._members: dict[str, Member] = {}
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
        for service, name in self._chosen().items():
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
        for member in list(self._members.values()):
            self._publish(member)
            self._dismiss(member)
        self._remember()

    async def stop(self, grace: float) -> None:
        """See stoker.plugin.ports.Router."""
        async with anyio.create_task_group() as tasks:
            for member in self._members.values():
                tasks.start_soon(member.router.stop, grace)

    async def measure(self) -> None:
        """See stoker.plugin.ports.MeasuringRouter. Those that cannot tell in their own time."""
        async with anyio.create_task_group() as tasks:
            for member in self._members.values():
                if isinstance(member.router, MeasuringRouter):
                    tasks.start_soon(member.router.measure)

    async def record(self, services: Sequence[ServiceKey]) -> AsyncGenerator[Sequence[RequestRecord], None]:
        """See stoker.plugin.ports.RecordingRouter. Refused where one of them has a router that cannot."""
        names = {self._owners[service] for service in services if service in self._owners}
        routers = [self._members[name].router for name in sorted(names) if name in self._members]
        able = [router for router in routers if isinstance(router, RecordingRouter)]
        if self._tasks is None or not able or len(able) < len(names):
            found = " and ".join(sorted({base_of(name) for name in names})) or "none"
            raise RouterError(f"single requests are not told by every router (of these services: {found})")
        streams = [partial(router.record, services) for router in able]
        async with aclosing(merged(streams, self._tasks)) as batches:
            async for batch in batches:
                yield batch

    async def spans(self) -> AsyncGenerator[SpanBatch, None]:
        """See stoker.plugin.ports.TracingRouter. Those of all routers that have any."""
        able = [one.router for one in self._members.values() if isinstance(one.router, TracingRouter)]
        if self._tasks is None or not able:
            raise RouterError(f"no spans of requests are told by: {', '.join(self._members) or 'no router'}")
        async with aclosing(merged([router.spans for router in able], self._tasks)) as batches:
            async for batch in batches:
                yield batch

    def about(self, service: ServiceKey) -> str:
        """The router that has the service, with what it says of the load that it tells; "" without one."""
        name = self._owners.get(service, "")
        member = self._members.get(name)
        words = router_shortfalls(member.router).get("load", "") if member is not None else ""
        return f"{name}: {words}" if words else name

    # -- members ---------------------------------------------------------------------------------------

    def _chosen(self) -> dict[ServiceKey, str]:
        """The router, and the process of it, for each service in the table."""
        bases: dict[str, list[ServiceKey]] = {}
        for service in self._table.routes:
            bases.setdefault(self._choose(service) or self._base(service), []).append(service)
        found: dict[ServiceKey, str] = {}
        for base, services in bases.items():
            first, count = self._member(base), self._processes()
            if first is None or not isinstance(first.router, SeveralRouter):
                count = 1
            before = {service: self._owner(service) for service in services}
            present = {service: place_of(name) for service, name in before.items() if base_of(name) == base}
            # A door leads to services of its own process.
            behind = {rule.service for door in self._table.doors for rule in door.rules}
            places = spread(services, count, present=present, fixed=behind)
            found |= {service: process_name(base, place) for service, place in places.items()}
        return found

    def _base(self, service: ServiceKey) -> str:
        """The router of a service that is configured no more."""
        return base_of(self._owner(service)) or next(iter(self._known), "stoker")

    def _owner(self, service: ServiceKey) -> str:
        """The process that has a service, or had it under the daemon before; "" for none."""
        known = (name for name, services in self._known.items() if service in services)
        return self._owners.get(service) or next(known, "")

    def _member(self, name: str) -> Member | None:
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
        member = self._members[name] = Member(name, router)
        self._remember()
        if self._tasks is not None:
            self._begin(member, self._tasks)
        return member

    def _begin(self, member: Member, tasks: TaskGroup) -> None:
        tasks.start_soon(member.run, self)

    def _remember(self) -> None:
        """Have it recorded who has what, if that is news. Until a first table came, it is as it was."""
        services: dict[str, list[ServiceKey]] = {name: [] for name in (*self._members, *self._known)}
        for service, name in self._owners.items():
            services.setdefault(name, []).append(service)
        if not self._owners:
            services |= {name: list(those) for name, those in self._known.items()}
        if services != self._kept:
            self._kept = services
            self._keep(services)

    def _dismiss(self, member: Member) -> None:
        """End a further process that has nothing left to do."""
        idle = member.name not in self._owners.values() and not member.leaving
        if idle and place_of(member.name) and self._tasks is not None:
            del self._members[member.name]
            self._known.pop(member.name, None)
            self._tasks.start_soon(member.end, FAREWELL)

    def _publish(self, member: Member) -> None:
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

    def _doorkeeper(self) -> Member | None:
        """Who opens the front doors: the first that can."""
        able = (one for one in self._members.values() if isinstance(one.router, DoorRouter))
        return next(able, None)

    def owns(self, member: Member, service: ServiceKey) -> bool:
        """Whether it is that router that has the service; of services nobody has yet it is believed."""
        return self._owners.get(service, member.name) == member.name

    # -- a change of routers ---------------------------------------------------------------------------

    async def _hand_over(self, service: ServiceKey, old: Member, new: Member) -> None:
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

    async def _finish(self, service: ServiceKey, old: Member) -> None:
        """Let a former router go once it has nothing left."""
        began = anyio.current_time()
        await anyio.sleep(PATIENCE)
        while service in old.leaving and not old.at_rest(service):
            await anyio.sleep(LOOK)
            if anyio.current_time() > began + LONGEST:
                break
        if old.leaving.pop(service, None) is not None:
            self._publish(old)
            self._dismiss(old)
            self._remember()
            for replica in list(self._told):
                self._tell_drained(replica)

    def heard_drained(self, member: Member, replica: str) -> None:
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
