"""One HAProxy process that serves one service: started or taken over, kept as its route, read, ended."""

from __future__ import annotations

import json
import socket
from dataclasses import asdict, dataclass, replace

import anyio
import anyio.to_thread

from stoker.errors import RouterError
from stoker.model.service import ServiceKey
from stoker.model.state import Route
from stoker.plugin.processes import gone
from stoker_haproxy import process
from stoker_haproxy.places import Folder, Places
from stoker_haproxy.process import Unanswered, ask
from stoker_haproxy.readings import Meter, Reading, read, recall, remember
from stoker_haproxy.servers import Servers, read_servers
from stoker_haproxy.settings import NO_LIMIT, UNREACHABLE, Settings, configuration, why

_COUNTERS = ("show stat front 1 -1", "show stat pool 6 -1")
_EXPERIMENTAL = "experimental-mode on"


@dataclass(frozen=True, slots=True)
class Identity:
    """What is written down of a process. `host`, `port`: as the table asked for them; `began` tells it from
    another with its pid."""

    service: ServiceKey
    host: str
    port: int
    pid: int
    began: int
    settings: Settings
    leaving: bool = False
    """Another process, or nobody, has its address."""

    def text(self) -> str:
        """As the record holds it."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, text: str) -> Identity:
        """From such a record. Raises ValueError, TypeError or KeyError for another."""
        raw = json.loads(text)
        return cls(**{**raw, "settings": Settings.read(raw["settings"])})


class Unit:
    """A process and what is known of it. `sock`: our copy of its listening socket, ours to close."""

    def __init__(self, binary: str, folder: Folder, places: Places, sock: socket.socket) -> None:
        self._binary = binary
        self._folder = folder
        self.places = places
        self.sock = sock
        self.identity: Identity
        self.servers: Servers
        self.meter: Meter
        self._limits: dict[str, str] = {}
        """The variables of the process, as they were set last."""
        self._route: Route | None = None
        self._lock = anyio.Lock()
        self.stirred = anyio.Event()
        """There is something to look at."""
        self.announcing = False
        """The process was told to say when the next request comes, and has not."""
        self.over = False
        """It is ended, or to be ended."""

    # -- life ------------------------------------------------------------------------------------------

    async def start(self, route: Route) -> None:
        """Start a process for that route. Raises RouterError."""
        settings = Settings.of(route)
        places, address = self.places, self.sock.getsockname()[:2]
        door = self._folder.door(route.service)
        text = configuration(
            route.service, settings, places, ear=self._folder.ear, door=door, address=address
        )
        try:
            places.record.write_text("{}")
            places.configuration.write_text(text)
            if settings.cert:
                for link, file in ((places.certificate, settings.cert), (places.key, settings.key)):
                    link.unlink(missing_ok=True)
                    link.symlink_to(file)
        except OSError as error:
            raise RouterError(f"cannot write {places.configuration}: {error.strerror}") from error
        pid = await process.start(self._binary, places, self._folder.log, self.sock)
        self.identity = Identity(route.service, route.host, route.port, pid, process.began(pid), settings)
        self._keep()
        self.servers = Servers(http2=settings.protocol != "http")
        self._limits = {}
        self.announcing = False
        self.meter = Meter(route.service, Reading(anyio.current_time()))

    def _keep(self) -> None:
        beside = self.places.record.with_suffix(".new")
        beside.write_text(self.identity.text())
        beside.replace(self.places.record)

    async def restart(self) -> None:
        """Start another process in the place of one that ended, told the same. Raises RouterError."""
        if self._route is None:
            raise RouterError("it ended before it was told its workers")
        await self.start(self._route)
        await self.configure(self._route)

    @classmethod
    async def take_over(cls, binary: str, folder: Folder, places: Places) -> Unit:
        """The process that an earlier daemon started there. Raises RouterError if it is none any more."""
        try:
            identity = Identity.read(places.record.read_text())
            if not identity.began or process.began(identity.pid) != identity.began:
                raise RouterError("it has ended")
            sock = await anyio.to_thread.run_sync(process.listening_socket, places.admin)
            if sock is None:
                raise RouterError("it hands over no socket")
            unit = cls(binary, folder, places, sock)
            unit.identity = identity
            try:
                await unit._learn()
            except Unanswered:
                sock.close()
                raise
        except (OSError, ValueError, TypeError, KeyError, Unanswered) as error:
            raise RouterError(f"{places.name} cannot be taken over: {error}") from error
        return unit

    async def _learn(self) -> None:
        reading = await self.read()
        state = await ask(self.places.admin, "show servers state pool")
        http2 = self.identity.settings.protocol != "http"
        self.servers = Servers(http2=http2, known=read_servers(state, reading))
        told = await ask(self.places.admin, _EXPERIMENTAL, "get var proc.told")
        before = recall(told.partition("<")[2].partition(">")[0])
        self.meter = Meter(self.identity.service, before or Reading(reading.at))
        self.meter.feed(reading)

    async def leave(self) -> None:
        """Take no new connections; those that are open close after their next answer. Another process, or
        nobody, has the address from now on."""
        self.identity = replace(self.identity, leaving=True)
        self._keep()
        self.stir()
        try:
            await ask(self.places.admin, "shutdown frontend front")
        except Unanswered:
            return  # it ended

    async def end(self) -> None:
        """End the process, whatever it still has."""
        self.over = True
        self.stir()
        process.kill(self.identity.pid)
        await gone(self.identity.pid, timeout=process.ANSWER_TIMEOUT)
        self.places.remove()
        self.sock.close()

    # -- the route -------------------------------------------------------------------------------------

    async def configure(self, route: Route) -> None:
        """Make it equal to the route, but for what is fixed. A process that ended is told when it is back."""
        async with self._lock:
            self._route = route
            try:
                await self._tell(self._variables(route))
                await self._tell(self.servers.become(route.workers))
                # A pool that will get no worker refuses those who wait: without the plug it has no server.
                closed = bool(route.held) and not self.servers.serving
                await self._tell_limit("plug", f"set server pool/plug state {'maint' if closed else 'ready'}")
            except Unanswered:
                self._limits = {}
            self.stir()

    def _variables(self, route: Route) -> list[str]:
        most = NO_LIMIT if route.max_concurrency is None else route.max_concurrency
        wanted = {
            "proc.why": f"str({why(self.identity.settings, route.held or UNREACHABLE)})",
            "proc.held": f"int({int(bool(route.held))})",
            "proc.max_queue": f"int({route.max_queue})",
            "proc.most": f"int({most})",
        }
        changed = {name: value for name, value in wanted.items() if self._limits.get(name) != value}
        self._limits |= changed
        return [f"set var {name} {value}" for name, value in changed.items()]

    async def _tell_limit(self, name: str, command: str) -> None:
        if self._limits.get(name) != command:
            self._limits[name] = command
            await self._tell([command])

    async def _tell(self, commands: list[str]) -> None:
        if commands:
            await ask(self.places.admin, _EXPERIMENTAL, *commands)

    # -- load ------------------------------------------------------------------------------------------

    async def read(self) -> Reading:
        """The counters now. Raises Unanswered."""
        text = await ask(self.places.admin, *_COUNTERS)
        try:
            return read(text, anyio.current_time())
        except (ValueError, KeyError, StopIteration, IndexError) as error:
            raise Unanswered(f"its counters cannot be read: {error}") from error

    async def look(self) -> Reading:
        """Read, count, and remove the servers of workers that are gone. Raises Unanswered."""
        async with self._lock:
            reading = await self.read()
            self.meter.feed(reading)
            for name in self.servers.removable(reading):
                if "deleted" in await ask(self.places.admin, f"del server pool/{name}"):
                    self.servers.removed(name)
        return reading

    async def remember(self) -> None:
        """Have the process keep what was told of it, for the next daemon. Raises Unanswered."""
        await ask(self.places.admin, _EXPERIMENTAL, f"set var proc.told str({remember(self.meter.told)})")

    async def rest(self) -> bool:
        """Have the process tell when it is no longer at rest; whether it is until then. Raises Unanswered."""
        self.stirred = anyio.Event()
        self.announcing = False
        await self.announce()
        await self.look()
        return self.meter.quiet

    async def announce(self) -> None:
        """Have the process tell when the next request comes. Raises Unanswered."""
        if not self.announcing:
            await ask(self.places.admin, _EXPERIMENTAL, "set var proc.rest int(1)")
            self.announcing = True

    def stir(self) -> None:
        """There is something to look at."""
        self.stirred.set()
