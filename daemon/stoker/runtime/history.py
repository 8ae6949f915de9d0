"""The last hour of every pool in bounded memory, written only when something changes.

Load is kept by the autoscaler already (`LoadHistory`); what is added here are the levels: how many replicas
were wanted, there and ready. A change is written down when the next one comes or when somebody reads, from
the frozen state of its time: at rest nothing wakes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from stoker.api.facade import LevelPoint, LoadPoint
from stoker.decide.demand import FINE_SECONDS, KEPT_SECONDS, LoadHistory, at_rest, percentiles
from stoker.model.event import ConfigApplied, Event, InventoryChanged, Notice
from stoker.model.load import LoadSample
from stoker.model.service import ServiceKey
from stoker.model.state import DesiredState, ObservedState

STEP = 2.0
"""Seconds within which changes are written down as one."""
MOST = int(KEPT_SECONDS / STEP)
"""Points of one pool: one each step for an hour."""


class LevelHistory:
    """Wanted and present replicas over time. `state` and `desired` give the present snapshots."""

    def __init__(self, *, state: Callable[[], ObservedState], desired: Callable[[], DesiredState]) -> None:
        self._state = state
        self._desired = desired
        self._kept: dict[ServiceKey, deque[LevelPoint]] = {}
        self._touched: set[ServiceKey] = set()
        self._began = 0.0
        self._last: tuple[float, ObservedState, DesiredState] | None = None

    def observe(self, event: Event) -> None:
        """Take note of a folded event."""
        if isinstance(event, Notice | InventoryChanged):
            return
        if self._touched and event.at - self._began >= STEP:
            self._write()
        if not self._touched:
            self._began = event.at
        desired = self._desired()
        if isinstance(event, ConfigApplied):
            self._touched.update(desired.services)
        elif event.service_key:
            self._touched.add(event.service_key)
        self._last = (event.at, self._state(), desired)

    def points(self, service: ServiceKey, since: float = 0.0) -> list[LevelPoint]:
        """The levels of a service after that time (monotonic seconds), oldest first."""
        self._write()
        return [point for point in self._kept.get(service, ()) if point.at > since]

    def _write(self) -> None:
        if self._last is None:
            return
        at, state, desired = self._last
        for key in self._touched:
            self._append(key, _level(key, at, state, desired))
        self._touched.clear()
        for key in [key for key, kept in self._kept.items() if _over(kept, at, key in desired.services)]:
            del self._kept[key]

    def _append(self, key: ServiceKey, point: LevelPoint) -> None:
        kept = self._kept.setdefault(key, deque(maxlen=MOST))
        if kept and (kept[-1].target, kept[-1].ready, kept[-1].replicas) == (
            point.target,
            point.ready,
            point.replicas,
        ):
            return
        while len(kept) > 1 and kept[1].at < point.at - KEPT_SECONDS:
            kept.popleft()
        kept.append(point)


def _over(kept: deque[LevelPoint], now: float, wanted: bool) -> bool:  # noqa: FBT001 - one of two facts
    return not wanted and kept[-1].at < now - KEPT_SECONDS


def _level(key: ServiceKey, at: float, state: ObservedState, desired: DesiredState) -> LevelPoint:
    spec = desired.services.get(key)
    target = 0
    if spec is not None and not spec.held and not state.stopping:
        target = state.targets.get(key, spec.scaling.min_replicas)
    replicas = state.of(key)
    return LevelPoint(
        at=at, target=target, ready=sum(r.phase == "ready" for r in replicas), replicas=len(replicas)
    )


def load_points(history: LoadHistory, since: float, now: float) -> list[LoadPoint]:
    """The samples that end after `since` as points to draw, oldest first. Pure.

    A sample that ends at rest is followed by a point of zeros, so that silence after it reads as idle and
    not as unknown.
    """
    recent = since > now - FINE_SECONDS / 2
    points = []
    for sample in history.fine if recent else history.samples:
        if sample.end <= since or sample.duration <= 0:
            continue
        points.append(_point(sample))
        if at_rest(sample) and (sample.in_flight_seconds or sample.queued_seconds):
            points.append(LoadPoint(at=sample.end + 0.001, seconds=0.0))
    return points


def _point(sample: LoadSample) -> LoadPoint:
    p50, p99 = percentiles([sample], sample.duration, sample.end)
    return LoadPoint(
        at=sample.end,
        seconds=sample.duration,
        in_flight=sample.in_flight_seconds / sample.duration,
        queued=sample.queued_seconds / sample.duration,
        rps=sample.arrivals / sample.duration,
        p50_ms=None if p50 is None else p50 * 1000,
        p99_ms=None if p99 is None else p99 * 1000,
    )
