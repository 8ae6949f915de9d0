"""What was noted lately, for the status: each warning once, with its time, until it is over or old."""

from __future__ import annotations

import time

from stoker.model.event import Notice

MOST = 20
KEPT = 3600.0
"""Seconds; the event log has everything."""


class Noted:
    """Warnings and errors among the notices."""

    def __init__(self) -> None:
        self._at: dict[str, float] = {}

    def note(self, notice: Notice) -> None:
        """Keep it, the newest last; what it says is over is taken away."""
        self._at.pop(notice.settles, None)
        if notice.severity == "info":
            return
        self._at.pop(notice.message, None)
        self._at[notice.message] = notice.wall
        while len(self._at) > MOST:
            del self._at[next(iter(self._at))]

    def lines(self, now: float) -> tuple[str, ...]:
        """Each with the time of day at which it was told; `now` and events in seconds since the epoch."""
        return tuple(
            f"{time.strftime('%H:%M:%S', time.localtime(at))} {message}"
            for message, at in self._at.items()
            if now - at < KEPT
        )
