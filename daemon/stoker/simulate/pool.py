"""One service's workers on a virtual clock: a central queue, slots, and replicas that start, serve, drain."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count

from stoker.model.load import LoadSample, PoolState
from stoker.simulate.trace import Trace


@dataclass(slots=True)
class Meter:
    """Exact counts and integrals since the last sample."""

    in_flight_seconds: float = 0.0
    queued_seconds: float = 0.0
    arrivals: int = 0
    completions: int = 0
    service_seconds: float = 0.0
    wait_seconds: float = 0.0


@dataclass(slots=True)
class Tally:
    """What a run has cost. `replica_seconds` counts starting, ready and draining replicas alike."""

    replica_seconds: float = 0.0
    starts: int = 0
    peak: int = 0
    timeline: list[tuple[float, int, int, int]] = field(default_factory=list)
    """(seconds, ready, starting, draining) from that moment on, one entry per change."""


class SimulatedPool:
    """Requests go to the ready replica with the least in flight; what finds no free slot queues, first in
    first out. `startup()` gives the seconds that the next replica takes from decision to ready."""

    def __init__(
        self, trace: Trace, *, slots: int | None, startup: Callable[[], float], initial: int
    ) -> None:
        self.trace = trace
        self.waits = [math.inf] * len(trace)
        """Seconds each request waited; infinite while it has not begun."""
        self.now = 0.0
        self.meter = Meter()
        self.tally = Tally()
        self.queue: deque[int] = deque()
        self._slots = slots or len(trace) + 1
        self._startup = startup
        self._arrived = 0
        self._running: list[tuple[float, int, int]] = []
        """Heap of (end, request, replica)."""
        self._starting: list[tuple[float, int]] = []
        """Heap of (ready at, replica)."""
        self._levels: list[set[int]] = [set()]
        """Ready replicas by the number of requests they have in flight."""
        self._replicas = _Replicas()
        for _ in range(initial):
            self._levels[0].add(self._replicas.new(0.0))
        self._note()

    @property
    def in_flight(self) -> int:
        """Requests inside replicas."""
        return len(self._running)

    @property
    def at_rest(self) -> bool:
        """Nothing in flight or queued."""
        return not self._running and not self.queue

    @property
    def finished(self) -> bool:
        """Every request was served."""
        return self._arrived == len(self.trace) and self.at_rest

    @property
    def held(self) -> int:
        """Replicas whose process is there: starting, ready and draining."""
        return len(self._replicas.born)

    @property
    def starting(self) -> int:
        """Replicas not yet ready."""
        return len(self._starting)

    @property
    def draining(self) -> int:
        """Replicas that finish their last requests."""
        return len(self._replicas.draining)

    @property
    def ready(self) -> int:
        """Replicas that take requests."""
        return self.held - self.starting - self.draining

    @property
    def next_event(self) -> float:
        """When anything happens next by itself; infinite if nothing will."""
        arrival = self.trace.arrivals[self._arrived] if self._arrived < len(self.trace) else math.inf
        end = self._running[0][0] if self._running else math.inf
        return min(arrival, end, self._starting[0][0] if self._starting else math.inf)

    def advance(self, until: float) -> bool:
        """Let time pass up to `until`; stops early, with True, at a request that no replica is there for."""
        arrivals, running, starting = self.trace.arrivals, self._running, self._starting
        queue, meter, last = self.queue, self.meter, len(self.trace)
        now = self.now
        while True:
            at, event = until, None
            if self._arrived < last and arrivals[self._arrived] < at:
                at, event = arrivals[self._arrived], self._arrive
            if running and running[0][0] <= at:
                at, event = running[0][0], self._finish
            if starting and starting[0][0] <= at:
                at, event = starting[0][0], self._become_ready
            if at > now:
                elapsed = at - now
                meter.in_flight_seconds += elapsed * len(running)
                if queue:
                    meter.queued_seconds += elapsed * len(queue)
                self.now = now = at
            if event is None:
                return False
            event()
            if queue and not starting and not self.ready:
                return True

    def resize(self, target: int) -> None:
        """Start replicas, or end the surplus: the youngest starting ones, then those with least in flight."""
        present = self.ready + self.starting
        for _ in range(target - present):
            replica = self._replicas.new(self.now)
            heappush(self._starting, (self.now + self._startup(), replica))
            self.tally.starts += 1
        surplus = present - target
        while surplus > 0 and self._starting:
            youngest = max(self._starting, key=lambda entry: entry[1])
            self._starting.remove(youngest)
            self._starting.sort()
            self._end(youngest[1])
            surplus -= 1
        for in_flight, level in enumerate(self._levels):
            while level and surplus > 0:
                replica = level.pop()
                surplus -= 1
                if in_flight:
                    self._replicas.draining.add(replica)
                else:
                    self._end(replica)
        if target != present:
            self._note()

    def sample(self, service: str, start: float) -> LoadSample:
        """Take the counts since `start`, as the router reports them, and begin anew."""
        meter, self.meter = self.meter, Meter()
        return LoadSample(
            service=service,
            start=start,
            end=self.now,
            in_flight=len(self._running),
            queued=len(self.queue),
            in_flight_seconds=meter.in_flight_seconds,
            queued_seconds=meter.queued_seconds,
            arrivals=meter.arrivals,
            completions=meter.completions,
            service_seconds=meter.service_seconds,
            wait_seconds=meter.wait_seconds,
            oldest_wait=self.now - self.trace.arrivals[self.queue[0]] if self.queue else 0.0,
        )

    def state(self, target: int, startup: float) -> PoolState:
        """The pool as a policy sees it."""
        return PoolState(
            ready=self.ready,
            starting=self.starting,
            draining=self.draining,
            target=target,
            startup_seconds=startup,
        )

    def close(self) -> None:
        """End the run: the replicas that are left are paid up to now."""
        for replica in tuple(self._replicas.born):
            self._end(replica)
        self.tally.timeline.append((self.now, 0, 0, 0))

    def _arrive(self) -> None:
        request = self._arrived
        self._arrived += 1
        self.meter.arrivals += 1
        if not self.queue:
            for in_flight, level in enumerate(self._levels):
                if level and in_flight < self._slots:
                    replica = level.pop()
                    self._place(replica, in_flight + 1)
                    self._begin(request, replica)
                    return
        self.queue.append(request)

    def _finish(self) -> None:
        _, request, replica = heappop(self._running)
        self.meter.completions += 1
        self.meter.service_seconds += self.trace.services[request]
        self.meter.wait_seconds += self.waits[request]
        in_flight = self._replicas.in_flight[replica]
        if replica in self._replicas.draining:
            self._replicas.in_flight[replica] = in_flight - 1
            if in_flight == 1:
                self._end(replica)
                self._note()
        elif self.queue:
            self._begin(self.queue.popleft(), replica)
        else:
            self._levels[in_flight].remove(replica)
            self._place(replica, in_flight - 1)

    def _become_ready(self) -> None:
        _, replica = heappop(self._starting)
        taken = min(len(self.queue), self._slots)
        self._place(replica, taken)
        for _ in range(taken):
            self._begin(self.queue.popleft(), replica)
        self._note()

    def _begin(self, request: int, replica: int) -> None:
        self.waits[request] = self.now - self.trace.arrivals[request]
        heappush(self._running, (self.now + self.trace.services[request], request, replica))

    def _place(self, replica: int, in_flight: int) -> None:
        while len(self._levels) <= in_flight:
            self._levels.append(set())
        self._levels[in_flight].add(replica)
        self._replicas.in_flight[replica] = in_flight

    def _end(self, replica: int) -> None:
        self.tally.replica_seconds += self.now - self._replicas.gone(replica)

    def _note(self) -> None:
        """Write down the counts, which have just changed."""
        entry = (self.now, self.ready, self.starting, self.draining)
        timeline = self.tally.timeline
        if timeline and timeline[-1][0] == self.now:
            timeline[-1] = entry
        else:
            timeline.append(entry)
        self.tally.peak = max(self.tally.peak, self.ready + self.starting)


class _Replicas:
    """Who is there: since when, and how much each ready or draining one has in flight."""

    def __init__(self) -> None:
        self.born: dict[int, float] = {}
        self.in_flight: dict[int, int] = {}
        self.draining: set[int] = set()
        self._numbers = count()

    def new(self, now: float) -> int:
        replica = next(self._numbers)
        self.born[replica] = now
        self.in_flight[replica] = 0
        return replica

    def gone(self, replica: int) -> float:
        """Forget it; returns when it was born."""
        self.draining.discard(replica)
        self.in_flight.pop(replica)
        return self.born.pop(replica)
