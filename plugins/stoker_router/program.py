"""The program's state: services, their addresses, and the table that says what they should be."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping
from time import monotonic

from stoker_router.access import AccessLog
from stoker_router.crowd import Crowd
from stoker_router.door import Door
from stoker_router.gate import Gate
from stoker_router.hangup import HangupWatch
from stoker_router.inheritance import Inheritance, Open
from stoker_router.listener import Listener
from stoker_router.recording import Recorder
from stoker_router.reports import Reports
from stoker_router.service import Service
from stoker_router.serving import Place
from stoker_router.table import DoorConfig, RouteConfig, Table

UNCLAIMED = 5.0
"""Seconds after a table for its services to claim what was inherited; names of hosts are looked up first."""


class Program:
    """All services of one router process."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sample_every: float,
        inherited: Inheritance | None = None,
        *,
        access: AccessLog,
        most_clients: int,
    ) -> None:
        self._loop = loop
        self.inherited = inherited or Inheritance()
        self._hangups = HangupWatch(loop)
        self._crowd = Crowd(most_clients)
        self.access = access
        self.reports = Reports(loop, sample_every, self.access)
        self.services: dict[str, Service] = {}
        self._doors: dict[str, Door] = {}
        self._listeners: dict[str, Listener] = {}
        """Of services and doors, by name."""
        self._recorders: dict[str, list[Recorder]] = defaultdict(list)
        """By service, also those that are not there at present."""
        self._unspoken: dict[str, str] = {}
        """Services whose protocol this router does not speak, and what is said about it."""
        self._leaving: set[Service] = set()
        """Services that left the table and still have requests."""
        self.ended = asyncio.Event()
        self._stopping: asyncio.Task[None] | None = None

    def apply(self, table: Table) -> None:
        """Make everything equal to the table, touching only what differs. One that is ending only hears of
        the workers of services that it still has requests for."""
        if self._stopping is not None:
            for name, service in self.services.items():
                if name in table.routes:
                    service.configure(table.routes[name])
            return
        spoken = {name: route for name, route in table.routes.items() if route.protocol == "http"}
        self._report_unspoken(table.routes)
        for name in [name for name in self.services if name not in spoken]:
            self._remove(name)
        for name in [name for name in self._doors if name not in table.doors]:
            self._listeners.pop(name).close()
            self._doors.pop(name).begin_close()
        self._free_swapped_addresses({**spoken, **table.doors})
        for name, route in spoken.items():
            self._configure(name, route)
        for name, config in table.doors.items():
            self._open_door(name, config)
        if self.inherited:
            self._loop.call_later(UNCLAIMED, self.inherited.close)

    def _configure(self, name: str, route: RouteConfig) -> None:
        service = self.services.get(name)
        if service is None:
            service = self.services[name] = Service(self._loop, self.reports, route)
            service.meter.recorders = self._recorders[name]
            service.intake.trace(spans=self.reports.spans is not None)
            self._listen(name, Gate(self._hangups, self._crowd, service=service))
        service.configure(route)
        service.closed = route.leaving
        if route.leaving:
            service.last_requests()
        if route.leaving or route.inner:
            self._listeners[name].close()
        else:
            self._listeners[name].configure(route)

    def _open_door(self, name: str, config: DoorConfig) -> None:
        door = self._doors.get(name)
        if door is None:
            door = self._doors[name] = Door(config, self.services)
            self._listen(name, Gate(self._hangups, self._crowd, door=door))
        door.configure(config)
        self._listeners[name].configure(config)

    def _listen(self, name: str, gate: Gate) -> None:
        self._listeners[name] = Listener(self._loop, name, self.reports, gate, inherited=self.inherited)

    def record(self, services: Iterable[str], recorder: Recorder) -> None:
        """Tell each request of these services to the recorder from now on."""
        for name in services:
            self._recorders[name].append(recorder)

    def trace(self, recorder: Recorder | None) -> None:
        """Tell spans of the requests of all services to the recorder from now on; None: to nobody."""
        if self.reports.spans is not None:
            self.reports.spans.close()
        self.reports.spans = recorder
        for service in self.services.values():
            service.intake.trace(spans=recorder is not None)

    def forget(self, recorder: Recorder) -> None:
        """Tell it no more."""
        recorder.close()
        if recorder is self.reports.spans:
            self.trace(None)
        for recorders in self._recorders.values():
            if recorder in recorders:
                recorders.remove(recorder)

    def listening(self) -> list[Open]:
        """The open addresses."""
        return [
            Open(name, *listener.address, listener.fd)
            for name, listener in self._listeners.items()
            if listener.address is not None
        ]

    def _report_unspoken(self, table: Mapping[str, RouteConfig]) -> None:
        unspoken = {
            name: f"protocol {route.protocol!r} needs another router; this one speaks HTTP/1.1 and WebSocket"
            for name, route in table.items()
            if route.protocol != "http"
        }
        for name, message in unspoken.items():
            if self._unspoken.get(name) != message:
                self.reports.trouble(name, message)
        self._unspoken = unspoken

    def _free_swapped_addresses(self, table: Mapping[str, Place]) -> None:
        """Close an address that another service of ours is to have (two services change places)."""
        wanted: set[tuple[str, int] | None] = set()
        for name, route in table.items():
            listener = self._listeners.get(name)
            wanted.add(listener.wants(route) if listener else (route.host, route.port))
        for name, listener in self._listeners.items():
            if listener.address in wanted and listener.wants(table[name]):
                listener.release()

    def _remove(self, name: str) -> None:
        self._listeners.pop(name).close()
        service = self.services.pop(name)
        self.reports.forget(service)
        service.close("the service was removed")
        self._leaving = {one for one in self._leaving | {service} if one.flying}

    def reintroduce(self) -> None:
        """Tell a new daemon all it has to know, the load included."""
        for listener in self._listeners.values():
            listener.reintroduce()
        for name, message in self._unspoken.items():
            self.reports.trouble(name, message)
        for service in self.services.values():
            service.reintroduce()
            if service.quiet:
                # A daemon that takes over a service at rest would else wait for data that never comes.
                self.reports.active(service)
        self.reports.resume()

    def stop(self, grace: float, patience: float = 0.0) -> None:
        """End: accept nothing new, finish what is here for at most `grace` seconds. For `patience` seconds a
        connection that is open may send one more request, whose answer closes it: who has a successor need
        not cut off a request that is on its way. May be said again with less grace."""
        if self._stopping is not None:
            self._stopping.cancel()
        self._stopping = self._loop.create_task(self._stop(grace, patience))

    async def _stop(self, grace: float, patience: float) -> None:
        deadline = monotonic() + grace
        for listener in self._listeners.values():
            listener.close()
        places: list[Service | Door] = [*self.services.values(), *self._leaving, *self._doors.values()]
        for place in places:
            place.last_requests()
        until = monotonic() + patience
        while any(place.clients for place in places) and monotonic() < until:  # noqa: ASYNC110 - once
            await asyncio.sleep(0.01)
        for place in places:
            place.begin_close()
        while any(place.busy for place in places) and monotonic() < deadline:  # noqa: ASYNC110 - once
            await asyncio.sleep(0.01)
        for service in (*self.services.values(), *self._leaving):
            service.cut("the router is ending")
        self.access.flush()
        self.reports.close()
        await asyncio.sleep(0.02)  # what was written last leaves the process
        self.ended.set()
