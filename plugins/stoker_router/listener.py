"""One service's address: opened, kept, tried again every second while somebody else has it."""

from __future__ import annotations

import asyncio
import errno
import socket
from ipaddress import ip_address
from typing import Protocol

from stoker_router.gate import Gate
from stoker_router.inheritance import Inheritance
from stoker_router.serving import BACKLOG, Place, Serving

RETRY = 1.0
"""Seconds between two attempts to open an address."""


class AddressEvents(Protocol):
    """Whom a listener tells."""

    def bound(self, service: str, host: str, port: int) -> None:
        """The address is open."""
        ...

    def trouble(self, service: str, message: str) -> None:
        """The address cannot be opened."""
        ...


class Listener:
    """The listening socket of one service or door. A new address is opened before the old one is closed,
    and as long as it cannot be had the old one serves on."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        service: str,
        events: AddressEvents,
        gate: Gate,
        *,
        inherited: Inheritance,
    ) -> None:
        self._loop = loop
        self._inherited = inherited
        self._service = service
        self._events = events
        self._serving = Serving(loop, gate)
        self._wanted = ("", 0, 0)
        self._bound: tuple[str, int] | None = None
        self._asked = ("", 0)
        """The host and port of the table for which `_bound` was opened."""
        self._sock: socket.socket | None = None
        self._looking_up: asyncio.Task[None] | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._problem = ""

    @property
    def address(self) -> tuple[str, int] | None:
        """The open address."""
        return self._bound

    @property
    def fd(self) -> int:
        """The descriptor of the open address, -1 if there is none."""
        return -1 if self._sock is None else self._sock.fileno()

    def wants(self, route: Place) -> tuple[str, int] | None:
        """The fixed address it will have to open for that route, None if it has it or any port will do."""
        if (route.host, route.port) == self._asked or not route.port:
            return None
        return (route.host, route.port) if self._bound != (route.host, route.port) else None

    def configure(self, route: Place) -> None:
        """Serve at the route's address from now on."""
        self._wanted = (route.host, route.port, route.prefer)
        problem = self._serving.learn(route, self._sock)
        if problem:
            self._events.trouble(self._service, problem)
        if self._bound is not None and self._matches(route):
            self._asked = (route.host, route.port)
            self._stop_trying()
            self._problem = ""
        else:
            self._stop_trying()
            self._open()

    def _matches(self, route: Place) -> bool:
        return self._asked == (route.host, route.port) or self._bound == (route.host, route.port)

    def reintroduce(self) -> None:
        """Say again what a new daemon has to know."""
        if self._bound is not None:
            self._events.bound(self._service, *self._bound)
        if self._problem:
            self._events.trouble(self._service, self._problem)

    def _open(self) -> None:
        """Open the wanted address; a host that is a name is looked up first, off the event loop."""
        self._retry = None
        host = self._wanted[0]
        try:
            self._open_at(_numeric(host))
        except ValueError:
            self._looking_up = self._loop.create_task(self._look_up(host))

    async def _look_up(self, host: str) -> None:
        try:
            found = await self._loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except OSError as error:
            self._fail(f"{host} is no address of this machine: {error.strerror}; tried again every second")
            return
        self._looking_up = None
        self._open_at(str(min(found, key=lambda info: info[0] != socket.AF_INET)[4][0]))

    def _open_at(self, address: str) -> None:
        host, port, prefer = self._wanted
        if self._bound is not None and self._bound[1] == port:
            self.release()  # the same port at another host: the two could not be open together
        try:
            sock = self._inherited.claim(address, port or prefer)
            if sock is None:
                sock = _listen_preferring(address, port, prefer)
        except OSError as error:
            self._fail(_explain(error, host, port))
            return
        self.release()
        self._problem = ""
        self._asked = (host, port)
        self._bound = (host, sock.getsockname()[1])
        self._sock = sock
        self._serving.begin(sock)
        self._events.bound(self._service, *self._bound)

    def _fail(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            self._events.trouble(self._service, problem)
        self._retry = self._loop.call_later(RETRY, self._open)

    def release(self) -> None:
        """Close the open address; connections that were accepted live on."""
        self._serving.end()
        if self._sock is not None:
            self._sock.close()
            self._sock = None
        self._bound = None
        self._asked = ("", 0)

    def close(self) -> None:
        """Close for good."""
        self._stop_trying()
        self.release()

    def _stop_trying(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self._looking_up is not None:
            self._looking_up.cancel()
            self._looking_up = None


def _listen_preferring(address: str, port: int, prefer: int) -> socket.socket:
    """A listening socket; for port 0 at the preferred port if that is free. Raises OSError."""
    if not port and prefer:
        try:
            return _listen(address, prefer)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    return _listen(address, port)


def _numeric(host: str) -> str:
    """The host as an address. Raises ValueError for a name that has to be looked up."""
    return "127.0.0.1" if host == "localhost" else str(ip_address(host))


def _listen(address: str, port: int) -> socket.socket:
    """A listening socket. Raises OSError."""
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    try:
        sock.settimeout(0.0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # inherited: dead peers are noticed
        sock.bind((address, port))
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _explain(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        why = "is already taken by another program; stop that one or give the service another endpoint.port"
    elif error.errno == errno.EACCES:
        why = "needs more rights (ports below 1024 are for root); give the service another endpoint.port"
    else:
        why = f"cannot be opened: {error.strerror}"
    return f"{host}:{port} {why}; tried again every second"
