"""Sending a request: the connection that it needs first, and whether it is worth another try."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Protocol

from stoker_router.budget import RetryBudget
from stoker_router.exchange import CONNECTING, Exchange
from stoker_router.upstream import Upstream
from stoker_router.worker import Worker, connect

MAX_TRIES = 5
"""How often one request is sent at most."""


class Outcome(Protocol):
    """Whom it tells."""

    def connected(self, worker: Worker, exchange: Exchange, upstream: Upstream) -> None:
        """The connection is open."""
        ...

    def unreachable(self, worker: Worker, exchange: Exchange, reason: str) -> None:
        """It could not be opened."""
        ...


class Tries:
    """The connections of one service that are being opened."""

    def __init__(self, loop: asyncio.AbstractEventLoop, outcome: Outcome) -> None:
        self._loop = loop
        self._outcome = outcome
        self._budget = RetryBudget(monotonic())
        self._connecting: dict[Exchange, asyncio.Task[None]] = {}

    def begin(self, worker: Worker, exchange: Exchange) -> None:
        """Open a connection for the exchange."""
        exchange.phase = CONNECTING
        self._connecting[exchange] = self._loop.create_task(self._connect(worker, exchange))

    def cancel(self, exchange: Exchange) -> None:
        """Its connection is needed no more, if one is being opened."""
        task = self._connecting.pop(exchange, None)
        if task is not None:
            task.cancel()

    async def _connect(self, worker: Worker, exchange: Exchange) -> None:
        try:
            upstream = await connect(self._loop, worker)
        except OSError as error:
            del self._connecting[exchange]
            reason = f"no connection to the worker: {error}"
            exchange.note_failure(reason)
            self._outcome.unreachable(worker, exchange, reason)
            return
        del self._connecting[exchange]
        self._outcome.connected(worker, exchange, upstream)

    def another(self, exchange: Exchange, now: float, arrivals: int) -> bool:
        """Whether one more try is worth it. The first retry always is; others come out of a budget, so that
        a service whose workers all fail is not asked many times over."""
        if exchange.kept is None or exchange.tries >= MAX_TRIES:
            return False
        return exchange.phase == CONNECTING or exchange.tries < 2 or self._budget.spend(now, arrivals)
