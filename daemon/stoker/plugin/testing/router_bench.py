"""What the suite of routers works with: daemons that come and go, and what they are told."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import anyio

from stoker.model.load import LoadSample
from stoker.model.state import Route, RoutingTable, WorkerRoute
from stoker.plugin import holder
from stoker.plugin.ports import PluginContext, Router, RouterEvents
from stoker.plugin.testing.router_peers import DEADLINE, until

SERVICE = "suite/web"
FIRST_DAEMON = "from stoker.plugin.testing.router_bench import first_daemon; first_daemon()"


# --- the router -------------------------------------------------------------------------------------------


@dataclass
class Facts:
    """Everything the router told: implements RouterEvents."""

    samples: list[LoadSample] = field(default_factory=list)
    demands: list[str] = field(default_factory=list)
    drains: list[str] = field(default_factory=list)
    addresses: dict[str, tuple[str, int]] = field(default_factory=dict)
    troubles: list[tuple[str, str]] = field(default_factory=list)

    def sample(self, sample: LoadSample) -> None:
        """See RouterEvents."""
        self.samples.append(sample)

    def demand(self, service: str) -> None:
        """See RouterEvents."""
        self.demands.append(service)

    def drained(self, replica: str) -> None:
        """See RouterEvents."""
        self.drains.append(replica)

    def bound(self, service: str, host: str, port: int) -> None:
        """See RouterEvents."""
        self.addresses[service] = (host, port)

    def trouble(self, service: str, message: str) -> None:
        """See RouterEvents."""
        self.troubles.append((service, message))

    def total(self, name: str) -> float:
        """A field summed over all samples."""
        return float(sum(getattr(sample, name) for sample in self.samples))

    def codes(self) -> dict[str, int]:
        """Answers by class, of all samples."""
        found: dict[str, int] = {}
        for sample in self.samples:
            for name, count in sample.codes.items():
                found[name] = found.get(name, 0) + count
        return found


class Link:
    """A running router as a daemon has it, with the routes it was given."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self.facts = Facts()
        self._routes: dict[str, Route] = {}

    async def route(self, *workers: WorkerRoute, service: str = SERVICE, **settings: Any) -> int:
        """Give the service these workers and settings (others stay as they were); return its port."""
        before = self._routes.get(service) or Route(service=service, host="127.0.0.1", port=0)
        self._routes[service] = replace(before, workers=workers, **settings)
        await self.apply()
        await until(lambda: service in self.facts.addresses, "the address is told")
        return self.facts.addresses[service][1]

    async def apply(self) -> None:
        """Give it the table."""
        with anyio.fail_after(DEADLINE):
            await self.router.apply(RoutingTable(routes=dict(self._routes)))

    async def remove(self, service: str = SERVICE) -> None:
        """Take the service out of the table."""
        del self._routes[service]
        await self.apply()


class Bench:
    """One state directory with the daemons on it."""

    def __init__(self, directory: Path, factory: str, options: Mapping[str, Any]) -> None:
        self.factory = factory
        self.options = options
        self.places = {"state_dir": str(directory / "state"), "runtime_dir": str(directory / "run")}
        self.instance = f"suite-{os.getpid()}-{time.monotonic_ns():x}"
        for place in self.places.values():
            Path(place).mkdir(parents=True)

    @property
    def context(self) -> PluginContext:
        """What a daemon hands to the factory."""
        environ = {"PATH": os.environ["PATH"]}
        return PluginContext(
            instance=self.instance, options=self.options, environ=environ, log=lambda _: None, **self.places
        )

    @asynccontextmanager
    async def linked(self) -> AsyncIterator[Link]:
        """A running router; what it has started goes on afterwards."""
        link = Link(make_router(self.factory, self.context))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(link.router.run, link.facts)
            try:
                yield link
            finally:
                tasks.cancel_scope.cancel()

    async def first_daemon(self, *workers: WorkerRoute) -> tuple[subprocess.Popen[bytes], int]:
        """A daemon in a process of its own, with that pool; and the port of its service."""
        rows = [[one.id, one.endpoint, one.concurrency] for one in workers]
        told = {
            "factory": self.factory,
            "options": dict(self.options),
            "instance": self.instance,
            **self.places,
        }
        argv = [sys.executable, "-c", FIRST_DAEMON, json.dumps({**told, "workers": rows})]
        daemon = await asyncio.to_thread(
            subprocess.Popen, argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert daemon.stdout is not None
        return daemon, int(await asyncio.to_thread(daemon.stdout.readline))

    def held(self, port: int) -> bool:
        """Whether a process that only holds sockets has the one that listens there."""
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        sockets = {f"socket:[{row[9]}]" for row in rows if row[3] == "0A" and row[1].endswith(f":{port:04X}")}
        holders = set(self.programs()) - set(self.programs(holding=False))
        return any(os.readlink(fd) in sockets for pid in holders for fd in Path(f"/proc/{pid}/fd").iterdir())

    def programs(self, *, holding: bool = True) -> list[int]:
        """The processes that serve this state directory: those whose command line names it. `holding`: also
        one that holds their sockets and does nothing else."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal() and int(entry.name) != os.getpid():
                try:
                    argv = (entry / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue  # it has just ended
                named = any(self.places["state_dir"].encode() in word for word in argv)
                if not holding and holder.__file__.encode() in argv:
                    continue
                if named and FIRST_DAEMON.encode() not in argv:
                    found.append(int(entry.name))
        return found

    async def end_everything(self) -> None:
        """kill -9 whatever still runs."""
        for pid in self.programs():
            end(pid)
        await until(lambda: not self.programs(), "the router's programs end")


def end(pid: int) -> None:
    """kill -9, and reap it if it is ours. Gone is no error."""
    with suppress(ProcessLookupError, ChildProcessError):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def make_router(factory: str, context: PluginContext) -> Router:
    """The router that `module:attribute` makes."""
    module, _, attribute = factory.partition(":")
    router = getattr(import_module(module), attribute)(context)
    assert isinstance(router, Router)
    return router


def first_daemon() -> None:
    """The whole of a daemon that only has a router; runs until it is killed."""
    told = json.loads(sys.argv[1])
    factory, workers = told.pop("factory"), told.pop("workers")
    rows = tuple(
        WorkerRoute(id=name, endpoint=endpoint, concurrency=limit) for name, endpoint, limit in workers
    )
    context = PluginContext(environ={"PATH": os.environ["PATH"]}, log=lambda _: None, **told)

    async def live() -> None:
        facts: RouterEvents = _Printing()
        router = make_router(factory, context)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(router.run, facts)
            table = {SERVICE: Route(service=SERVICE, host="127.0.0.1", port=0, workers=rows)}
            await router.apply(RoutingTable(routes=table))

    anyio.run(live)


class _Printing(Facts):
    """Prints the port of the service."""

    def bound(self, service: str, host: str, port: int) -> None:
        """See RouterEvents."""
        sys.stdout.write(f"{port}\n")
        sys.stdout.flush()
