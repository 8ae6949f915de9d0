"""All events, in order, in bounded memory: who happened, when, because of what.

The journal gives each event its id and its wall-clock time and lets any number of readers follow.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace
from itertools import islice

import anyio

from stoker.model.event import Event, Recorded, ReplicaEvent

KEPT = 5_000
"""Events in memory, of some 400 bytes each; those before them are on disk."""


class Journal:
    """The events of this daemon's life and, on demand, of those before it. `wall` gives seconds since the
    epoch; `past` the events of earlier lives, of which the last one has the number `last_number`; `kept` is
    called with each new one."""

    def __init__(
        self,
        wall: Callable[[], float],
        *,
        prefix: str = "e",
        keep: int = KEPT,
        past: Callable[[], Sequence[Event]] = list,
        last_number: int = 0,
        kept: Callable[[Event], None] = lambda event: None,
    ) -> None:
        self._wall = wall
        self._prefix = prefix
        self._events: deque[Event] = deque(maxlen=keep)
        self._past: Callable[[], Sequence[Event]] | None = past
        self._kept = kept
        self._count = last_number
        self._changed = anyio.Event()
        self.beginning = f"{prefix}{last_number}"
        """After this id comes the first event of this life."""

    def record(self, event: Event, now: float) -> Event:
        """Stamp and keep an event; returns it with id, `at` and `wall` filled in."""
        self._count += 1
        stamped = replace(
            event, id=f"{self._prefix}{self._count}", at=event.at or now, wall=event.wall or self._wall()
        )
        self._events.append(stamped)
        self._kept(stamped)
        changed, self._changed = self._changed, anyio.Event()
        changed.set()
        return stamped

    def recent(self, after: str = "") -> list[Event]:
        """Kept events after the one of that id (an unknown id: all that are kept), oldest first."""
        self._recall(after)
        return list(islice(self._events, self._index(after), None))

    async def follow(self, after: str = "") -> AsyncGenerator[Event, None]:
        """Kept events after that id, then each new one. A reader that falls behind the bound misses some."""
        self._recall(after)
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
        self._recall("")
        by_id = {event.id: event for event in self._events}
        chosen: dict[str, Event] = {}
        for event in self._events:
            if isinstance(event, ReplicaEvent | Recorded) and event.replica == replica:
                cause = by_id.get(event.cause)
                while cause is not None and cause.id not in chosen:
                    chosen[cause.id] = cause
                    cause = by_id.get(cause.cause)
                chosen[event.id] = event
        return sorted(chosen.values(), key=lambda event: self._number(event.id))

    def _recall(self, after: str) -> None:
        """Bring the events of earlier lives back, if they are asked for."""
        if self._past is None or self._number(after) >= self._number(self.beginning) > 0:
            return
        past, self._past = self._past(), None
        room = (self._events.maxlen or len(past)) - len(self._events)
        self._events.extendleft(reversed(past[-room:] if room > 0 else ()))

    def _index(self, after: str) -> int:
        """Position in the deque of the first event after that id."""
        if not after:
            return 0
        first = self._count - len(self._events) + 1
        return max(0, min(len(self._events), self._number(after) - first + 1))

    def _number(self, event_id: str) -> int:
        number = event_id.removeprefix(self._prefix)
        return int(number) if number.isdigit() else 0
