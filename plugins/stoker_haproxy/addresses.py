"""Listening sockets: opened here, inherited by HAProxy, kept open while one process follows another. Blocking
only where a host has to be looked up."""

from __future__ import annotations

import errno
import os
import socket
from ipaddress import ip_address

import anyio.to_thread

from stoker.errors import RouterError
from stoker.model.service import ServiceKey

BACKLOG = 4096


class Doors:
    """The addresses that are to be opened: what another router has handed over, else what is free."""

    def __init__(self) -> None:
        self._given: dict[ServiceKey, socket.socket] = {}
        self._last: dict[ServiceKey, tuple[str, int]] = {}

    def give(self, service: ServiceKey, fd: int) -> None:
        """Another router's listening socket, for the next table."""
        given = socket.socket(fileno=os.dup(fd))
        before, self._given[service] = self._given.get(service), given
        if before is not None:
            before.close()

    def recall(self, service: ServiceKey, sock: socket.socket) -> None:
        """A listening socket of a process that is gone, for the next table; ours to close from now on."""
        self._given[service] = sock

    def forget(self) -> None:
        """Close what no table has asked for."""
        while self._given:
            self._given.popitem()[1].close()

    def opened(self, service: ServiceKey, sock: socket.socket) -> tuple[str, int]:
        """Where that is, from now on the preferred address of the service."""
        host, port = sock.getsockname()[:2]
        self._last[service] = host, port
        return host, port

    async def open(self, service: ServiceKey, host: str, port: int) -> socket.socket:
        """A listening socket there; the caller's to close. Raises RouterError."""
        given = self._given.pop(service, None)
        if given is not None:
            if port in (0, given.getsockname()[1]):
                return given
            given.close()
        last = self._last.get(service)
        prefer = last[1] if last is not None and last[0] == host else 0
        return await anyio.to_thread.run_sync(open_address, host, port, prefer)


def open_address(host: str, port: int, prefer: int = 0) -> socket.socket:
    """A listening socket; for port 0 at the preferred port if that is free. Raises RouterError with what the
    operator can do."""
    address = _numeric(host)
    if not port and prefer:
        try:
            return _listen(address, prefer)
        except OSError:
            pass  # somebody else has it by now: any other will do
    try:
        return _listen(address, port)
    except OSError as error:
        raise RouterError(_explain(error, host, port)) from error


def _numeric(host: str) -> str:
    if host == "localhost":
        return "127.0.0.1"
    try:
        return str(ip_address(host))
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise RouterError(
            f"{host} is no address of this machine: {error.strerror}; tried again every second"
        ) from error
    return str(min(found, key=lambda info: info[0] != socket.AF_INET)[4][0])


def _listen(address: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    try:
        sock.setblocking(False)  # noqa: FBT003 - its signature
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # inherited: dead peers are noticed
        sock.bind((address, port))
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def refuse_from_now(sock: socket.socket) -> None:
    """Stop listening for everybody who has this socket, and close our copy: connections are refused."""
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise
    finally:
        sock.close()


def _explain(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        why = "is already taken by another program; stop that one or give the service another endpoint.port"
    elif error.errno == errno.EACCES:
        why = "needs more rights (ports below 1024 are for root); give the service another endpoint.port"
    else:
        why = f"cannot be opened: {error.strerror}"
    return f"{host}:{port} {why}; tried again every second"
