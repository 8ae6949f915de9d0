"""When the program ends by itself: nobody needs it any more. No orphan for ever."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from time import monotonic

IDLE_EXIT = 60.0
"""Seconds without daemon and without routes after which it ends."""
CHECK_EVERY = 10.0
"""Seconds between two looks at the state directory while there is no daemon."""


class Lifetime:
    """Looks, only while no daemon is connected, whether there is still a reason to live: routes to serve and
    the state directory of the daemon that may come back."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        state_dir: str,
        *,
        has_routes: Callable[[], bool],
        end: Callable[[str], None],
        idle_exit: float = IDLE_EXIT,
        check_every: float = CHECK_EVERY,
    ) -> None:
        self._loop = loop
        self._state_dir = state_dir
        self._identity = _identity(state_dir)
        self._has_routes = has_routes
        self._end = end
        self._idle_exit = idle_exit
        self._check_every = check_every
        self._idle_since = monotonic()
        self._timer: asyncio.TimerHandle | None = None
        self._daemons = 0

    def alone(self) -> None:
        """No daemon is connected from now on."""
        self._idle_since = monotonic()
        if self._timer is None:
            self._look()

    def accompanied(self) -> None:
        """A daemon came; it decides."""
        self._daemons += 1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def left(self) -> None:
        """A daemon went."""
        self._daemons -= 1
        if not self._daemons:
            self.alone()

    def _look(self) -> None:
        now = monotonic()
        if self._has_routes():
            self._idle_since = now
        if _identity(self._state_dir) != self._identity:
            self._end(f"the state directory {self._state_dir} is gone")
        elif now - self._idle_since >= self._idle_exit:
            self._end(f"no daemon and no routes for {self._idle_exit:g} s")
        else:
            self._timer = self._loop.call_later(min(self._check_every, self._idle_exit), self._look)


def _identity(path: str) -> tuple[int, int] | None:
    """What tells a directory from another that took its name; None if it is not there."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
