"""Who has waited too long for an answer to begin. One timer serves all requests of a service."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from math import inf
from time import monotonic

from stoker_router.alarm import Alarm
from stoker_router.exchange import BEGAN, OVER, Exchange

EVERY = 0.01
"""Seconds between two looks, at least."""


class Overdue:
    """`requests` gives all of them; `act` is called for each that is due, which it answers or makes due
    later."""

    __slots__ = ("_act", "_requests", "alarm")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        requests: Callable[[], Iterable[Exchange]],
        act: Callable[[Exchange, float], None],
    ) -> None:
        self.alarm = Alarm(loop, self.look)
        """Set for the first that will be due."""
        self._requests = requests
        self._act = act

    def look(self) -> None:
        """See to those that are due, and be back for the next."""
        self.alarm.clear()
        now = monotonic()
        due = inf
        for exchange in self._requests():
            if exchange.phase >= BEGAN:
                continue
            if exchange.due <= now:
                self._act(exchange, now)
            if exchange.phase != OVER:
                due = min(due, exchange.due)
        if due < inf:
            self.alarm.set(max(due, now + EVERY))
