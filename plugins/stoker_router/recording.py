"""Each request of some services as it ends, for whoever wants to replay the load later, or collects spans.

Costs nothing while nobody records. Rows are sent in batches; those for a reader that does not read are
dropped and counted, for they must not fill the router's memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

FLUSH = 0.1
"""Seconds between two batches."""
MAX_ROWS = 1000
"""Rows of one batch."""


class Row(NamedTuple):
    """One request. `arrived`: monotonic seconds; `waited` in the queue and `held` in a worker: seconds.
    `status` is 0 for a request that its client gave up."""

    service: str
    arrived: float
    waited: float
    held: float
    status: int


class Recorder:
    """One reader's rows. `push` sends a message; `blocked` says that the reader does not read; `op` is what
    batches are called, `every` the seconds between two."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        push: Callable[[dict[str, Any]], None],
        blocked: Callable[[], bool],
        *,
        op: str = "requests",
        every: float = FLUSH,
    ) -> None:
        self._loop = loop
        self._push = push
        self._blocked = blocked
        self._op = op
        self._every = every
        self._rows: list[Row | dict[str, object]] = []
        self._dropped = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, row: Row | dict[str, object]) -> None:
        """A request has ended."""
        if len(self._rows) >= MAX_ROWS:
            self.flush()
        if len(self._rows) >= MAX_ROWS:
            self._dropped += 1
            return
        self._rows.append(row)
        if self._timer is None:
            self._timer = self._loop.call_later(self._every, self.flush)

    def flush(self) -> None:
        """Send what is there, unless the reader does not read."""
        self.close()
        if self._blocked():
            if self._rows:
                self._timer = self._loop.call_later(self._every, self.flush)
            return
        rows, self._rows = self._rows, []
        dropped, self._dropped = self._dropped, 0
        self._push({"op": self._op, "rows": rows, "dropped": dropped})

    def close(self) -> None:
        """Send no more by itself."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
