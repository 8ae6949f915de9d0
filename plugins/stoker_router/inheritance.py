"""The program's side of handing listening sockets on: those it was born with, those it gives copies of."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from stoker_router.protocol import SOCKETS_PER_MESSAGE

PATIENCE = 2.0
"""Seconds for what is handed over to arrive; it was sent before."""


class Inheritance:
    """Listening sockets that an earlier program opened, until a service claims its own."""

    def __init__(self, descriptors: Sequence[int] = ()) -> None:
        self._sockets: dict[tuple[str, int], socket.socket] = {}
        self.add(descriptors)

    def add(self, descriptors: Iterable[int]) -> None:
        """Have these too; they are this object's from now on."""
        for fd in descriptors:
            os.set_inheritable(fd, False)  # noqa: FBT003 - its signature
            sock = socket.socket(fileno=fd)
            sock.settimeout(0.0)
            self._sockets[sock.getsockname()[:2]] = sock

    def __bool__(self) -> bool:
        return bool(self._sockets)

    def claim(self, address: str, port: int) -> socket.socket | None:
        """The socket that listens there, if there is one; it is the caller's from now on."""
        return self._sockets.pop((address, port), None)

    def close(self) -> None:
        """Close what nobody has claimed: its address is to be refused."""
        for sock in self._sockets.values():
            sock.close()
        self._sockets.clear()


class Open(NamedTuple):
    """A service's open address and the descriptor that listens there."""

    service: str
    host: str
    port: int
    fd: int


def hand_over(connection: int, listening: Sequence[Open]) -> None:
    """Send copies of the listening sockets over a unix connection. Raises OSError."""
    with socket.socket(fileno=os.dup(connection)) as raw:
        for start in range(0, max(len(listening), 1), SOCKETS_PER_MESSAGE):
            batch = listening[start : start + SOCKETS_PER_MESSAGE]
            more = start + SOCKETS_PER_MESSAGE < len(listening)
            line = json.dumps({"op": "sockets", "services": [one[:3] for one in batch], "more": more})
            socket.send_fds(raw, [line.encode() + b"\n"], [one.fd for one in batch])


def collect(path: str) -> list[int]:
    """The listening sockets that somebody hands over at this unix socket, who waits for us there. Raises
    OSError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
        door.settimeout(PATIENCE)
        door.connect(path)
        return list(socket.recv_fds(door, 1, SOCKETS_PER_MESSAGE, socket.MSG_CMSG_CLOEXEC)[1])
