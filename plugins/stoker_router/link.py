"""The daemon's side of the router: finds or starts the program, sends it tables, passes on what it tells."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager, suppress
from typing import Any

import anyio
import anyio.to_thread

from stoker.errors import RouterError
from stoker.model.load import RequestRecord
from stoker.model.service import ServiceKey
from stoker.model.state import RoutingTable
from stoker.model.trace import SpanBatch
from stoker.plugin.copies import copy_of
from stoker.plugin.ports import PluginContext, RouterEvents
from stoker.plugin.processes import gone
from stoker_router import launch
from stoker_router.bridge import Bridge
from stoker_router.channel import Channel, ChannelClosed
from stoker_router.former import Formers
from stoker_router.protocol import VERSION
from stoker_router.sockets import giving, send_to_next
from stoker_router.wire import decode_records, decode_sample, decode_spans, encode_doors, encode_table

HELLO_TIMEOUT = 10.0
"""Seconds for the program to answer; one that does not is hung and gets replaced."""
FIRST_BACKOFF, MAX_BACKOFF = 0.05, 5.0
"""Seconds between two attempts to have a program; doubles from one to the next."""
LONG_ENOUGH = 1.0
"""Seconds of service after which the backoff begins anew."""
SWAP_GRACE = 3600.0
"""Seconds for a program that was replaced by another version to finish the requests that it has."""
SWAP_PATIENCE = 5.0
"""Seconds in which connections to such a program may still send a request."""
SETTLE = 0.02
"""Seconds after an address was opened before the sockets are fetched: addresses are opened in bursts."""
GIVE_PATIENCE = 2.0
"""Seconds for the program to take an open address from here."""
STOP_PATIENCE = 5.0
"""Seconds beyond the grace after which a program that was told to stop is killed."""


class Asked:
    """Callers who wait for the program's word, by serial number."""

    def __init__(self) -> None:
        self._last = 0
        self._waiting: dict[int, anyio.Event] = {}

    def more(self) -> tuple[int, anyio.Event]:
        """A new number, and what is set when its answer is there."""
        self._last += 1
        done = self._waiting[self._last] = anyio.Event()
        return self._last, done

    @contextmanager
    def one(self) -> Iterator[tuple[int, anyio.Event]]:
        """Likewise, for a caller who may give up."""
        serial, done = self.more()
        try:
            yield serial, done
        finally:
            self._waiting.pop(serial, None)

    def answer(self, serial: int) -> None:
        """The program has answered."""
        if done := self._waiting.pop(serial, None):
            done.set()

    def answer_all(self) -> None:
        """There is no program any more."""
        for serial in list(self._waiting):
            self.answer(serial)


