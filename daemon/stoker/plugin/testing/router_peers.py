"""What stands on both sides of a router in its suite: workers that obey the test, and clients."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

from stoker.model.state import WorkerRoute

DEADLINE = 30.0
"""Seconds any single expectation may take."""


async def until(condition: Callable[[], Any], what: str) -> Any:
    """Wait for the condition to come true and return its value."""
    deadline = time.monotonic() + DEADLINE
    while not (value := condition()):
        assert time.monotonic() < deadline, f"it did not come true in time: {what}"
        await asyncio.sleep(0.005)
    return value


# --- workers ----------------------------------------------------------------------------------------------


class Worker:
    """A worker inside the test. It answers with its name, as soon as its gate is open; `/events` with three
    lines a moment apart, `/upgrade` with an echo. `order`: the paths as they came. It listens on a free port,
    or on a unix socket at `path`."""

    def __init__(self, name: str, path: str = "") -> None:
        self.name = name
        self.path = path
        self.order: list[str] = []
        self.heads: list[str] = []
        self.bodies: list[bytes] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.busy = self.peak = self.given_up = 0
        self.held = 0.0
        """Seconds that requests were in it, of all together."""
        self.port = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def open(self) -> Worker:
        """Listen."""
        if self.path:
            self._server = await asyncio.start_unix_server(self._serve, self.path, limit=1 << 20)
            return self
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=1 << 20)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def close(self) -> None:
        """End as a process does."""
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await until(lambda: not self._writers, "the worker's connections end")

    def route(self, concurrency: int | None = None, *, draining: bool = False) -> WorkerRoute:
        """How it stands in the table."""
        found = route_to(self.name, self.port, concurrency, draining=draining)
        return replace(found, endpoint=f"unix:{self.path}") if self.path else found

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin1")
                self.heads.append(head)
                self.busy += 1
                self.peak = max(self.peak, self.busy)
                began = time.monotonic()
                try:
                    await self._answer(head, reader, writer)
                finally:
                    self.busy -= 1
                    self.held += time.monotonic() - began
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target = urlsplit(head.split()[1])
        self.bodies.append(await read_body(reader, head))
        self.order.append(target.path)
        if target.path == "/events":
            await _events(writer)
            return
        if target.path == "/upgrade":
            await _echo(reader, writer)
            return
        wait = asyncio.ensure_future(self._wait(target.query))
        gone = asyncio.ensure_future(reader.read(1))
        await asyncio.wait((wait, gone), return_when=asyncio.FIRST_COMPLETED)
        given_up = not wait.done()
        for task in (wait, gone):
            task.cancel()
        await asyncio.gather(wait, gone, return_exceptions=True)
        if given_up:
            self.given_up += 1
            raise ConnectionResetError
        body = self.name.encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()

    async def _wait(self, query: str) -> None:
        await asyncio.sleep(float(parse_qs(query).get("ms", ["0"])[0]) / 1000)
        await self.gate.wait()


async def _events(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    for number in range(3):
        line = b"data: %d\n\n" % number
        writer.write(b"%x\r\n%b\r\n" % (len(line), line))
        await writer.drain()
        await asyncio.sleep(0.3)
    writer.write(b"0\r\n\r\n")


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
    while data := await reader.read(1 << 16):
        writer.write(data)
    raise ConnectionResetError


async def read_body(reader: asyncio.StreamReader, head: str) -> bytes:
    """The whole body behind that head, with chunks undone."""
    fields = {
        name.lower(): value.strip()
        for name, _, value in (line.partition(":") for line in head.split("\r\n")[1:])
    }
    if "chunked" not in fields.get("transfer-encoding", ""):
        return await reader.readexactly(int(fields.get("content-length", "0")))
    body = b""
    while size := int((await reader.readline()).split(b";")[0], 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    while await reader.readline() != b"\r\n":
        pass
    return body


class WorkerProcess:
    """A worker that is a process of its own and can be killed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = 0
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> WorkerProcess:
        """Start it and wait until it listens."""
        argv = [sys.executable, "-m", "stoker.plugin.testing.router_worker", self.name]
        self._process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
        assert self._process.stdout is not None
        self.port = int(await self._process.stdout.readline())
        return self

    def route(self, concurrency: int | None = None) -> WorkerRoute:
        """How it stands in the table."""
        return route_to(self.name, self.port, concurrency)

    async def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            if self._process.returncode is None:
                self._process.kill()
            await self._process.wait()


def route_to(name: str, port: int, concurrency: int | None, *, draining: bool = False) -> WorkerRoute:
    """A worker's line in the table."""
    return WorkerRoute(id=name, endpoint=f"127.0.0.1:{port}", concurrency=concurrency, draining=draining)


# --- clients ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client got."""

    status: int
    head: str
    body: bytes

    def field(self, name: str) -> str:
        """A field of its head, "" if there is none."""
        for line in self.head.split("\r\n")[1:]:
            found, _, value = line.partition(":")
            if found.lower() == name.lower():
                return value.strip()
        return ""

    @property
    def error(self) -> str:
        """The words of an answer of the router itself."""
        words: str = json.loads(self.body)["error"]
        return words


async def ask(port: int, path: str = "/", *, body: bytes | None = None, fields: Sequence[str] = ()) -> Answer:
    """One request on a connection of its own. Raises OSError, or IncompleteReadError for a broken answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    try:
        writer.write(request(path, body=body, fields=("Connection: close", *fields)))
        return await asyncio.wait_for(read_answer(reader), DEADLINE)
    finally:
        writer.transport.abort()


def request(path: str, *, body: bytes | None = None, fields: Sequence[str] = ()) -> bytes:
    """A request: GET, or POST with a body."""
    method = "GET" if body is None else "POST"
    lines = [f"{method} {path} HTTP/1.1", "Host: suite", *fields]
    lines += [] if body is None else [f"Content-Length: {len(body)}"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + (body or b"")


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """The next answer on a connection, whole."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin1")
    return Answer(int(head.split()[1]), head, await read_body(reader, head))


class Load:
    """Clients on kept connections that ask again and again until told to stop. `failed` holds every answer
    that is not 200 and every broken connection."""

    def __init__(self, port: int, clients: int, path: str = "/?ms=5") -> None:
        self.port = port
        self.ok = 0
        self.failed: list[str] = []
        self._path = path
        self._on = True
        self._tasks = [asyncio.ensure_future(self._client()) for _ in range(clients)]

    async def _client(self) -> None:
        while self._on:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError as error:
                self.failed.append(f"no connection: {error}")
                return
            try:
                await self._talk(reader, writer)
            except (asyncio.IncompleteReadError, OSError) as error:
                self.failed.append(repr(error))
            finally:
                writer.transport.abort()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while self._on:
            writer.write(request(self._path))
            answer = await asyncio.wait_for(read_answer(reader), DEADLINE)
            if answer.status == 200:
                self.ok += 1
            else:
                self.failed.append(f"{answer.status} {answer.body.decode(errors='replace')}")
            if answer.field("connection").lower() == "close":
                return

    async def more(self, number: int) -> None:
        """Wait until so many more were answered."""
        goal = self.ok + number
        await until(lambda: self.ok >= goal or self.failed, "answers under load")

    async def stop(self) -> None:
        """Let each finish its last one."""
        self._on = False
        await asyncio.gather(*self._tasks)


async def together(calls: Sequence[Awaitable[Any]]) -> list[Any]:
    """All at once; the first that fails fails the test."""
    return list(await asyncio.wait_for(asyncio.gather(*calls), DEADLINE))
