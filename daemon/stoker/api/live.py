"""The page's stream: the whole state once, then what has changed, at most once a second.

Every reader gets the same bytes, made once, so that fifty open pages cost little more than one. Ages are told
as moments, which do not change: a quiet box sends nothing but a sign of life.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Any

import anyio

from stoker.api.documents import daemon_document, device_documents, inventory_document, service_document
from stoker.api.facade import DaemonFacade, ServiceHistory, Snapshot
from stoker.api.history import history_document
from stoker.api.names import service_keys
from stoker.api.narrate import event_document
from stoker.api.problems import BusyError
from stoker.model.service import ServiceKey

TICK = 1.0
"""Seconds between two messages at least."""
SIGN_OF_LIFE = 30.0
"""Seconds of silence after which a comment is sent: tunnels close connections on which nothing moves."""
EVENTS = 200
"""Events that a new reader is told of."""
KEPT = 30
"""Messages kept for readers that are slow; one that is further behind gets the whole state again."""
MOST_READERS = 256
LATE = 10.0
"""Seconds by which a measurement may come after its time."""

Document = dict[str, Any]


class Feed:
    """Changes of one daemon for any number of readers; works only while there are some."""

    def __init__(self, facade: DaemonFacade) -> None:
        self._facade = facade
        self._version = 0
        self._due = 0.0
        self._count = -1
        self._parts: dict[str, Any] = {}
        self._kept: deque[tuple[int, bytes]] = deque(maxlen=KEPT)
        self._whole: tuple[int, bytes] = (-1, b"")
        self._told_event = ""
        self._told_points: dict[ServiceKey, float] = {}
        self._readers = 0

    def check_room(self) -> None:
        """Raise BusyError where too many read already."""
        if self._readers >= MOST_READERS:
            raise BusyError(f"{MOST_READERS} pages are open already; close some")

    async def messages(self) -> AsyncIterator[bytes]:
        """Server-sent events without an end."""
        self._readers += 1
        try:
            self._refresh()
            seen = self._version
            yield self._state()
            while True:
                await self._news(seen)
                if self._version == seen:
                    yield b":\n\n"
                    continue
                if self._kept[0][0] > seen + 1:
                    yield self._state()
                else:
                    for version, message in list(self._kept):
                        if version > seen:
                            yield message
                seen = self._version
        finally:
            self._readers -= 1

    async def _news(self, seen: int) -> None:
        """Return once there is a message after `seen`, or a sign of life is due."""
        with anyio.move_on_after(SIGN_OF_LIFE):
            while self._version == seen:
                # A mean over the last minute falls by itself after the last request: look again until it
                # has come to rest. Everything else changes by something that happens.
                with anyio.move_on_after(TICK if self._falling() else None):
                    await self._facade.changed(self._count)
                await anyio.sleep_until(self._due)
                self._refresh()

    def _falling(self) -> bool:
        services: Mapping[ServiceKey, Document] = self._parts.get("services", {})
        return any(service["load"]["rps"] or service["load"]["in_flight"] for service in services.values())

    def _refresh(self) -> None:
        """Compare with what was told last; at most once in TICK, whoever asks."""
        if anyio.current_time() < self._due:
            return
        self._due = anyio.current_time() + TICK
        snapshot = self._facade.snapshot()
        parts = live_parts(snapshot)
        message = changes(self._parts, parts)
        if events := self._new_events():
            message["events"] = events
        if histories := self._new_points(snapshot.now):
            message["history"] = history_document(histories, snapshot.wall - snapshot.now)
        self._parts = parts
        if message:
            self._version += 1
            message["now"] = round(snapshot.wall, 2)
            self._kept.append((self._version, _sse("change", message)))

    def _new_events(self) -> list[Document]:
        if not self._told_event:
            latest = self._facade.recent_events()[-1:]
            self._told_event = latest[0].id if latest else ""
            return []
        events = self._facade.recent_events(self._told_event)
        if events:
            self._told_event = events[-1].id
        return [live_event(event_document(event)) for event in events[-EVENTS:]]

    def _new_points(self, now: float) -> dict[ServiceKey, ServiceHistory]:
        """What was measured since the last message; with the first one a page reads the hour itself."""
        fresh = {}
        for key, found in self._facade.history(max(0.0, now - LATE)).items():
            told = self._told_points.get(key, 0.0)
            load = [point for point in found.load if point.at > told]
            levels = [point for point in found.levels if point.at > told]
            if load or levels:
                fresh[key] = ServiceHistory(load=load, levels=levels)
                self._told_points[key] = max(*(p.at for p in load), *(p.at for p in levels), told)
        return fresh

    def _state(self) -> bytes:
        """The whole state as it was told last, made once for all who ask for it."""
        if self._whole[0] != self._version:
            snapshot = self._facade.snapshot()
            # What came after the last message will be in the next one.
            kept = list(self._facade.recent_events())
            while kept and self._told_event and kept[-1].id != self._told_event:
                kept.pop()
            events = kept[-EVENTS:]
            message = {
                **self._parts,
                "services": list(self._parts["services"].values()),
                "events": [live_event(event_document(event)) for event in events],
                "now": round(snapshot.wall, 2),
            }
            self._whole = (self._version, _sse("state", message))
        return self._whole[1]


def live_parts(snapshot: Snapshot) -> Document:
    """The state without anything that changes with time alone. Pure."""
    offset = snapshot.wall - snapshot.now
    daemon = daemon_document(snapshot)
    del daemon["uptime_s"]
    # Two clocks: the difference wavers by microseconds, and slews.
    daemon["started"] = round(snapshot.started + offset)
    return {
        "daemon": daemon,
        "services": {key: _service(snapshot, key, offset) for key in service_keys(snapshot)},
        "devices": device_documents(snapshot),
        "inventory": inventory_document(snapshot),
    }


def _service(snapshot: Snapshot, key: ServiceKey, offset: float) -> Document:
    document = service_document(snapshot, key)
    for shown, replica in zip(document["replicas"], snapshot.observed.of(key), strict=True):
        del shown["since_s"], shown["age_s"]
        shown["since"] = round(replica.since + offset)
    return document


def live_event(document: Document) -> Document:
    """An event without what only programs read."""
    return {
        name: document[name] for name in ("id", "time", "type", "severity", "service", "replica", "message")
    }


def changes(before: Document, after: Document) -> Document:
    """What of `after` is new. Services one by one, everything else as a whole. Pure."""
    found = {name: value for name, value in after.items() if name != "services" and before.get(name) != value}
    old, new = before.get("services", {}), after["services"]
    if changed := [service for key, service in new.items() if old.get(key) != service]:
        found["services"] = changed
    if list(old) != list(new):
        found["order"] = list(new)
    return found


def _sse(kind: str, message: Document) -> bytes:
    data = json.dumps(message, separators=(",", ":"), ensure_ascii=False)
    return f"event: {kind}\ndata: {data}\n\n".encode(errors="replace")
