"""The `Router` of this plugin (see `stoker.plugin.ports.Router`): one HAProxy process for each service."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from typing import ClassVar

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from stoker.errors import RouterError
from stoker.model.load import LoadSample
from stoker.model.service import ServiceKey
from stoker.model.state import UNIX, Route, RoutingTable
from stoker.plugin.ports import PluginContext, RouterEvents
from stoker_haproxy import ear
from stoker_haproxy.addresses import Doors, refuse_from_now
from stoker_haproxy.keeping import Keeping
from stoker_haproxy.lines import Line
from stoker_haproxy.places import Folder
from stoker_haproxy.settings import Settings
from stoker_haproxy.unit import Unit
from stoker_haproxy.watch import SAMPLE_EVERY, Ears, Watch

RETRY = 1.0
"""Seconds between two attempts to open an address or to start a process."""
LOOK = 0.02
STOP_PATIENCE = 5.0


class Drains:
    """Which processes have said of which workers that they have drained."""

    def __init__(self) -> None:
        self._told: set[tuple[str, str]] = set()

    def heard(self, process: str, worker: str, all_of_them: set[str]) -> bool:
        """One has said it; whether all have by now that have the worker."""
        self._told.add((process, worker))
        said = {(name, worker) for name in all_of_them}
        if not said <= self._told:
            return False
        self._told -= said
        return True


class HaproxyRouter:
    """The processes outlive it: cancelling `run` leaves them serving, and the next router finds them by their
    records."""

    shortfalls: ClassVar[Mapping[str, str]] = {
        "load": "reads what is in flight and queued ten times a second; counts and latencies are exact up to "
        "500 requests a second, beyond that latencies are those of one request in 50",
        "deadline": "gives `traffic.timeout` to the wait in the queue and again to the worker",
        "records": "does not tell single requests",
    }

    def __init__(self, context: PluginContext, binary: str, *, sample_every: float = SAMPLE_EVERY) -> None:
        self._context = context
        self._binary = binary
        self._folder: Folder | None = None
        self._watches: dict[ServiceKey, Watch] = {}
        """By service, the process that has its address."""
        self._leaving: list[Watch] = []
        self._table: RoutingTable | None = None
        """The newest. None: a daemon that knows nothing yet must not empty a serving router's table."""
        self._doors = Doors()
        self._troubles: dict[ServiceKey, str] = {}
        self._drains = Drains()
        self._keeping = Keeping(context, self._serving)
        self._lock = anyio.Lock()
        self._tasks: TaskGroup | None = None
        self._events: RouterEvents
        self._sample_every = sample_every

    # -- the port --------------------------------------------------------------------------------------

    async def run(self, events: RouterEvents) -> None:
        """See stoker.plugin.ports.Router."""
        self._events = events
        self._folder = folder = await _prepared(self._context, events)
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                tasks.start_soon(self._keeping.run)
                tasks.start_soon(ear.listen, folder.ear, self._hear)
                async with self._lock:
                    await self._take_over(folder)
                    await self._recall()
                    if self._table is not None:
                        await self._become(self._table)
                await anyio.sleep_forever()
        finally:
            self._tasks = None
            for watch in self._all():
                watch.unit.sock.close()
            self._watches.clear()
            self._leaving.clear()

    async def apply(self, table: RoutingTable) -> None:
        """See stoker.plugin.ports.Router."""
        self._table = table
        if self._tasks is None:
            return
        async with self._lock:
            await self._become(table)

    async def stop(self, grace: float) -> None:
        """See stoker.plugin.ports.Router."""
        async with self._lock:
            if self._folder is None or self._tasks is None:
                await _end_found(self._binary, self._folder or Folder(self._context))
                await self._keeping.end()
                return
            self._table = RoutingTable()
            for service in list(self._watches):
                await self._retire(service)
        with anyio.move_on_after(grace):
            while self._leaving:  # noqa: ASYNC110 - once
                await anyio.sleep(LOOK)
        for watch in list(self._leaving):
            await self._finished(watch)
        await self._keeping.end()

    def listening(self, service: ServiceKey) -> int | None:
        """See stoker.plugin.ports.HandingRouter."""
        watch = self._watches.get(service)
        return None if watch is None else os.dup(watch.unit.sock.fileno())

    def inside(self, service: ServiceKey) -> str:
        """See stoker.plugin.ports.InnerRouter."""
        try:
            folder = self._folder or Folder(self._context)
        except RouterError:
            return ""  # which is told by `run`
        return f"{UNIX}{folder.door(service)}"

    async def inherit(self, service: ServiceKey, fd: int) -> None:
        """See stoker.plugin.ports.HandingRouter."""
        async with self._lock:
            self._doors.give(service, fd)

    # -- processes of an earlier daemon ----------------------------------------------------------------

    async def _take_over(self, folder: Folder) -> None:
        for places in folder.known():
            try:
                unit = await Unit.take_over(self._binary, folder, places)
            except RouterError:
                places.remove()  # it ended while nobody looked; what the table asks for is started anew
                continue
            service = unit.identity.service
            unit.servers.tell_again()
            watch = self._watch(unit)
            if unit.identity.leaving or service in self._watches:
                self._leaving.append(watch)
                await watch.leave()
                continue
            self._watches[service] = watch
            self._bound(service, unit.sock)

    async def _recall(self) -> None:
        """Have the sockets of services whose processes died with the daemon before."""
        for service, sock in (await self._keeping.recall()).items():
            if service in self._watches:
                sock.close()
            else:
                self._doors.recall(service, sock)
        self._keeping.changed()

    # -- the table -------------------------------------------------------------------------------------

    async def _become(self, table: RoutingTable) -> None:
        for service in [one for one in self._watches if one not in table.routes]:
            await self._retire(service)
        async with anyio.create_task_group() as tasks:
            for watch in list(self._all()):
                route = table.routes.get(watch.unit.identity.service)
                if route is not None:
                    tasks.start_soon(self._tell, watch, route)
        wanting = [route for route in table.routes.values() if self._wants(route)]
        if not all([await self._served(route) for route in wanting]) and self._tasks is not None:
            self._tasks.start_soon(self._try_again, table)
        self._doors.forget()
        self._keeping.changed()

    async def _tell(self, watch: Watch, route: Route) -> None:
        await watch.unit.configure(route)
        if route.leaving and not watch.leaving:
            await watch.leave()

    def _wants(self, route: Route) -> bool:
        """Whether no process serves the route as it is."""
        watch = self._watches.get(route.service)
        if route.leaving:
            return False
        return watch is None or watch.leaving or not self._serves(watch, route)

    async def _served(self, route: Route) -> bool:
        """Serve it by a new process; False, which is said once, if that cannot be."""
        try:
            await self._serve(route.service, route)
        except RouterError as error:
            self._trouble(route.service, str(error))
            return False
        self._troubles.pop(route.service, None)
        return True

    async def _try_again(self, table: RoutingTable) -> None:
        await anyio.sleep(RETRY)
        if self._table is table:
            await self.apply(table)

    def _serves(self, watch: Watch, route: Route) -> bool:
        """Whether the process is as fixed as the route asks for."""
        identity = watch.unit.identity
        return identity.settings == Settings.of(route) and _at(watch, route)

    async def _serve(self, service: ServiceKey, route: Route) -> None:
        """Start a process for the route, at the address that is open if it is the right one. Raises
        RouterError; then all is as it was."""
        before = self._watches.get(service)
        same = before is not None and _at(before, route)
        if before is not None and same:
            sock = before.unit.sock.dup()
        else:
            sock = await self._open(service, route, before)
        folder = self._folder or Folder(self._context)
        unit = Unit(self._binary, folder, folder.new(service), sock)
        try:
            await unit.start(route)
        except RouterError:
            unit.places.remove()
            sock.close()
            raise
        await unit.configure(route)
        self._watches[service] = self._watch(unit)
        self._bound(service, sock)
        if before is not None:
            self._leaving.append(before)
            await before.leave()
            if not same:
                refuse_from_now(before.unit.sock.dup())

    async def _open(self, service: ServiceKey, route: Route, before: Watch | None) -> socket.socket:
        if before is not None and before.unit.sock.getsockname()[1] == route.port:
            # The same port at another host: the two could not be open together.
            await before.unit.leave()
            refuse_from_now(before.unit.sock.dup())
        return await self._doors.open(service, route.host, route.port)

    async def _retire(self, service: ServiceKey) -> None:
        """The service left the table: its address is refused, what is in flight goes on."""
        watch = self._watches.pop(service)
        self._leaving.append(watch)
        if not watch.leaving:  # else another router has the address
            refuse_from_now(watch.unit.sock.dup())
        await watch.leave(0.0)
        gone = Route(service=service, host="", port=0, held="the service was removed")
        await watch.unit.configure(gone)

    # -- watches ---------------------------------------------------------------------------------------

    def _all(self) -> Iterator[Watch]:
        yield from self._watches.values()
        yield from self._leaving

    def _watch(self, unit: Unit) -> Watch:
        ears = Ears(
            sample_every=self._sample_every,
            sample=self._sample,
            demand=self._events.demand,
            drained=self._drained,
            trouble=self._events.trouble,
            finished=self._finished,
            replaced=self._keeping.changed,
        )
        watch = Watch(unit, ears)
        if self._tasks is not None:
            self._tasks.start_soon(watch.measure)
            self._tasks.start_soon(watch.guard)
        return watch

    def _serving(self) -> Iterator[Unit]:
        yield from (watch.unit for watch in self._watches.values() if not watch.leaving)

    def _sample(self, watch: Watch, sample: LoadSample) -> None:
        if self._watches.get(sample.service) is watch:
            self._events.sample(sample)

    def _drained(self, watch: Watch, worker: str) -> None:
        """A worker is drained once no process of its service has anything in flight there."""
        service = watch.unit.identity.service
        units = [one.unit for one in self._all() if one.unit.identity.service == service]
        names = {unit.places.name for unit in units if any(known.worker == worker for known in unit.servers)}
        if self._drains.heard(watch.unit.places.name, worker, names):
            self._events.drained(worker)

    async def _finished(self, watch: Watch) -> None:
        """A process that was to leave has nothing left."""
        if watch in self._leaving:
            self._leaving.remove(watch)
        elif self._watches.get(watch.unit.identity.service) is watch:
            del self._watches[watch.unit.identity.service]
        if not watch.unit.over:
            await watch.unit.end()

    def _hear(self, line: Line) -> None:
        for watch in self._all():
            if watch.unit.places.name == line.process:
                if line.ended is not None:
                    watch.unit.meter.ended(line.ended)
                    if watch.asleep:
                        watch.unit.stir()
                else:
                    watch.announced()
                return

    def _bound(self, service: ServiceKey, sock: socket.socket) -> None:
        self._events.bound(service, *self._doors.opened(service, sock))

    def _trouble(self, service: ServiceKey, message: str) -> None:
        if self._troubles.get(service) != message:
            self._troubles[service] = message
            self._events.trouble(service, message)


async def _prepared(context: PluginContext, events: RouterEvents) -> Folder:
    """The folder of everything, as soon as it can be had."""
    said = ""
    while True:
        try:
            return Folder(context)
        except RouterError as error:
            if str(error) != said:
                said = str(error)
                events.trouble("", said)
            await anyio.sleep(RETRY)


async def _end_found(binary: str, folder: Folder) -> None:
    """End what an earlier daemon left, for one that never ran."""
    for places in folder.known():
        try:
            unit = await Unit.take_over(binary, folder, places)
        except RouterError:
            places.remove()
            continue
        await unit.end()


def _at(watch: Watch, route: Route) -> bool:
    """Whether the process is where the route asks for."""
    identity, wanted = watch.unit.identity, (route.host, route.port)
    return wanted in ((identity.host, identity.port), watch.unit.sock.getsockname()[:2])
