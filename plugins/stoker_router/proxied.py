"""Connections that begin with a PROXY header (v1 or v2), by which a proxy says whose they are.

The header is looked at in the kernel's buffer (MSG_PEEK) and taken out of it to the byte, before anybody
reads: what follows may be a TLS handshake as well as a request.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import struct
from collections.abc import Callable

PATIENCE = 3.0
"""Seconds for the header."""
BURST = 64
"""Connections taken before others get a turn."""

_V2 = b"\r\n\r\n\0\r\nQUIT\n"
_V1 = re.compile(rb"PROXY (?:UNKNOWN[^\r\n]{0,80}|(TCP[46]) (\S{2,39}) \S{2,39} \d{1,5} \d{1,5})\r\n")
_LONGEST_V1 = 107
_MOST_V2 = 2048

MakeConnection = Callable[[str], asyncio.Protocol]
"""A connection of the client at that address, "" if the proxy asks for itself."""


class BadHeader(Exception):
    """What a connection begins with is no PROXY header."""


def read_header(data: bytes) -> tuple[int, str] | None:
    """The length of the header and the client's address ("": the proxy's own); None if more must come. Raises
    BadHeader. Pure."""
    if data.startswith(_V2[: len(data)]) if len(data) < len(_V2) else data.startswith(_V2):
        return _read_v2(data)
    if not data.startswith(b"PROXY "[: len(data)]):
        raise BadHeader
    end = data.find(b"\n") + 1
    if not end:
        if len(data) > _LONGEST_V1:
            raise BadHeader
        return None
    matched = _V1.fullmatch(data[:end])
    if matched is None:
        raise BadHeader
    if matched[1] is None:
        return end, ""
    try:
        address = ipaddress.ip_address(matched[2].decode("ascii"))
    except ValueError:
        raise BadHeader from None
    if address.version != int(matched[1][3:]):
        raise BadHeader
    return end, str(address)


def _read_v2(data: bytes) -> tuple[int, str] | None:
    if len(data) < 16:
        return None
    version_command, family, length = struct.unpack("!BBH", data[12:16])
    if version_command not in (0x20, 0x21) or length > _MOST_V2:
        raise BadHeader
    if len(data) < 16 + length:
        return None
    if version_command == 0x20:  # LOCAL: the proxy's own question whether we live
        return 16 + length, ""
    sizes = {0x1: 4, 0x2: 16}
    size = sizes.get(family >> 4)
    if size is None:
        return 16 + length, ""
    if length < 2 * size + 4:
        raise BadHeader
    return 16 + length, str(ipaddress.ip_address(data[16 : 16 + size]))


class ProxiedDoor:
    """Takes connections from a listening socket, reads their headers, hands them to the loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        make: MakeConnection,
        *,
        trusted: Callable[[str], bool],
        begin: Callable[[socket.socket, Callable[[], asyncio.Protocol]], None],
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._make = make
        self._trusted = trusted
        self._begin = begin
        self._waiting: dict[socket.socket, asyncio.TimerHandle] = {}
        loop.add_reader(sock.fileno(), self._accept)

    def close(self) -> None:
        """Take no more, and give up those whose header has not come."""
        self._loop.remove_reader(self._sock.fileno())
        for connection in list(self._waiting):
            self._drop(connection)
        self._sock.close()

    def _accept(self) -> None:
        for _ in range(BURST):
            try:
                connection, address = self._sock.accept()
            except OSError:
                return
            connection.settimeout(0.0)
            if not self._trusted(address[0]):
                connection.close()  # whoever may say who he is could be anybody
                continue
            self._waiting[connection] = self._loop.call_later(PATIENCE, self._drop, connection)
            self._loop.add_reader(connection.fileno(), self._look, connection)

    def _look(self, connection: socket.socket) -> None:
        try:
            data = connection.recv(16 + _MOST_V2, socket.MSG_PEEK)
            found = read_header(data) if data else None
            if not data:
                raise BadHeader
            if found is not None:
                connection.recv(found[0])
        except BlockingIOError:
            return
        except (OSError, BadHeader):
            self._drop(connection)
            return
        if found is None:
            self._set_aside(connection, len(data))
            return
        self._release(connection)
        address = found[1]
        self._begin(connection, lambda: self._make(address))

    def _set_aside(self, connection: socket.socket, have: int) -> None:
        """Wait for more than is there: what was only looked at would else wake us again and again."""
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, have + 1)

    def _release(self, connection: socket.socket) -> None:
        self._loop.remove_reader(connection.fileno())
        self._waiting.pop(connection).cancel()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)

    def _drop(self, connection: socket.socket) -> None:
        timer = self._waiting.pop(connection, None)
        if timer is not None:
            timer.cancel()
            self._loop.remove_reader(connection.fileno())
        connection.close()
