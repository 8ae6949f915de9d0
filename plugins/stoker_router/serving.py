"""How connections to an open address are taken: in plain text, by TLS, behind a PROXY header."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

from stoker_router.certificate import Certificate
from stoker_router.client import Client
from stoker_router.gate import Gate
from stoker_router.proxied import ProxiedDoor
from stoker_router.table import DoorConfig, RouteConfig

BACKLOG = 4096
HANDSHAKE, FAREWELL = 10.0, 1.0
"""Seconds that a client may take for the beginning and the end of TLS."""

Place = RouteConfig | DoorConfig
"""What has an address in the table."""


class Serving:
    """Takes connections from a listening socket, of which it uses a copy: it may have to go on in another
    manner."""

    def __init__(self, loop: asyncio.AbstractEventLoop, gate: Gate) -> None:
        self._loop = loop
        self._gate = gate
        self._certificate = Certificate()
        self._manner = (False, False, False)
        """Whether TLS is to be spoken, and can be; whether connections begin with a PROXY header."""
        self._opening: asyncio.Task[None] | None = None
        self._server: asyncio.Server | None = None
        self._proxied: ProxiedDoor | None = None
        self._beginning: set[asyncio.Task[None]] = set()
        """Connections whose PROXY header was read, and not yet more."""

    def learn(self, place: Place, sock: socket.socket | None) -> str:
        """Go by the table from now on; connections that are open stay as they are. Return what is wrong with
        the certificate, "" for nothing. `sock`: what is being served."""
        self._gate.trust(place.trusted_proxies)
        problem = self._certificate.take(place.tls)
        manner = (place.tls is not None, self._certificate.context is not None, place.proxy_protocol)
        if manner != self._manner:
            self._manner = manner
            self._gate.secure = manner[0]
            if sock is not None:
                self.end()
                self.begin(sock)
        return problem

    def begin(self, sock: socket.socket) -> None:
        """Take connections from now on."""
        self._opening = self._loop.create_task(self._serve(sock.dup()))

    def end(self) -> None:
        """Take no more; connections that were accepted live on."""
        if self._opening is not None:
            self._opening.cancel()
            self._opening = None
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._proxied is not None:
            self._proxied.close()
            self._proxied = None

    async def _serve(self, sock: socket.socket) -> None:
        secure, able, proxied = self._manner
        make = partial(Client, self._loop, self._gate)
        if secure and not able:
            sock.close()  # rather nothing than plain text; a good certificate is taken at once
        elif proxied:
            trusts = self._gate.trusts
            self._proxied = ProxiedDoor(self._loop, sock, make, trusted=trusts, begin=self._begin)
        else:
            self._server = await self._loop.create_server(make, sock=sock, backlog=BACKLOG, **self._tls())

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
