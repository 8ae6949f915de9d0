"""A real router program, workers that obey the test, and a client that sees every byte."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any
from urllib.parse import parse_qs, urlsplit

import anyio

from stoker.model.door import Door
from stoker.model.load import LoadSample
from stoker.model.state import Route, RoutingTable, WorkerRoute
from stoker.plugin.holding import Holding
from stoker.plugin.ports import PluginContext
from stoker.plugin.processes import gone
from stoker_router import launch
from stoker_router.channel import Channel
from stoker_router.link import ProgramLink

PATIENCE = 15.0
"""Seconds after which a condition that has not come true fails the test."""
SERVICE = "app/web"


async def until(condition: Callable[[], Any], what: str = "") -> Any:
    """Wait for the condition to come true and return its value."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < deadline, what or "it did not come true in time"
        await asyncio.sleep(0.002)
    return value


# --- workers ----------------------------------------------------------------------------------------------


@dataclass
class Heard:
    """A request as a worker got it."""

    head: bytes
    body: bytes = b""

    @property
    def line(self) -> str:
        return self.head.split(b"\r\n")[0].decode()

    @property
    def fields(self) -> dict[str, str]:
        """Names in lower case; a field that comes twice is joined by a bar, so that no test overlooks it."""
        found: dict[str, str] = {}
        for line in self.head.decode("latin1").split("\r\n")[1:]:
            if line:
                name, _, value = line.partition(":")
                key = name.lower()
                found[key] = f"{found[key]}|{value.strip()}" if key in found else value.strip()
        return found

    @property
    def path(self) -> str:
        return urlsplit(self.line.split()[1]).path

    @property
    def query(self) -> dict[str, str]:
        return {name: value[0] for name, value in parse_qs(urlsplit(self.line.split()[1]).query).items()}


async def read_body(reader: asyncio.StreamReader, fields: dict[str, str]) -> bytes:
    """The whole body, with chunks undone."""
    if "chunked" in fields.get("transfer-encoding", ""):
        body = b""
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            body += await reader.readexactly(size)
            assert await reader.readexactly(2) == b"\r\n"
        while (await reader.readline()) != b"\r\n":
            pass
        return body
    return await reader.readexactly(int(fields.get("content-length", 0)))


def ok(body: bytes = b"fine", *fields: str) -> bytes:
    """A plain good answer."""
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *fields]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


