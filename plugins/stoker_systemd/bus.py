"""A connection to the system's message bus: calls with answers, signals to one listener."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import jeepney
from jeepney.auth import BEGIN, AuthenticationError, Authenticator

from stoker.errors import StokerError

SOCKET = "/run/dbus/system_bus_socket"
PIECE = 65536
_BUS = jeepney.DBusAddress("/org/freedesktop/DBus", "org.freedesktop.DBus", "org.freedesktop.DBus")

Signal = Callable[[str, str, tuple[Any, ...]], None]
"""Called with the object's path, the signal's name and its values."""


class BusError(StokerError):
    """A refused call. `name` is the error's name on the bus."""

    def __init__(self, name: str, message: str) -> None:
        self.name = name
        super().__init__(message)


class BusLostError(StokerError):
    """There is no connection, or it broke."""


class Bus:
    """One connection, made at the first call and again after it broke. `on_loss` is called when it breaks."""

    def __init__(self, rules: tuple[str, ...], on_signal: Signal, on_loss: Callable[[], None]) -> None:
        self._rules = rules
        self._on_signal = on_signal
        self._on_loss = on_loss
        self._serials = itertools.count(1)
        self._replies: dict[int, asyncio.Future[jeepney.Message]] = {}
        self._opening = asyncio.Lock()
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None

    async def call(self, address: jeepney.DBusAddress, method: str, signature: str = "", *body: Any) -> Any:
        """The values of the answer; the value itself if it is one. Raises BusError, BusLostError."""
        async with self._opening:
            if self._writer is None:
                await self._open()
        return await self._ask(address, method, signature, *body)

    async def close(self) -> None:
        """Close the connection."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])
        self._drop()

    async def _open(self) -> None:
        try:
            reader, self._writer = await asyncio.open_unix_connection(SOCKET)
            self._serials = itertools.count(1)
            login = Authenticator()
            for words in login:
                self._writer.write(words)
                login.feed(await reader.readuntil(b"\r\n"))
            self._writer.write(BEGIN)
        except (OSError, EOFError, AuthenticationError) as error:
            self._drop()
            raise BusLostError(
                f"cannot reach systemd over {SOCKET}: {error}; is dbus running? (systemctl status dbus)"
            ) from error
        self._reading = asyncio.create_task(self._read(reader))
        await self._ask(_BUS, "Hello")
        for rule in self._rules:
            await self._ask(_BUS, "AddMatch", "s", rule)

    async def _ask(self, address: jeepney.DBusAddress, method: str, signature: str = "", *body: Any) -> Any:
        if self._writer is None:
            raise BusLostError("the connection to systemd broke")
        serial = next(self._serials)
        message = jeepney.new_method_call(address, method, signature or None, body)
        reply = self._replies[serial] = asyncio.get_running_loop().create_future()
        try:
            self._writer.write(message.serialise(serial))
            answer = await reply
        finally:
            self._replies.pop(serial, None)
        if answer.header.message_type is jeepney.MessageType.error:
            name = str(answer.header.fields.get(jeepney.HeaderFields.error_name, ""))
            raise BusError(name, str(answer.body[0]) if answer.body else name)
        return answer.body[0] if len(answer.body) == 1 else answer.body

    async def _read(self, reader: asyncio.StreamReader) -> None:
        parser = jeepney.Parser()
        try:
            while piece := await reader.read(PIECE):
                for message in parser.feed(piece):
                    self._take(message)
        except OSError:
            pass  # as good as an end
        finally:
            self._drop()
        self._on_loss()

    def _take(self, message: jeepney.Message) -> None:
        fields = message.header.fields
        if message.header.message_type is jeepney.MessageType.signal:
            path, name = fields[jeepney.HeaderFields.path], fields[jeepney.HeaderFields.member]
            self._on_signal(path, name, message.body)
            return
        reply = self._replies.get(fields.get(jeepney.HeaderFields.reply_serial, 0))
        if reply is not None and not reply.done():
            reply.set_result(message)

    def _drop(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        for reply in self._replies.values():
            if not reply.done():
                reply.set_exception(BusLostError("the connection to systemd broke"))


def plain(values: Mapping[str, tuple[str, Any]]) -> dict[str, Any]:
    """Properties without their types."""
    return {name: value for name, (_, value) in values.items()}
