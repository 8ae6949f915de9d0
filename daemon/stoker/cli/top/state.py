"""What the daemon's stream has told so far, as the status document that the tables are made from. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from stoker.cli.rows import key_of

Document = dict[str, Any]

EVENTS = 500
BLOCKS = "▁▂▃▄▅▆▇█"


class LiveState:
    """The state of one daemon. `now` is seconds since the epoch by the daemon's clock."""

    def __init__(self) -> None:
        self.events: deque[Document] = deque(maxlen=EVENTS)
        self.loads: dict[str, deque[tuple[float, float]]] = {}
        """service key -> (end of a stretch, requests there and waiting)."""
        self._parts: Document = {}
        self._devices_said = ""
        self._services: dict[str, Document] = {}

    @property
    def known(self) -> bool:
        """Whether anything was told yet."""
        return bool(self._parts)

    def apply(self, kind: str, message: Mapping[str, Any]) -> list[Document]:
        """Take a message in; returns the events that are new."""
        if kind == "state":
            self._services = {}
            known = {event["id"] for event in self.events} if self.known else set()
        else:
            known = set()
        for service in message.get("services", ()):
            self._services[key_of(service)] = service
        if "order" in message:
            self._services = {key: self._services[key] for key in message["order"] if key in self._services}
        for name in ("daemon", "devices", "inventory"):
            if name in message:
                self._parts[name] = message[name]
        self.add_history(message.get("history", {}))
        fresh = [
            event for event in message.get("events", ()) if event["id"] not in known and self._news(event)
        ]
        self.events.extend(fresh)
        return fresh

    def _news(self, event: Document) -> bool:
        """Readings of the devices come often and mostly say the same."""
        if event["type"] != "InventoryChanged":
            return True
        again, self._devices_said = event["message"] == self._devices_said, event["message"]
        return not again

    def add_history(self, services: Mapping[str, Any]) -> None:
        """Points of load, of `/v1/history` or of the stream."""
        for key, found in services.items():
            load = found["load"]
            kept = self.loads.setdefault(key, deque(maxlen=1000))
            for end, flying, queued in zip(load["t"], load["in_flight"], load["queued"], strict=True):
                while kept and kept[-1][0] >= end:
                    kept.pop()
                kept.append((end, flying + queued))

    def status(self, now: float) -> Document:
        """The status document as it would be told at that time."""
        daemon = self._parts["daemon"]
        return {
            "daemon": {**daemon, "uptime_s": max(0.0, now - daemon["started"])},
            "services": [_aged(service, now) for service in self._services.values()],
            "devices": self._parts["devices"],
            "inventory": self._parts["inventory"],
        }


def _aged(service: Document, now: float) -> Document:
    replicas = [{**replica, "since_s": max(0.0, now - replica["since"])} for replica in service["replicas"]]
    return {**service, "replicas": replicas}


def spark(
    points: Mapping[int, float] | deque[tuple[float, float]], now: float, *, step: float, width: int
) -> str:
    """The last `width` steps of so many seconds as a line of blocks, the newest at the right. Pure.

    A step shows the highest of its points; empty ones are blank.
    """
    highest: dict[int, float] = {}
    pairs = points.items() if isinstance(points, Mapping) else points
    for end, value in pairs:
        column = width - 1 - int((now - end) / step)
        if 0 <= column < width:
            highest[column] = max(highest.get(column, 0.0), value)
    most = max(highest.values(), default=0.0)
    if most <= 0:
        return " " * width
    return "".join(
        BLOCKS[min(7, int(8 * highest[column] / most))] if highest.get(column) else " "
        for column in range(width)
    )