Handler = Callable[[Heard, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Worker:
    """A worker inside the test. By default it answers `?ms=N` milliseconds later with its own name; `gate`
    holds its answers back while it is cleared. With `handle` it does what the test says."""

    def __init__(self, name: str = "w", handle: Handler | None = None) -> None:
        self.name = name
        self.handle = handle or self._answer
        self.heard: list[Heard] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.busy = self.peak = self.connections = self.hung_up = 0
        self.closed_at = 0.0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def open(self) -> Worker:
        """Listen, at the same port as before if there was one."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=1 << 20)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def close(self) -> None:
        """End as a process does: every connection is closed, nobody listens."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()
        await until(lambda: not self._writers)

    def route(self, concurrency: int | None = None, *, draining: bool = False) -> WorkerRoute:
        """How it stands in the table."""
        endpoint = f"127.0.0.1:{self.port}"
        return WorkerRoute(id=self.name, endpoint=endpoint, concurrency=concurrency, draining=draining)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            while True:
                heard = Heard(await reader.readuntil(b"\r\n\r\n"))
                self.heard.append(heard)
                self.busy += 1
                self.peak = max(self.peak, self.busy)
                try:
                    await self.handle(heard, reader, writer)
                finally:
                    self.busy -= 1
                if writer.is_closing():
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            self.closed_at = time.monotonic()
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, heard: Heard, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.body = await read_body(reader, heard.fields)
        gone = asyncio.ensure_future(reader.read(1))
        wait = asyncio.ensure_future(self._wait(heard))
        try:
            await asyncio.wait((gone, wait), return_when=asyncio.FIRST_COMPLETED)
            if not wait.done():
                self.hung_up += 1
                self.closed_at = time.monotonic()
                writer.close()
                return
        finally:
            for task in (gone, wait):
                task.cancel()
            await asyncio.gather(gone, wait, return_exceptions=True)
        head = "HEAD" if heard.line.startswith("HEAD") else ""
        body = self.name.encode()
        writer.write(ok(body)[: -len(body)] if head else ok(body))
        await writer.drain()

    async def _wait(self, heard: Heard) -> None:
        await asyncio.sleep(float(heard.query.get("ms", 0)) / 1000)
        await self.gate.wait()


@asynccontextmanager
async def worker(name: str = "w", handle: Handler | None = None) -> AsyncIterator[Worker]:
    """An open worker; closed at the end."""
    made = await Worker(name, handle).open()
    try:
        yield made
    finally:
        await made.close()


class WorkerProcess:
    """A worker that is a process of its own and can be killed."""

    def __init__(self, name: str, port: int = 0) -> None:
        self.name = name
        self.port = port
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> WorkerProcess:
        """Start it and wait until it listens; at the same port as before, if there was one."""
        script = Path(__file__).parent / "worker.py"
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, str(script), self.name, str(self.port), stdout=asyncio.subprocess.PIPE
        )
        assert self._process.stdout is not None
        self.port = int(await self._process.stdout.readline())
        return self

    def route(self, concurrency: int | None = None, *, draining: bool = False) -> WorkerRoute:
        """How it stands in the table."""
        endpoint = f"127.0.0.1:{self.port}"
        return WorkerRoute(id=self.name, endpoint=endpoint, concurrency=concurrency, draining=draining)

    async def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


@asynccontextmanager
async def worker_processes(*names: str) -> AsyncIterator[list[WorkerProcess]]:
    """Running workers, killed at the end."""
    made = [WorkerProcess(name) for name in names]
    try:
        await asyncio.gather(*(one.start() for one in made))
        yield made
    finally:
        await asyncio.gather(*(one.kill() for one in made))


# --- clients ----------------------------------------------------------------------------------------------


@dataclass
class Answer:
    """What a client got."""

    status: int
    head: bytes
    body: bytes
    seconds: float = 0.0

    @property
    def fields(self) -> dict[str, str]:
        return Heard(self.head).fields

    @property
    def error(self) -> str:
        """The text of an answer of the router itself."""
        assert self.fields["content-type"] == "application/json"
        text: str = json.loads(self.body)["error"]
        return text


class Client:
    """One connection to the router."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes | str) -> None:
        self.writer.write(data.encode() if isinstance(data, str) else data)

    def get(self, path: str = "/", *fields: str, method: str = "GET") -> None:
        self.send("\r\n".join([f"{method} {path} HTTP/1.1", "Host: test", *fields]) + "\r\n\r\n")

    def post(self, path: str, body: bytes, *fields: str) -> None:
        self.get(path, f"Content-Length: {len(body)}", *fields, method="POST")
        self.send(body)

    async def head(self) -> bytes:
        return await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), PATIENCE)

    async def answer(self, *, bodyless: bool = False) -> Answer:
        """The next answer, whole."""
        began = time.monotonic()
        head = await self.head()
        status = int(head.split()[1])
        fields = Heard(head).fields
        if bodyless or status < 200 or status in (204, 304):
            body = b""
        elif "content-length" in fields or "transfer-encoding" in fields:
            body = await asyncio.wait_for(read_body(self.reader, fields), PATIENCE)
        else:
            body = await self.rest()
        return Answer(status, head, body, time.monotonic() - began)

    async def rest(self) -> bytes:
        """All until the router closes the connection."""
        return await asyncio.wait_for(self.reader.read(-1), PATIENCE)

    async def closed(self) -> bool:
        """Wait for the router to close the connection, with nothing more said."""
        return await self.rest() == b""

    def abort(self) -> None:
        self.writer.transport.abort()


@asynccontextmanager
async def client(port: int) -> AsyncIterator[Client]:
    """An open connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
    try:
        yield Client(reader, writer)
    finally:
        writer.transport.abort()


async def get(port: int, path: str = "/", *fields: str, method: str = "GET") -> Answer:
    """One request on a connection of its own."""
    async with client(port) as made:
        made.get(path, *fields, method=method)
        return await made.answer(bodyless=method == "HEAD")


async def post(port: int, path: str, body: bytes, *fields: str) -> Answer:
    """One request with a body on a connection of its own."""
    async with client(port) as made:
        made.post(path, body, *fields)
        return await made.answer()


# --- the router -------------------------------------------------------------------------------------------


@dataclass
class Facts:
    """Everything the router told: implements RouterEvents."""

    samples: list[LoadSample] = field(default_factory=list)
    demands: list[tuple[float, str]] = field(default_factory=list)
    drains: list[str] = field(default_factory=list)
    addresses: dict[str, tuple[str, int]] = field(default_factory=dict)
    troubles: list[tuple[str, str]] = field(default_factory=list)

    def sample(self, sample: LoadSample) -> None:
        self.samples.append(sample)

    def demand(self, service: str) -> None:
        self.demands.append((time.monotonic(), service))

    def drained(self, replica: str) -> None:
        self.drains.append(replica)

    def bound(self, service: str, host: str, port: int) -> None:
        self.addresses[service] = (host, port)

    def trouble(self, service: str, message: str) -> None:
        self.troubles.append((service, message))

    def total(self, name: str) -> float:
        """A field summed over all samples."""
        return sum(getattr(sample, name) for sample in self.samples)

    def codes(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for sample in self.samples:
            for name, count in sample.codes.items():
                found[name] = found.get(name, 0) + count
        return found


class Router:
    """A link in the test's process and the program behind it."""

    def __init__(self, context: PluginContext, hello_timeout: float) -> None:
        self.context = context
        self.link = ProgramLink(context, hello_timeout=hello_timeout)
        self.facts = Facts()
        self.doors: tuple[Door, ...] = ()
        self._routes: dict[str, Route] = {}

    async def route(self, *workers: WorkerRoute, service: str = SERVICE, **settings: Any) -> int:
        """Give the service these workers and settings (others stay as they were); return its port."""
        before = self._routes.get(service) or Route(service=service, host="127.0.0.1", port=0)
        self._routes[service] = replace(before, workers=workers, **settings)
        await self.apply()
        await until(lambda: service in self.facts.addresses, "the address was not opened")
        return self.facts.addresses[service][1]

    async def remove(self, service: str = SERVICE) -> None:
        """Take the service out of the table."""
        del self._routes[service]
        await self.apply()

    async def apply(self) -> None:
        """Send the table."""
        with anyio.fail_after(PATIENCE):
            await self.link.apply(RoutingTable(routes=dict(self._routes), doors=self.doors))

    def newest(self) -> LoadSample:
        """The last sample that was told."""
        return self.facts.samples[-1]

    async def settled(self, arrivals: int) -> None:
        """Wait until so many arrivals are in the books and nothing happens any more."""
        await until(
            lambda: self.facts.total("arrivals") == arrivals and at_rest(self.newest()),
            "it did not come to rest",
        )


def at_rest(sample: LoadSample) -> bool:
    """Whether nothing at all happened."""
    return not (
        sample.in_flight or sample.queued or sample.arrivals or sample.codes or sample.in_flight_seconds
    )


def context(folder: Path) -> PluginContext:
    """What the daemon gives to a router whose state is in that folder."""
    for name in ("state", "run"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    environ = {"PATH": os.environ["PATH"], "HF_TOKEN": "a secret of the daemon"}
    return PluginContext(
        instance=f"test-{folder.name}",
        state_dir=str(folder / "state"),
        runtime_dir=str(folder / "run"),
        environ=environ,
    )


@asynccontextmanager
async def linked(made: PluginContext, hello_timeout: float = 10.0) -> AsyncIterator[Router]:
    """A running link, to the program that is there or a new one. Leaves the program running."""
    router = Router(made, hello_timeout)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(router.link.run, router.facts)
        await until(lambda: router.link.pid, "the program did not start")
        try:
            yield router
        finally:
            tasks.cancel_scope.cancel()


@contextmanager
def program(
    made: PluginContext, *options: str, stderr: IO[str] | None = None, source: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A program started by hand, with options that suit the test, from another `source` directory if there is
    one; killed at the end."""
    argv = [sys.executable, "-m", "stoker_router", "--control", launch.control_path(made)]
    argv += ["--instance", made.instance, "--state-dir", made.state_dir]
    ready, tell = os.pipe()
    log = launch.log_path(made)
    log.parent.mkdir(exist_ok=True)
    with log.open("a") as written:
        where: dict[str, Any] = {"stdout": written, "stderr": stderr or written, "pass_fds": [tell]}
        if source is not None:
            where["env"] = {**os.environ, "PYTHONPATH": str(source)}
        with subprocess.Popen([*argv, "--ready-fd", str(tell), *options], **where) as process:
            try:
                os.close(tell)
                assert os.read(ready, 16) == b"ready\n"
                yield process
            finally:
                os.close(ready)
                process.kill()
    no_mishap(made)


def no_mishap(made: PluginContext) -> None:
    """Nothing went wrong inside the program that nobody saw from outside."""
    log = launch.log_path(made)
    text = log.read_text() if log.is_file() else ""
    assert "Traceback" not in text, text
    assert "never retrieved" not in text, text


async def program_pid(made: PluginContext) -> int:
    """The pid of the program of that context, 0 if none runs."""
    channel = await Channel.open(launch.control_path(made))
    if channel is None:
        return 0
    async with channel:
        return channel.pid


def holding_of(made: PluginContext) -> Holding:
    """Another line to the process that holds the sockets."""
    return Holding(made, lambda: launch.keep_path(made))


async def end_program(made: PluginContext) -> None:
    """kill -9, whatever state it is in; and the end of the process that holds its sockets."""
    holding_of(made).end()
    pid = await program_pid(made)
    if pid:
        os.kill(pid, signal.SIGKILL)
        await gone(pid, timeout=5.0)


async def together(*calls: Awaitable[Any]) -> Sequence[Any]:
    """All at once; the first that fails fails the test."""
    return await asyncio.wait_for(asyncio.gather(*calls), PATIENCE)
