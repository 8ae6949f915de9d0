"""The daemon's end of the control socket: JSON lines each way. anyio only."""

from __future__ import annotations

import json
import socket
import struct
from types import TracebackType
from typing import Any, Self

import anyio
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from stoker_router.protocol import MAX_LINE


class ChannelClosed(Exception):
    """The program closed the connection, or ended."""


class Channel:
    """An open connection to the program. `pid` is that of the process that listens, as the kernel knows it (0
    if the kernel does not tell)."""

    def __init__(self, stream: SocketStream) -> None:
        self._stream = stream
        self._lines = BufferedByteReceiveStream(stream)
        self._sending = anyio.Lock()
        raw = stream.extra(SocketAttribute.raw_socket)
        self.pid: int = struct.unpack("3i", raw.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]

    @classmethod
    async def open(cls, path: str) -> Channel | None:
        """Connect to the socket; None if nobody listens there."""
        try:
            return cls(await anyio.connect_unix(path))
        except OSError:
            return None

    async def send(self, message: dict[str, Any]) -> None:
        """Send one line. Raises ChannelClosed."""
        async with self._sending:
            try:
                await self._stream.send(json.dumps(message, separators=(",", ":")).encode() + b"\n")
            except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
                raise ChannelClosed from error

    async def receive(self) -> dict[str, Any]:
        """Wait for one line. Raises ChannelClosed."""
        try:
            message: dict[str, Any] = json.loads(await self._lines.receive_until(b"\n", MAX_LINE))
        except (
            OSError,
            ValueError,  # cut in the middle of a line, or not what our program says
            anyio.EndOfStream,
            anyio.IncompleteRead,
            anyio.DelimiterNotFound,
            anyio.BrokenResourceError,
            anyio.ClosedResourceError,
        ) as error:
            raise ChannelClosed from error
        return message

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await anyio.aclose_forcefully(self._stream)
