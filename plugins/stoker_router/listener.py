"""One service's address: opened, kept, tried again every second while somebody else has it."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from typing import Protocol

from stoker_router.table import RouteConfig

BACKLOG = 4096
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
    """The listening socket of one service. A new address is opened before the old one is closed, and as long
    as it cannot be had the old one serves on."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        service: str,
        events: AddressEvents,
        make_client: Callable[[], asyncio.Protocol],
    ) -> None:
        self._loop = loop
        self._service = service
        self._events = events
        self._make_client = make_client
        self._wanted = ("", 0, 0)
        self._bound: tuple[str, int] | None = None
        self._asked = ("", 0)
        """The host and port of the table for which `_bound` was opened."""
        self._server: asyncio.Server | None = None
        self._opening: asyncio.Task[None] | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._problem = ""

    @property
    def address(self) -> tuple[str, int] | None:
        """The open address."""
        return self._bound

    def wants(self, route: RouteConfig) -> tuple[str, int] | None:
        """The fixed address it will have to open for that route, None if it has it or any port will do."""
        if (route.host, route.port) == self._asked or not route.port:
            return None
        return (route.host, route.port) if self._bound != (route.host, route.port) else None

    def configure(self, route: RouteConfig) -> None:
        """Serve at the route's address from now on."""
        self._wanted = (route.host, route.port, route.prefer)
        if self._bound is not None and self._matches(route):
            self._asked = (route.host, route.port)
            self._cancel_retry()
            self._problem = ""
        elif self._retry is None:
            self._open()

    def _matches(self, route: RouteConfig) -> bool:
        return self._asked == (route.host, route.port) or self._bound == (route.host, route.port)

    def reintroduce(self) -> None:
        """Say again what a new daemon has to know."""
        if self._bound is not None:
            self._events.bound(self._service, *self._bound)
        if self._problem:
            self._events.trouble(self._service, self._problem)

    def _open(self) -> None:
        host, port, prefer = self._wanted
        self._retry = None
        try:
            sock = _listen_preferring(host, port, prefer)
        except OSError as error:
            self._fail(_explain(error, host, port))
            return
        self.release()
        self._problem = ""
        self._asked = (host, port)
        self._bound = (host, sock.getsockname()[1])
        self._opening = self._loop.create_task(self._serve(sock))
        self._events.bound(self._service, *self._bound)

    def _fail(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            self._events.trouble(self._service, problem)
        self._retry = self._loop.call_later(RETRY, self._open)

    async def _serve(self, sock: socket.socket) -> None:
        self._server = await self._loop.create_server(self._make_client, sock=sock, backlog=BACKLOG)

    def release(self) -> None:
        """Close the open address; connections that were accepted live on."""
        if self._opening is not None:
            self._opening.cancel()
            self._opening = None
        if self._server is not None:
            self._server.close()
            self._server = None
        self._bound = None
        self._asked = ("", 0)

    def close(self) -> None:
        """Close for good."""
        self._cancel_retry()
        self.release()

    def _cancel_retry(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None


def _listen_preferring(host: str, port: int, prefer: int) -> socket.socket:
    """A listening socket; for port 0 at the preferred port if that is free. Raises OSError."""
    if not port and prefer:
        try:
            return _listen(host, prefer)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    return _listen(host, port)


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = min(found, key=lambda info: info[0] != socket.AF_INET)
    sock = socket.socket(family, kind, protocol)
    try:
        sock.settimeout(0.0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # inherited: dead peers are noticed
        sock.bind(address)
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
        why = f"cannot be opened: {os.strerror(error.errno) if error.errno else error}"
    return f"{host}:{port} {why}; tried again every second"
