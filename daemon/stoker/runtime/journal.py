"""All events, in order, in bounded memory: who happened, when, because of what.

The journal gives each event its id and its wall-clock time and lets any number of readers follow.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from itertools import islice

import anyio

from stoker.model.event import Event, ReplicaEvent

KEPT = 20_000


class Journal:
    """The events of this daemon's life. `wall` gives seconds since the epoch."""

    def __init__(self, wall: Callable[[], float], *, prefix: str = "e", keep: int = KEPT) -> None:
        self._wall = wall
        self._prefix = prefix
        self._events: deque[Event] = deque(maxlen=keep)
        self._count = 0
        self._changed = anyio.Event()

    def record(self, event: Event, now: float) -> Event:
        """Stamp and keep an event; returns it with id, `at` and `wall` filled in."""
        self._count += 1
        stamped = replace(
            event, id=f"{self._prefix}{self._count}", at=event.at or now, wall=event.wall or self._wall()
        )
        self._events.append(stamped)
        changed, self._changed = self._changed, anyio.Event()
        changed.set()
        return stamped

    def recent(self, after: str = "") -> list[Event]:
        """Kept events after the one of that id (an unknown id: all that are kept), oldest first."""
        return list(islice(self._events, self._index(after), None))

    async def follow(self, after: str = "") -> AsyncIterator[Event]:
        """Kept events after that id, then each new one. A reader that falls behind the bound misses some."""
        seen = self._count - len(self._events) + self._index(after)
        while True:
            changed = self._changed
            # From the newest backwards: what is new is little, what is kept may be much.
            batch = list(islice(reversed(self._events), self._count - seen))
            seen = self._count
            for event in reversed(batch):
                yield event
            if seen == self._count:
                await changed.wait()

    def story(self, replica: str) -> list[Event]:
        """The events of one replica and, before each, the ones that caused it; oldest first."""
        by_id = {event.id: event for event in self._events}
        chosen: dict[str, Event] = {}
        for event in self._events:
            if isinstance(event, ReplicaEvent) and event.replica == replica:
                cause = by_id.get(event.cause)
                while cause is not None and cause.id not in chosen:
                    chosen[cause.id] = cause
                    cause = by_id.get(cause.cause)
                chosen[event.id] = event
        return sorted(chosen.values(), key=lambda event: self._number(event.id))

    def _index(self, after: str) -> int:
        """Position in the deque of the first event after that id."""
        if not after:
            return 0
        first = self._count - len(self._events) + 1
        return max(0, min(len(self._events), self._number(after) - first + 1))

    def _number(self, event_id: str) -> int:
        number = event_id.removeprefix(self._prefix)
        return int(number) if number.isdigit() else 0
