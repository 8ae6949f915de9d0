"""The socket to which HAProxy processes send what they log: one line for each datagram."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress

import anyio

from stoker.errors import RouterError
from stoker_haproxy.lines import Line, read_line

_BUFFER = 1 << 20
_LONGEST = 2048
_BATCH = 256
"""Lines that are taken before others get their turn."""


async def listen(path: str, hear: Callable[[Line], None]) -> None:
    """Hear what is logged there until cancelled. Raises RouterError if it cannot be opened."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)  # noqa: FBT003 - its signature
        try:
            with suppress(FileNotFoundError):
                os.unlink(path)
            sock.bind(path)
            os.chmod(path, 0o600)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        except OSError as error:
            raise RouterError(f"cannot open {path}: {error.strerror}") from error
        while True:
            await anyio.wait_readable(sock)
            _drain(sock, hear)


def _drain(sock: socket.socket, hear: Callable[[Line], None]) -> None:
    with suppress(BlockingIOError):
        for _ in range(_BATCH):
            line = read_line(sock.recv(_LONGEST))
            if line is not None:
                hear(line)
