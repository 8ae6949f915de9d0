"""`stoker up --role router`: a router on a box that runs no daemon, for the deployment of another one.

It follows the addresses that the daemon tells, opens the same ports here, and leads each on to the
deployment's own router. Its program is the daemon's own kind of router and outlives this process as it
outlives a daemon; while the daemon is away, or this process begins anew without it, what was told last stays
in force.
"""

from __future__ import annotations

import os
import signal
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import anyio
from anyio.abc import TaskGroup

from stoker import __version__
from stoker.decide.forwarding import Forwarded, forwarding
from stoker.model.load import LoadSample
from stoker.model.service import ServiceKey
from stoker.plugin import loop
from stoker.plugin.manager import PluginRegistry
from stoker.plugin.ports import PluginContext, Router
from stoker.runtime.home import Home, RefusedError, follow
from stoker.runtime.store import Store

ROUTER = "stoker"
"""The router that carries; whatever kind the deployment's own is."""
PAUSE, LONGEST_PAUSE = 0.5, 10.0
"""Seconds between two attempts to reach the daemon; doubles from one to the next."""
GRACE = 10.0
"""Seconds that requests get to finish at the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterOptions:
    """All paths absolute. `listen`: the host at which addresses are opened here. `say` hears what happens."""

    home: Home
    socket: str
    state_dir: str
    runtime_dir: str
    listen: str = "127.0.0.1"
    say: Callable[[str], None] = print


def run_router(options: RouterOptions) -> int:
    """Run until told to end; returns the exit code. Raises StokerError if it cannot begin."""
    trust = options.home.trust()
    anyio.run(_main, options, trust, backend="asyncio", backend_options=loop.OPTIONS)
    return 0


async def _main(options: RouterOptions, trust: ssl.SSLContext | None) -> None:
    store = Store(options.state_dir)
    store.acquire()
    try:
        await anyio.Path(options.runtime_dir).mkdir(parents=True, exist_ok=True, mode=0o750)
        async with anyio.create_task_group() as tasks:
            await RemoteRouter(options, store, trust).run(tasks)
            tasks.cancel_scope.cancel()
    finally:
        store.release()


class RemoteRouter:
    """One such router; also what its program calls back (`stoker.plugin.ports.RouterEvents`)."""

    def __init__(self, options: RouterOptions, store: Store, trust: ssl.SSLContext | None) -> None:
        self._options, self._store, self._trust = options, store, trust
        self._began = time.monotonic()
        self._told: Mapping[str, Any] = {}
        self._forwarded: Forwarded | None = None
        self._loads: dict[ServiceKey, LoadSample] = {}
        self._open: dict[ServiceKey, str] = {}
        """The URL of each address that the program has opened."""
        self._troubles: dict[ServiceKey, str] = {}
        self._away = "not reached yet"
        self._away_since = self._began
        self._ending = anyio.Event()
        self._router = self._make()

    def _make(self) -> Router:
        registry = PluginRegistry()
        registry.load()
        context = PluginContext(
            instance=self._store.instance(),
            state_dir=self._options.state_dir,
            runtime_dir=self._options.runtime_dir,
            environ=dict(os.environ),
            log=self._options.say,
        )
        made: Router = registry.factory("router", ROUTER)(context)
        return made

    async def run(self, tasks: TaskGroup) -> None:
        """Live until told to end."""
        from stoker.api import server
        from stoker.api.router_app import build

        app = build(self.status, self._ending.set)
        await tasks.start(server.serve, app, self._options.socket)
        tasks.start_soon(self._signals)
        kept = self._store.read("routes")
        if kept.get("of") == self._options.home.url:
            await self._take(kept["told"])
        tasks.start_soon(self._router.run, self)
        tasks.start_soon(self._follow)
        await self._ending.wait()
        self._options.say("ending")
        await self._router.stop(GRACE)

    # -- the daemon ------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        """Listen to the daemon for ever, again and again."""
        pause = PAUSE
        while True:
            try:
                async for told in follow(self._options.home, self._trust):
                    pause = PAUSE
                    self._reached()
                    if told is not None:
                        await self._take(told)
                        self._keep()
                self._lost("it has ended")
            except RefusedError as error:
                self._lost(str(error))
            except (OSError, anyio.EndOfStream, anyio.BrokenResourceError) as error:
                self._lost(_words(error))
            except (ValueError, KeyError, TypeError) as error:
                words = f"what it tells cannot be understood ({type(error).__name__}: {error})"
                self._lost(f"{words}; is it of another version?")
            await anyio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _reached(self) -> None:
        if self._away:
            self._away = ""
            self._options.say(f"following {self._options.home.url}")

    def _lost(self, why: str) -> None:
        if not self._away:
            self._away_since = time.monotonic()
        if why != self._away:
            self._away = why
            self._options.say(f"{self._options.home.url} is away: {why}; what it told last stays in force")

    async def _take(self, told: Mapping[str, Any]) -> None:
        """Put it in force. Raises KeyError, TypeError or ValueError for what is none."""
        forwarded = forwarding(told, self._options.home.host, self._options.listen)
        before = self._forwarded
        self._told, self._forwarded = told, forwarded
        table = forwarded.table
        for name, note in forwarded.notes.items():
            if before is None or before.notes.get(name) != note:
                self._options.say(f"{name} {note}")
        for kept in (self._open, self._troubles, self._loads):
            for name in kept.keys() - table.routes.keys() - {""}:
                del kept[name]
        if before is None or before.table != table:
            self._options.say(f"{len(table.routes)} addresses: {', '.join(sorted(table.routes))}")
            await self._router.apply(table)

    def _keep(self) -> None:
        try:
            self._store.write("routes", {"of": self._options.home.url, "told": self._told})
        except OSError as error:
            self._options.say(f"cannot record what the daemon told: {error}; a new start would not know it")

    async def _signals(self) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for _ in signals:
                self._ending.set()

    # -- what is shown ---------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """What this is and how it stands."""
        now = time.monotonic()
        return {
            "daemon": {
                "role": "router",
                "pid": os.getpid(),
                "version": __version__,
                "uptime_s": round(now - self._began, 3),
                "of": self._options.home.url,
                "away": self._away,
                "away_s": round(now - self._away_since, 3) if self._away else 0.0,
                "config": {
                    "state": "in-force",
                    "generation": int(self._told.get("generation", 0)),
                    "errors": [],
                },
                "state_dir": self._options.state_dir,
                "notices": [self._troubles[""]] if "" in self._troubles else [],
            },
            "services": [self._service(name) for name in self._names()],
            "devices": [],
        }

    def _names(self) -> list[ServiceKey]:
        found = self._forwarded
        return [] if found is None else sorted({*found.table.routes, *found.notes})

    def _service(self, name: ServiceKey) -> dict[str, Any]:
        assert self._forwarded is not None
        route, load = self._forwarded.table.routes.get(name), self._loads.get(name)
        deployment, _, short = name.rpartition("/")
        busy = load is not None and load.duration > 0
        return {
            "deployment": deployment,
            "name": short,
            "url": self._open.get(name, ""),
            "home": f"http://{route.workers[0].endpoint}" if route is not None and route.workers else "",
            "reason": self._forwarded.notes.get(name) or self._troubles.get(name, ""),
            "load": {
                "in_flight": load.in_flight if load is not None else 0,
                "queued": load.queued if load is not None else 0,
                "rps": round(load.arrivals / load.duration, 1) if load is not None and busy else 0.0,
            },
            "replicas": [],
        }

    # -- what the program tells ------------------------------------------------------------------------

    def sample(self, sample: LoadSample) -> None:
        """See stoker.plugin.ports.RouterEvents."""
        self._loads[sample.service] = sample

    def demand(self, service: ServiceKey) -> None:
        """The deployment's own router asks for workers."""

    def drained(self, replica: str) -> None:
        """Nothing is drained here."""

    def bound(self, service: ServiceKey, host: str, port: int) -> None:
        """See stoker.plugin.ports.RouterEvents."""
        self._open[service] = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self._troubles.pop(service, None)

    def trouble(self, service: ServiceKey, message: str) -> None:
        """See stoker.plugin.ports.RouterEvents."""
        self._troubles[service] = message
        self._options.say(f"{service or 'the router'}: {message}")


def _words(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "it does not answer"
    cause = error.__cause__ or error
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    return getattr(cause, "strerror", None) or str(cause) or "the connection broke off"
