"""Keeps the listening sockets open when the daemon and a process that serves at one of them die together."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable

import anyio
import anyio.to_thread

from stoker.model.service import ServiceKey
from stoker.plugin.copies import copy_of
from stoker.plugin.holding import Holding
from stoker.plugin.ports import PluginContext
from stoker_haproxy.places import Folder
from stoker_haproxy.unit import Unit

SETTLE = 0.05
"""Seconds after a change before it is told: addresses are opened in bursts."""


class Keeping:
    """The line to the process that holds the sockets, for as long as this daemon lives. `serving` gives the
    units whose addresses are to stay open."""

    def __init__(self, context: PluginContext, serving: Callable[[], Iterable[Unit]]) -> None:
        self._holding = Holding(context, lambda: Folder(context).keep)
        self._serving = serving
        self._changed = anyio.Event()
        self._telling = anyio.Lock()
        self._over = False

    async def recall(self) -> dict[ServiceKey, socket.socket]:
        """The sockets that the daemon before has left there and that still listen; the caller's to close."""
        found = await anyio.to_thread.run_sync(self._holding.withdraw)
        sockets = {service: socket.socket(fileno=copy.fd) for service, copy in found.items()}
        for service, sock in list(sockets.items()):
            if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                sockets.pop(service).close()
        return sockets

    def changed(self) -> None:
        """There are other sockets, or other processes behind them."""
        self._changed.set()

    async def run(self) -> None:
        """Have held what there is, until cancelled; the holder goes on then."""
        try:
            while True:
                await self._changed.wait()
                await anyio.sleep(SETTLE)
                self._changed = anyio.Event()
                async with self._telling:
                    await self._tell()
        finally:
            self._holding.leave()

    async def _tell(self) -> None:
        units = {unit.identity.service: unit for unit in self._serving()}
        copies = {service: copy_of(unit.sock.fileno()) for service, unit in units.items()}
        programs = {service: unit.identity.pid for service, unit in units.items()}
        try:
            if not self._over:
                await anyio.to_thread.run_sync(self._holding.deposit, copies, programs)
        finally:
            for copy in copies.values():
                os.close(copy.fd)

    async def end(self) -> None:
        """End the holder with all that it has."""
        self._over = True
        async with self._telling:
            await anyio.to_thread.run_sync(self._holding.end)
