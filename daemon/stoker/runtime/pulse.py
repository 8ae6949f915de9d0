"""A count of what has happened, for readers who only want to know that something did."""

from __future__ import annotations

import anyio


class Pulse:
    """Beats whenever anything was folded in or measured. Nobody waits: a beat costs an addition."""

    def __init__(self) -> None:
        self.count = 0
        self._next: anyio.Event | None = None

    def beat(self) -> None:
        """Something happened."""
        self.count += 1
        if self._next is not None:
            waiting, self._next = self._next, None
            waiting.set()

    async def after(self, count: int) -> int:
        """Return the count as soon as it is larger than `count`."""
        while self.count <= count:
            if self._next is None:
                self._next = anyio.Event()
            await self._next.wait()
        return self.count
