"""Timers that exist only while there is something to wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from time import monotonic


class Alarm:
    """One shot: calls back at a time; a later time than the one it is set to is ignored. `at` is infinite
    while it is not set."""

    __slots__ = ("_callback", "_loop", "_timer", "at")

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._callback = callback
        self._timer: asyncio.TimerHandle | None = None
        self.at = inf

    def set(self, at: float) -> None:
        """Call back at that monotonic time, unless it is set to an earlier one."""
        if at < self.at:
            if self._timer is not None:
                self._timer.cancel()
            self.at = at
            self._timer = self._loop.call_later(max(0.0, at - monotonic()), self._ring)

    def clear(self) -> None:
        """Do not call back."""
        self.at = inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        self.at = inf
        self._timer = None
        self._callback()


class Throttle:
    """Passes a call on at most once per interval; calls in between lead to one more at its end."""

    __slots__ = ("_alarm", "_callback", "_interval", "_last")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, interval: float, callback: Callable[[], None]
    ) -> None:
        self._interval = interval
        self._callback = callback
        self._last = -interval
        self._alarm = Alarm(loop, self._pass)

    def call(self) -> None:
        """Pass it on, now or at the end of the interval."""
        due = self._last + self._interval
        if monotonic() >= due:
            self._pass()
        else:
            self._alarm.set(due)

    def _pass(self) -> None:
        self._last = monotonic()
        self._callback()
