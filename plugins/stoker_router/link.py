"""The daemon's side of the router: finds or starts the program, tells it the table, hears its facts.

The program outlives the daemon: cancelling `run` leaves it serving, and the next daemon finds it by its
socket. Only `stop` ends it.
"""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

import anyio
from anyio.abc import ByteStream

from stoker.errors import RouterError
from stoker.model.load import LoadSample
from stoker.model.state import RoutingTable
from stoker.plugin.ports import PluginContext, RouterEvents
from stoker_router.launch import control_path, start
from stoker_router.table import VERSION

START_PATIENCE = 10.0
"""Seconds a program that was started gets to open its socket."""
ANSWER_PATIENCE = 5.0
"""Seconds a program gets to say hello; one that does not is not used."""
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0
"""Seconds between tries to get a program that dies again and again."""
MAX_LINE = 16 * 1024 * 1024


class ProgramLink:
    """Implements `stoker.plugin.ports.Router` over the program's control socket."""

    def __init__(self, context: PluginContext) -> None:
        self._context = context
        self._path = control_path(context.runtime_dir, context.instance)
        self._table: RoutingTable | None = None
        self._count = 0
        self._stream: ByteStream | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._ending = False
        self._writing = anyio.Lock()

    async def run(self, events: RouterEvents) -> None:
        """See `stoker.plugin.ports.Router.run`."""
        pause, served = FIRST_PAUSE, False
        while not self._ending:
            try:
                stream, lines = await self._connect()
                if served:
                    events.trouble("", "the router had ended; it was started again")
                served, pause = True, FIRST_PAUSE
                self._stream = stream
                async with stream:
                    await self._tell_table()
                    async for message in lines:
                        _hear(message, events)
            except (OSError, RouterError, anyio.BrokenResourceError, anyio.EndOfStream) as error:
                if self._ending:
                    return
                if isinstance(error, RouterError):
                    events.trouble("", str(error))
                    await anyio.sleep(pause)
                    pause = min(pause * 2, LONGEST_PAUSE)
            finally:
                self._stream = None
                self._reap()

    async def apply(self, table: RoutingTable) -> None:
        """See `stoker.plugin.ports.Router.apply`."""
        self._table = table
        await self._tell_table()

    async def stop(self, grace: float) -> None:
        """See `stoker.plugin.ports.Router.stop`."""
        self._ending = True
        await self._tell({"op": "stop", "grace": grace})
        with anyio.move_on_after(grace + 1):
            while await self._alive():  # noqa: ASYNC110 - the end of another process; there is nothing to wait on
                await anyio.sleep(0.01)
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
        self._reap()

    async def _connect(self) -> tuple[ByteStream, AsyncIterator[dict[str, Any]]]:
        """Reach the program that runs, or start one. Raises RouterError."""
        try:
            found = await self._greet()
        except (OSError, anyio.EndOfStream, anyio.BrokenResourceError):
            found = None  # nobody there, or just leaving
        return found or await self._launch()

    async def _launch(self) -> tuple[ByteStream, AsyncIterator[dict[str, Any]]]:
        context = self._context
        self._process = start(self._path, instance=context.instance, state_dir=context.state_dir)
        deadline = anyio.current_time() + START_PATIENCE
        while anyio.current_time() < deadline:
            if (code := self._process.poll()) is not None:
                log = f"{context.state_dir}/logs/router.log"
                raise RouterError(f"the router ended at its start with exit code {code}; see {log}")
            try:
                return await self._greet()
            except (OSError, anyio.EndOfStream, anyio.BrokenResourceError):
                await anyio.sleep(0.01)
        self._process.kill()
        raise RouterError(f"the router did not open {self._path} within {START_PATIENCE:g} s")

    async def _greet(self) -> tuple[ByteStream, AsyncIterator[dict[str, Any]]]:
        """Connect and exchange hello. Raises OSError, EndOfStream, or RouterError for a program that is not
        ours or too old (which is then asked to end)."""
        stream = await anyio.connect_unix(self._path)
        lines = _lines(stream)
        await stream.send(b'{"op":"hello"}\n')
        with anyio.move_on_after(ANSWER_PATIENCE):
            hello = await anext(lines)
            if hello.get("instance") == self._context.instance and hello.get("version") == VERSION:
                return stream, lines
            await stream.send(b'{"op":"stop","grace":10}\n')
            await stream.aclose()
            raise RouterError(
                f"the router at {self._path} is another's or of another version; it is replaced"
            )
        await stream.aclose()
        raise RouterError(f"the router at {self._path} does not answer")

    async def _alive(self) -> bool:
        try:
            async with await anyio.connect_unix(self._path):
                return True
        except OSError:
            return False

    async def _tell_table(self) -> None:
        """Send the newest table, if there is one: a daemon that knows nothing yet must not empty the table of
        a router that serves."""
        if self._table is not None:
            self._count += 1
            routes = [asdict(route) for route in self._table.routes.values()]
            await self._tell({"op": "apply", "id": self._count, "routes": routes})

    async def _tell(self, message: dict[str, Any]) -> None:
        """Send one line; a program that is away gets the table when it is back."""
        async with self._writing:
            if self._stream is not None:
                try:
                    await self._stream.send(json.dumps(message).encode() + b"\n")
                except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
                    self._stream = None

    def _reap(self) -> None:
        if self._process is not None and self._process.poll() is not None:
            self._process = None


async def _lines(stream: ByteStream) -> AsyncIterator[dict[str, Any]]:
    """The messages that come in. Raises EndOfStream at the end."""
    buffer = b""
    while True:
        *whole, buffer = (buffer + await stream.receive(1 << 16)).split(b"\n")
        for line in whole:
            yield json.loads(line)
        if len(buffer) > MAX_LINE:
            raise RouterError("the router sends a line without an end")


def _hear(message: dict[str, Any], events: RouterEvents) -> None:
    match message.pop("op"):
        case "sample":
            events.sample(_sample(message))
        case "demand":
            events.demand(message["service"])
        case "drained":
            events.drained(message["replica"])
        case "bound":
            events.bound(message["service"], message["host"], message["port"])
        case "trouble":
            events.trouble(message["service"], message["message"])
        case "error":
            events.trouble("", f"the router says: {message['message']}")


def _sample(message: dict[str, Any]) -> LoadSample:
    latency = {math.inf if bound == "inf" else float(bound): n for bound, n in message.pop("latency").items()}
    return LoadSample(latency=latency, **message)
