"""The daemon's copies of the program's listening sockets. (`holder` has others, if the daemon dies as well.)

As long as one copy is open the kernel goes on taking connections, so a program that crashed, or is replaced
by another version, is bridged: clients wait in the backlog until the next program, which inherits the copies,
accepts them. Asked for on a connection of their own (`{"op": "sockets"}`, answered with SCM_RIGHTS).
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from stoker.model.service import ServiceKey
from stoker.model.state import RoutingTable
from stoker.plugin.copies import Copy, receive_copies
from stoker_router.wire import door_name

PATIENCE = 2.0
"""Seconds for the program to hand them over."""


class SocketCopies:
    """One copy per service, as far as the program has handed them over. Close it at the end: an address of
    which a copy stays open is never refused, and never answered."""

    def __init__(self) -> None:
        self._copies: dict[ServiceKey, Copy] = {}
        self._closed = False

    @property
    def services(self) -> frozenset[ServiceKey]:
        """Of which there is a copy."""
        return frozenset(self._copies)

    def keep_only(self, table: RoutingTable) -> bool:
        """Close those that the table asks for no more, before the program hears of it: it could not open an
        address of which a copy is left. Returns whether there were any."""
        before = len(self._copies)
        doors = {door_name(door): door for door in table.doors}
        for service, copy in list(self._copies.items()):
            route = table.routes.get(service) or doors.get(service)
            if route is None or route.host != copy.host or route.port not in (0, copy.port):
                os.close(self._copies.pop(service).fd)
        return len(self._copies) < before

    def take(self, fetched: dict[ServiceKey, Copy]) -> None:
        """Have these in place of all others. They are ours to close."""
        self._close_all()
        self._copies = fetched
        if self._closed:
            self._close_all()

    def add(self, service: ServiceKey, copy: Copy) -> None:
        """Have this one too; it is ours to close."""
        before = self._copies.pop(service, None)
        if before is not None:
            os.close(before.fd)
        self._copies[service] = copy
        if self._closed:
            self._close_all()

    def duplicate(self, service: ServiceKey) -> int | None:
        """A descriptor of that one, the caller's to close; None if there is none."""
        copy = self._copies.get(service)
        return None if copy is None else os.dup(copy.fd)

    def duplicates(self) -> dict[ServiceKey, Copy]:
        """Copies of the copies, to hand on; the caller closes them."""
        return {service: copy._replace(fd=os.dup(copy.fd)) for service, copy in self._copies.items()}

    def close(self) -> None:
        """Close all, and take no more."""
        self._closed = True
        self._close_all()

    def _close_all(self) -> None:
        for copy in self._copies.values():
            os.close(copy.fd)
        self._copies.clear()


def fetch(path: str, instance: str) -> dict[ServiceKey, Copy]:
    """Copies of the listening sockets of the program at this control socket; they are the caller's to close.

    Blocks for at most a few seconds. Raises OSError, or ValueError for an answer that is none.
    """
    found: dict[ServiceKey, Copy] = {}
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
            door.settimeout(PATIENCE)
            door.connect(path)
            door.sendall(json.dumps({"op": "sockets", "instance": instance}).encode() + b"\n")
            more = True
            while more:
                more = receive_copies(door, found)
    except BaseException:
        for copy in found.values():
            os.close(copy.fd)
        raise
    return found


@contextmanager
def giving(path: str, patience: float) -> Iterator[socket.socket]:
    """A unix socket at which the program is given something, gone afterwards. Raises OSError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
        with suppress(FileNotFoundError):
            os.unlink(path)
        door.bind(path)
        try:
            door.listen(1)
            door.settimeout(patience)
            yield door
        finally:
            os.unlink(path)


def send_to_next(door: socket.socket, fd: int) -> None:
    """Send the descriptor to whoever connects next. Blocks for as long as the door waits; raises OSError."""
    with door.accept()[0] as connection:
        socket.send_fds(connection, [b"."], [fd])