class ProgramLink:
    """The `Router` of this plugin (see `stoker.plugin.ports.Router`). The program outlives it: cancelling
    `run` leaves it serving, and the next link finds it by its socket."""

    opens_doors = True
    several = True

    def __init__(self, context: PluginContext, *, hello_timeout: float = HELLO_TIMEOUT) -> None:
        self._context = context
        self._hello_timeout = hello_timeout
        self._table: RoutingTable | None = None
        """The newest. None: a daemon that knows nothing yet must not empty a serving router's table."""
        self._ports: dict[ServiceKey, tuple[str, int]] = {}
        self._channel: Channel | None = None
        self._asked = Asked()
        self._stopped = False
        self._bridge = Bridge(context)
        """Over the end of a program: its listening sockets stay open."""
        self._replaced = 0
        """The pid of a program that was swapped for this one, until that is said."""
        self._formers = Formers()
        self._rebound = anyio.Event()
        """An address was opened since the sockets were fetched last."""

    @property
    def pid(self) -> int:
        """Of the program that serves us; 0 while there is none."""
        return 0 if self._channel is None else self._channel.pid

    @property
    def bridged(self) -> frozenset[ServiceKey]:
        """Services whose address would stay open if the program ended now."""
        return self._bridge.copies.services

    async def run(self, events: RouterEvents) -> None:
        """See stoker.plugin.ports.Router."""
        try:
            async with anyio.create_task_group() as tasks:
                self._formers.begin(tasks, events)
                await self._run(events)
                tasks.cancel_scope.cancel()
        finally:
            self._bridge.leave()

    async def _run(self, events: RouterEvents) -> None:
        backoff, said, lost = FIRST_BACKOFF, "", 0
        while not self._stopped:
            began = anyio.current_time()
            try:
                async with await self._reach() as channel:
                    if lost and lost != channel.pid:
                        events.trouble(
                            "", f"the router (pid {lost}) ended; it runs again as pid {channel.pid}"
                        )
                    if self._replaced:
                        events.trouble(
                            "",
                            f"the router (pid {self._replaced}) is of another version; "
                            f"pid {channel.pid} takes its place, and it finishes what it has",
                        )
                        self._replaced = 0
                    said, lost = "", channel.pid
                    await self._serve(channel, events)
            except RouterError as error:
                if str(error) != said:
                    said = str(error)
                    events.trouble("", said)
            if anyio.current_time() - began > LONG_ENOUGH:
                backoff = FIRST_BACKOFF
            if not self._stopped:
                await anyio.sleep(backoff)
                backoff = min(backoff * 2, MAX_BACKOFF)

    async def apply(self, table: RoutingTable) -> None:
        """See stoker.plugin.ports.Router. Returns when the table is in force; without a program at once."""
        self._table = table
        await self._bridge.keep_only(table, self.pid)
        if self._channel is None:
            return
        try:
            done = await self._send_table(self._channel, table)
        except ChannelClosed:
            return
        await done.wait()

    async def measure(self) -> None:
        """See stoker.plugin.ports.MeasuringRouter."""
        if self._channel is not None:
            with self._asked.one() as (serial, done), suppress(ChannelClosed):
                await self._channel.send({"op": "sample", "id": serial})
                await done.wait()

    async def record(self, services: Sequence[ServiceKey]) -> AsyncGenerator[Sequence[RequestRecord], None]:
        """See stoker.plugin.ports.RecordingRouter."""
        async with aclosing(_told(self._context, {"op": "record", "services": list(services)})) as messages:
            async for message in messages:
                yield decode_records(message)

    async def spans(self) -> AsyncGenerator[SpanBatch, None]:
        """See stoker.plugin.ports.TracingRouter."""
        async with aclosing(_told(self._context, {"op": "trace"})) as messages:
            async for message in messages:
                yield decode_spans(message)

    async def stop(self, grace: float) -> None:
        """See stoker.plugin.ports.Router."""
        self._stopped = True
        try:
            await self._bridge.end()
            channel = await Channel.open(launch.control_path(self._context))
        except RouterError:
            return  # where no socket can be there is no program
        if channel is None:
            return
        async with channel:
            try:
                hello = await self._hello(channel)
                if hello.get("instance") != self._context.instance:
                    return
                await channel.send({"op": "stop", "grace": grace})
            except ChannelClosed:
                pass  # it is ending already
            if channel.pid and not await gone(channel.pid, timeout=grace + STOP_PATIENCE):
                launch.kill(channel.pid)
                await gone(channel.pid, timeout=STOP_PATIENCE)

    def listening(self, service: ServiceKey) -> int | None:
        """See stoker.plugin.ports.HandingRouter."""
        return self._bridge.copies.duplicate(service)

    async def inherit(self, service: ServiceKey, fd: int) -> None:
        """See stoker.plugin.ports.HandingRouter. A program that cannot be had is born with it one day."""
        with anyio.move_on_after(HELLO_TIMEOUT):
            while self._channel is None:  # noqa: ASYNC110 - it starts: a tenth of a second, once
                await anyio.sleep(0.01)
        if self._channel is not None:
            await self._give(self._channel, fd)
        else:
            self._bridge.copies.add(service, copy_of(fd))

    async def _give(self, channel: Channel, fd: int) -> None:
        try:
            with giving(f"{launch.control_path(self._context)}.give", GIVE_PATIENCE) as door:
                serial, done = self._asked.more()
                await channel.send({"op": "inherit", "id": serial, "path": door.getsockname()})
                await anyio.to_thread.run_sync(send_to_next, door, fd)
                await done.wait()
        except (ChannelClosed, OSError) as error:
            raise RouterError(f"the router did not take over an open address: {error}") from error

    # --- reaching a program -------------------------------------------------------------------------------

    async def _reach(self) -> Channel:
        """A connection to a program that serves us: the one that runs, or a new one. Raises RouterError."""
        path = launch.control_path(self._context)
        self._ports |= await self._bridge.recall()
        channel = await Channel.open(path)
        if channel is None:
            channel = await self._launch(path)
        try:
            if not await self._introduce(channel, path):
                channel = await self._swap(channel, path)
        except BaseException:
            await channel.__aexit__(None, None, None)
            raise
        return channel

    async def _launch(self, path: str, *, replace: bool = False) -> Channel:
        """A connection to a new program, which has the sockets of the one before. Raises RouterError."""
        inherited = [copy.fd for copy in self._bridge.copies.duplicates().values()]
        try:
            await launch.start(self._context, path, inherited, replace=replace)
        finally:
            for fd in inherited:
                os.close(fd)
        channel = await Channel.open(path)
        if channel is None:
            raise RouterError(f"the router does not listen at {path}; see {launch.log_path(self._context)}")
        return channel

    async def _swap(self, old: Channel, path: str) -> Channel:
        """Put a program of this version in the place of one of another: it takes over the sockets, the old
        one finishes what it has. Raises RouterError."""
        self._ports |= await self._bridge.fetch(path, self.pid)
        new = await self._launch(path, replace=True)
        try:
            with suppress(ChannelClosed):
                await old.send({"op": "stop", "grace": SWAP_GRACE, "patience": SWAP_PATIENCE})
            self._formers.add(old)
            self._replaced = old.pid
            if not await self._introduce(new, path):
                raise RouterError(
                    f"the router (pid {new.pid}) is of another version than its daemon; reinstall Stoker"
                )
        except BaseException:
            await new.__aexit__(None, None, None)
            raise
        return new

    async def _introduce(self, channel: Channel, path: str) -> bool:
        """Whether the program is of our version. Raises RouterError for one that cannot be ours."""
        try:
            found = await self._hello(channel)
        except ChannelClosed:
            await gone(channel.pid, timeout=STOP_PATIENCE)
            raise RouterError(f"the router (pid {channel.pid}) ended while it was greeted") from None
        if not found:
            launch.kill(channel.pid)
            await gone(channel.pid, timeout=STOP_PATIENCE)
            raise RouterError(f"the router (pid {channel.pid}) did not answer and was killed")
        if found["instance"] != self._context.instance:
            raise RouterError(
                f"the router (pid {channel.pid}) at {path} belongs to another daemon; "
                "give this one a runtime directory of its own, or end that router"
            )
        return bool(found["version"] == VERSION)

    async def _hello(self, channel: Channel) -> dict[str, Any]:
        """The program's answer to our hello, empty if it does not answer. Raises ChannelClosed."""
        with anyio.move_on_after(self._hello_timeout):
            await channel.send({"op": "hello", "instance": self._context.instance})
            return await channel.receive()
        return {}

    # --- a program that serves us -------------------------------------------------------------------------

    async def _serve(self, channel: Channel, events: RouterEvents) -> None:
        """Pass on what the program tells, until it ends."""
        self._channel = channel
        self._formers.present = channel.pid
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._keep_sockets)
                await self._listen(channel, events)
                tasks.cancel_scope.cancel()
        finally:
            self._channel = None
            self._asked.answer_all()

    async def _listen(self, channel: Channel, events: RouterEvents) -> None:
        try:
            if self._table is not None:
                await self._send_table(channel, self._table)
            while True:
                self._hear(await channel.receive(), events)
        except ChannelClosed:
            with anyio.move_on_after(STOP_PATIENCE):
                await gone(channel.pid, timeout=STOP_PATIENCE)

    async def _keep_sockets(self) -> None:
        """Have a copy of each address that is opened."""
        while True:
            await self._rebound.wait()
            await anyio.sleep(SETTLE)
            self._rebound = anyio.Event()
            self._ports |= await self._bridge.fetch(launch.control_path(self._context), self.pid)

    async def _send_table(self, channel: Channel, table: RoutingTable) -> anyio.Event:
        """Send it; the event is set when it is in force. Raises ChannelClosed."""
        serial, done = self._asked.more()
        message = {
            "op": "apply",
            "id": serial,
            "routes": encode_table(table, self._ports),
            "doors": encode_doors(table),
        }
        await channel.send(message)
        await self._formers.apply(message)
        return done

    def _hear(self, message: dict[str, Any], events: RouterEvents) -> None:
        match message["op"]:
            case "sample":
                self._formers.sample(decode_sample(message))
            case "demand":
                events.demand(message["service"])
            case "drained":
                self._formers.drained(message["replica"])
            case "bound":
                self._ports[message["service"]] = (message["host"], message["port"])
                self._rebound.set()
                if not message["service"].startswith("@"):
                    events.bound(message["service"], message["host"], message["port"])
            case "trouble":
                name = message["service"]  # a door is no service
                said = message["message"]
                events.trouble(
                    "" if name[:1] == "@" else name, f"front door: {said}" if name[:1] == "@" else said
                )
            case "applied":
                self._asked.answer(message["id"])
            case "error":
                self._asked.answer(message["id"])
                events.trouble(
                    "",
                    f"a bug, to be reported: the router refused what its daemon said: {message['message']}",
                )


async def _told(context: PluginContext, wish: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
    """What the program answers to that on a connection of its own, until it ends. Raises RouterError."""
    channel = await Channel.open(launch.control_path(context))
    if channel is None:
        raise RouterError("the router does not run just now; `stoker events` says why")
    async with channel:
        try:
            await channel.send({**wish, "instance": context.instance})
            while True:
                yield await channel.receive()
        except ChannelClosed:
            return
