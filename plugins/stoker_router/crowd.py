"""All open client connections: how many there may be, who goes when there are too many, who reads no more."""

from __future__ import annotations

import asyncio
import fcntl
import struct
import termios
from typing import Protocol

STUCK = 60.0
"""Seconds without one byte taken after which a client that has an answer waiting is cut off."""
_SIOCOUTQ = termios.TIOCOUTQ


class Member(Protocol):
    """A client's connection."""

    transport: asyncio.Transport

    @property
    def idle(self) -> bool:
        """It waits for nothing and has begun nothing."""
        ...


class Crowd:
    """At most `most` connections; one more costs the oldest that is idle its place, and if none is idle its
    own. No timers: connections that do nothing cost memory and no work."""

    __slots__ = ("_members", "_most")

    def __init__(self, most: int) -> None:
        self._most = most
        self._members: dict[Member, None] = {}

    def join(self, member: Member) -> None:
        """Another connection."""
        if len(self._members) >= self._most:
            leaving = next((one for one in self._members if one.idle), member)
            self._members.pop(leaving, None)
            leaving.transport.abort()
            if leaving is member:
                return
        self._members[member] = None

    def leave(self, member: Member) -> None:
        """A connection is gone."""
        self._members.pop(member, None)


class StuckWatch:
    """Cuts a client off that takes nothing of its answer for long: it must not hold a slot for ever."""

    __slots__ = ("_left", "_loop", "_timer", "_transport")

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport) -> None:
        self._loop = loop
        self._transport = transport
        self._timer: asyncio.TimerHandle | None = None
        self._left = 0

    def watch(self) -> None:
        """It reads slower than we write."""
        self._left = _unread(self._transport)
        self._timer = self._loop.call_later(STUCK, self._look)

    def clear(self) -> None:
        """It has caught up, or is gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        before = self._left
        if _unread(self._transport) >= before:
            self._transport.abort()
        else:
            self.watch()


def _unread(transport: asyncio.Transport) -> int:
    """Bytes written to a connection that its other side has not taken: ours, and the kernel's."""
    sock = transport.get_extra_info("socket")
    try:
        kernel = struct.unpack("i", fcntl.ioctl(sock.fileno(), _SIOCOUTQ, b"\0\0\0\0"))[0]
    except OSError:
        kernel = 0
    return transport.get_write_buffer_size() + int(kernel)
