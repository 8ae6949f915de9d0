"""How long replicas of each service take to get ready: learned, and kept over the daemon's death.

STATE/startups.jsonl     the last measurements of each service, seconds from the decision to ready
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median

from stoker.model.event import Event, ReplicaBecameReady, StartRequested, WorkerExited
from stoker.model.service import ServiceKey
from stoker.plugin.record_log import RecordLog

KEPT = 9
"""Measurements of a service: so many that one slow start moves nothing, so few that a change is seen soon."""


class StartupTimes:
    """Those of one state directory. `trouble` is told when one cannot be written."""

    def __init__(self, state_dir: str, trouble: Callable[[str], None]) -> None:
        self._log = RecordLog(Path(state_dir) / "startups.jsonl")
        self._trouble = trouble
        self._begun: dict[str, float] = {}
        """When the present start of a replica was decided."""
        self._found = _read(self._log)

    def observe(self, event: Event) -> None:
        """Take note of a folded event."""
        match event:
            case StartRequested():
                self._begun[event.replica] = event.at
            case ReplicaBecameReady() if event.replica in self._begun:
                self._add(event.service, event.at - self._begun.pop(event.replica))
            case WorkerExited():
                self._begun.pop(event.replica, None)

    def of(self, service: ServiceKey) -> float | None:
        """The median of the last measurements in seconds, None where there is none."""
        found = self._found.get(service)
        return median(found) if found else None

    def all(self) -> Mapping[ServiceKey, Sequence[float]]:
        """The last measurements of every service, oldest first."""
        return dict(self._found)

    def _add(self, service: ServiceKey, seconds: float) -> None:
        found = (*self._found.get(service, ()), round(seconds, 4))[-KEPT:]
        self._found[service] = found
        try:
            self._log.put(service, {"seconds": found})
        except OSError as error:
            self._trouble(f"cannot record how long {service} took to start: {error}")


def _read(log: RecordLog) -> dict[ServiceKey, tuple[float, ...]]:
    """What an earlier daemon measured. A record that cannot be read is as good as none."""
    found: dict[ServiceKey, tuple[float, ...]] = {}
    try:
        written = log.read()
    except OSError:
        return found
    for service, data in written.items():
        try:
            seconds = tuple(float(value) for value in data["seconds"] if 0 <= float(value) < 86_400)
        except (KeyError, TypeError, ValueError):
            continue
        if seconds:
            found[service] = seconds[-KEPT:]
    return found
