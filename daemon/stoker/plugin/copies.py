"""Copies of routers' listening sockets, and how they are handed from one process to another."""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from stoker.model.service import ServiceKey

SOCKETS_PER_MESSAGE = 64
"""Listening sockets in one message; the kernel takes 253."""
_DESCRIPTOR = struct.Struct("i")


class Copy(NamedTuple):
    """A listening socket, open at this host (as the table words it) and port."""

    host: str
    port: int
    fd: int


def receive_copies(door: socket.socket, found: dict[ServiceKey, Copy]) -> bool:
    """Add what one message brings; whether there are more to come. Raises OSError, ValueError."""
    line, fds = _receive(door)
    try:
        message = json.loads(line)
        more = bool(message["more"])
        rows = [(service, Copy(host, port, fd)) for (service, host, port), fd in _paired(message, fds)]
    except (ValueError, KeyError, TypeError) as error:
        for fd in fds:
            os.close(fd)
        raise ValueError(f"the router handed over no sockets: {error}") from error
    found.update(rows)
    return more


def _receive(door: socket.socket) -> tuple[bytes, list[int]]:
    """A message and its descriptors, which no child inherits. (`socket.recv_fds` of Python 3.11 forgets the
    flag that sees to that.) Raises OSError."""
    room = socket.CMSG_LEN(SOCKETS_PER_MESSAGE * _DESCRIPTOR.size)
    line, ancillary, _, _ = door.recvmsg(1 << 16, room, socket.MSG_CMSG_CLOEXEC)
    found: list[int] = []
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            whole = len(data) - len(data) % _DESCRIPTOR.size
            found += [fd for (fd,) in _DESCRIPTOR.iter_unpack(data[:whole])]
    return line, found


def _paired(message: Any, fds: list[int]) -> Iterator[tuple[tuple[str, str, int], int]]:
    return zip(message["services"], fds, strict=True)


def copy_of(fd: int) -> Copy:
    """A copy of a listening socket that somebody else has open. Raises OSError."""
    with socket.socket(fileno=os.dup(fd)) as found:
        host, port = found.getsockname()[:2]
        return Copy(host, port, os.dup(fd))
