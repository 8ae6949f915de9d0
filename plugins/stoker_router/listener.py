"""One service's address: opened, kept, tried again every second while somebody else has it."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from functools import partial
from ipaddress import ip_address
from typing import Any, Protocol

from stoker_router.certificate import Certificate
from stoker_router.client import Client
from stoker_router.gate import Gate
from stoker_router.inheritance import Inheritance
from stoker_router.proxied import ProxiedDoor
from stoker_router.table import DoorConfig, RouteConfig

BACKLOG = 4096
RETRY = 1.0
"""Seconds between two attempts to open an address."""
HANDSHAKE, FAREWELL = 10.0, 1.0
"""Seconds that a client may take for the beginning and the end of TLS."""

Place = RouteConfig | DoorConfig
"""What has an address in the table."""


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
        self._gate = gate
        self._certificate = Certificate()
        self._manner = (False, False, False)
        """Whether TLS is to be spoken, and can be; whether connections begin with a PROXY header."""
        self._proxied: ProxiedDoor | None = None
        self._wanted = ("", 0, 0)
        self._bound: tuple[str, int] | None = None
        self._asked = ("", 0)
        """The host and port of the table for which `_bound` was opened."""
        self._sock: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._beginning: set[asyncio.Task[None]] = set()
        """Connections whose PROXY header was read, and not yet more."""
        self._opening: asyncio.Task[None] | None = None
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
        self._gate.trust(route.trusted_proxies)
        self._take_manner(route)
        if self._bound is not None and self._matches(route):
            self._asked = (route.host, route.port)
            self._stop_trying()
            self._problem = ""
        else:
            self._stop_trying()
            self._open()

    def _take_manner(self, route: Place) -> None:
        """How connections are spoken with. Those that are open stay as they are."""
        problem = self._certificate.take(route.tls)
        if problem:
            self._events.trouble(self._service, problem)
        manner = (route.tls is not None, self._certificate.context is not None, route.proxy_protocol)
        if manner == self._manner:
            return
        self._manner = manner
        self._gate.secure = manner[0]
        if self._sock is not None:
            self._stop_serving()
            self._opening = self._loop.create_task(self._serve(self._sock))

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
        self._opening = self._loop.create_task(self._serve(sock))
        self._events.bound(self._service, *self._bound)

    def _fail(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            self._events.trouble(self._service, problem)
        self._retry = self._loop.call_later(RETRY, self._open)

    async def _serve(self, sock: socket.socket) -> None:
        """Take connections, from a copy of the socket: it may have to go on in another manner."""
        secure, able, proxied = self._manner
        if secure and not able:
            return  # rather nothing than plain text; it was said, and a good certificate is taken at once
        if proxied:
            make = partial(Client, self._loop, self._gate)
            trusts = self._gate.trusts
            self._proxied = ProxiedDoor(self._loop, sock.dup(), make, trusted=trusts, begin=self._begin)
            return
        self._server = await self._loop.create_server(
            partial(Client, self._loop, self._gate), sock=sock.dup(), backlog=BACKLOG, **self._tls()
        )

    def _begin(self, sock: socket.socket, make: Callable[[], asyncio.Protocol]) -> None:
        task = self._loop.create_task(self._connect(sock, make))
        self._beginning.add(task)
        task.add_done_callback(self._beginning.discard)

    async def _connect(self, sock: socket.socket, make: Callable[[], asyncio.Protocol]) -> None:
        try:
            await self._loop.connect_accepted_socket(make, sock, **self._tls())
        except OSError:
            sock.close()  # gone meanwhile, or no TLS handshake

    def _tls(self) -> dict[str, Any]:
        """Arguments for the loop."""
        if self._certificate.context is None:
            return {}
        return {
            "ssl": self._certificate.context,
            "ssl_handshake_timeout": HANDSHAKE,
            "ssl_shutdown_timeout": FAREWELL,
        }

    def _stop_serving(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
            self._opening = None
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._proxied is not None:
            self._proxied.close()
            self._proxied = None

    def release(self) -> None:
        """Close the open address; connections that were accepted live on."""
        self._stop_serving()
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
