"""What the program tells the daemon, if one listens: load once a second while there is any, sooner where a
queue grows, and facts."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any, Protocol

from stoker_router.access import AccessLog, Entry, Mark, Trail
from stoker_router.recording import Recorder
from stoker_router.service import Service
from stoker_router.tracing import span_of

SAMPLE_EVERY = 1.0
"""Seconds between two load samples of a service that is active."""
LASTING = 0.05
"""Seconds that a queue has to last to be told of before its time; fast services have one at any instant."""
SOON = 0.25
"""Seconds between two samples of one service at the least."""


class Subscriber(Protocol):
    """The daemon's connection."""

    @property
    def blocked(self) -> bool:
        """Whether the daemon does not read."""
        ...

    def push(self, message: dict[str, Any]) -> None:
        """Send one line."""
        ...


class Reports:
    """Counts are never lost: samples are taken only when they can be sent, so that the first one after a
    gap covers it. Facts (addresses, drained workers) are not kept here; they are told anew to each daemon."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sample_every: float, access: AccessLog) -> None:
        self._loop = loop
        self._access = access
        self._sample_every = sample_every
        self._active: dict[Service, dict[str, Any] | None] = {}
        """Services with something to tell, each with a sample of its rest before that."""
        self._timer: asyncio.TimerHandle | None = None
        self._looks: dict[Service, asyncio.TimerHandle] = {}
        """At services whose queue grows."""
        self.subscriber: Subscriber | None = None
        self.spans: Recorder | None = None
        """Who collects spans, if anybody does."""

    def resume(self) -> None:
        """A daemon listens (again), or asks: tell it the load at once."""
        self._tick()

    def forget(self, service: Service) -> None:
        """The service left the table."""
        self._active.pop(service, None)
        if look := self._looks.pop(service, None):
            look.cancel()

    def active(self, service: Service) -> None:
        """It was at rest and no longer is."""
        now = monotonic()
        self._active[service] = service.sample(now) if service.meter.since < now else None
        self._arm()

    def growing(self, service: Service) -> None:
        """More than twice as many wait as were told of last."""
        if service not in self._looks:
            delay = max(LASTING, service.meter.since + min(SOON, self._sample_every) - monotonic())
            self._looks[service] = self._loop.call_later(delay, self._look, service)

    def demand(self, service: Service) -> None:
        """A request waits and there is no worker. Its load comes first: a worker may be ready before the next
        regular sample, and would then seem to be there for nothing."""
        if self._is_news(service):
            self._tell(service, monotonic())
        self._push({"op": "demand", "service": service.route.service})

    def drained(self, worker: str) -> None:
        """A draining worker has nothing in flight any more."""
        self._push({"op": "drained", "replica": worker})

    def bound(self, service: str, host: str, port: int) -> None:
        """The address is open."""
        self._push({"op": "bound", "service": service, "host": host, "port": port})

    def trouble(self, service: str, message: str) -> None:
        """Something the operator must know."""
        self._push({"op": "trouble", "service": service, "message": message})

    def logged(self, trail: Trail, entry: Entry) -> None:
        """A request that belongs into the access log has ended."""
        self._access.write(trail, entry)

    def traced(self, trail: Trail, entry: Entry, mark: Mark) -> None:
        """A request has ended of which a span is to be told."""
        if self.spans is not None:
            self.spans.add(span_of(trail, entry, mark))

    def close(self) -> None:
        """The end: tell what was not told yet."""
        self._tick()

    def _push(self, message: dict[str, Any]) -> None:
        if self.subscriber is not None:
            self.subscriber.push(message)

    def _arm(self) -> None:
        if self._timer is None and self.subscriber is not None and self._active:
            self._timer = self._loop.call_later(self._sample_every, self._tick)

    def _look(self, service: Service) -> None:
        """Tell of a queue that has lasted."""
        del self._looks[service]
        if self._is_news(service):
            self._tell(service, monotonic())

    def _is_news(self, service: Service) -> bool:
        heard = self.subscriber is not None and not self.subscriber.blocked
        return heard and service in self._active and service.line.grown

    def _tell(self, service: Service, now: float) -> dict[str, Any]:
        """Send the load since its last sample; returns that."""
        rest = self._active[service]
        if rest is not None:
            self._active[service] = None
            self._push({"op": "sample", **rest})
        sample = service.sample(now)
        self._push({"op": "sample", **sample})
        return sample

    def _tick(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.subscriber is None or self.subscriber.blocked:
            return
        now = monotonic()
        for service in list(self._active):
            if _is_rest(self._tell(service, now)):
                service.quiet = True
                del self._active[service]
        self._arm()


def _is_rest(sample: dict[str, Any]) -> bool:
    """Whether nothing at all happened."""
    return not (
        sample["in_flight"] or sample["queued"] or sample["arrivals"] or sample["codes"]
        or sample["in_flight_seconds"] or sample["queued_seconds"]
    )  # fmt: skip
