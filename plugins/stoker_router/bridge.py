"""What keeps the addresses open when the program ends: the daemon's own copies and those of the holder."""

from __future__ import annotations

import os
from collections.abc import Mapping

import anyio
import anyio.to_thread

from stoker.model.service import ServiceKey
from stoker.model.state import RoutingTable
from stoker.plugin.copies import Copy
from stoker.plugin.holding import EVERY, Holding
from stoker.plugin.ports import PluginContext
from stoker_router import launch
from stoker_router.sockets import SocketCopies, fetch

Places = Mapping[ServiceKey, tuple[str, int]]
"""Where services are open: host and port."""


class Bridge:
    """`copies` are the daemon's. `program` is the pid of the router, as far as there is one."""

    def __init__(self, context: PluginContext) -> None:
        self.copies = SocketCopies()
        self._context = context
        self._holding = Holding(context, lambda: launch.keep_path(context))
        self._depositing = anyio.Lock()
        self._table: RoutingTable | None = None
        self._over = False

    async def recall(self) -> Places:
        """Have what the daemon before has left with the holder, unless we have copies. Raises RouterError."""
        if self.copies.services:
            return {}
        return self._take(await anyio.to_thread.run_sync(self._holding.withdraw))

    async def fetch(self, path: str, program: int) -> Places:
        """Have copies of all that the program at this control socket has open."""
        try:
            fetched = await anyio.to_thread.run_sync(fetch, path, self._context.instance)
        except (OSError, ValueError):
            return {}  # it has ended, or is too old to know: then there is nothing to bridge with
        places = self._take(fetched)
        await self._deposit(program)
        return places

    async def keep_only(self, table: RoutingTable, program: int) -> None:
        """Let go what the table asks for no more, before the program hears of it."""
        self._table = table
        if self.copies.keep_only(table):
            await self._deposit(program)

    async def end(self) -> None:
        """Close all. Raises RouterError where there never were sockets."""
        self._over = True
        self.copies.close()
        async with self._depositing:
            await anyio.to_thread.run_sync(self._holding.end)

    def leave(self) -> None:
        """Close what is ours. The holder goes on."""
        self.copies.close()
        self._holding.leave()

    def _take(self, copies: dict[ServiceKey, Copy]) -> Places:
        places = {service: (copy.host, copy.port) for service, copy in copies.items()}
        self.copies.take(copies)
        if self._table is not None:
            self.copies.keep_only(self._table)
        return places

    async def _deposit(self, program: int) -> None:
        async with self._depositing:
            if self._over:
                return
            copies = self.copies.duplicates()
            try:
                programs = {EVERY: program} if program else {}
                await anyio.to_thread.run_sync(self._holding.deposit, copies, programs)
            finally:
                for copy in copies.values():
                    os.close(copy.fd)
