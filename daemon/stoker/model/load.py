"""Measured load: exact counts from the router, and the averages that policies read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from stoker.model.service import ServiceKey


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSample:
    """What the router measured of one service between two readings. Nothing in it is sampled.

    `start`, `end`: monotonic seconds. `in_flight_seconds`, `queued_seconds`: time integrals, so that
    `in_flight_seconds / (end - start)` is the exact mean concurrency. Counts are of events in between.
    """

    service: ServiceKey
    start: float
    end: float
    in_flight: int = 0
    queued: int = 0
    in_flight_seconds: float = 0.0
    queued_seconds: float = 0.0
    arrivals: int = 0
    completions: int = 0
    service_seconds: float = 0.0
    """Sum over completions of the time spent in a worker."""
    wait_seconds: float = 0.0
    """Sum over completions of the time spent in the queue."""
    oldest_wait: float = 0.0
    codes: Mapping[str, int] = field(default_factory=dict)
    """Completions by status class, "2xx" ..."""
    latency: Mapping[float, int] = field(default_factory=dict)
    """Completions by upper bound of total time in seconds (not cumulative); `inf` is the last bucket."""
    workers: Mapping[str, int] = field(default_factory=dict)
    """In flight now, by replica id."""

    @property
    def duration(self) -> float:
        """Seconds covered."""
        return self.end - self.start


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """One request that has ended. `arrived`: monotonic seconds; `waited` in the queue and `held` in a worker:
    seconds. `status` is that of its answer, 0 if its client gave it up."""

    service: ServiceKey
    arrived: float
    waited: float
    held: float
    status: int


class RequestBatch(tuple[RequestRecord, ...]):
    """Requests that were told together. `dropped`: how many more had ended and were not told, because their
    reader did not read."""

    dropped: int

    def __new__(cls, requests: Iterable[RequestRecord] = (), dropped: int = 0) -> RequestBatch:
        """The requests, and how many are missing among them."""
        batch = super().__new__(cls, requests)
        batch.dropped = dropped
        return batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a worker's whole tree uses: cores (1.0 = one core busy) and bytes resident, devices 0..1."""

    cpu: float = 0.0
    memory: int = 0
    gpu: float | None = None
    at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadWindow:
    """One service's load over a stretch of time, ready for a policy. `seconds` is what it really covers:
    0 means that there is no data, and no data is not zero load."""

    seconds: float = 0.0
    in_flight: float = 0.0
    """Time-weighted mean of requests inside workers."""
    queued: float = 0.0
    """Time-weighted mean of requests waiting in the router."""
    rps: float = 0.0
    """Arrivals per second."""
    service_time: float = 0.0
    """Mean seconds in a worker per completion."""
    completions: float = 0.0
    """Requests finished; a part where the window cuts a sample."""
    in_flight_now: int = 0
    queued_now: int = 0
    last_arrival: float | None = None
    """Monotonic time of the end of the last sample with an arrival."""
    cpu: float | None = None
    """Mean cores busy per ready replica; None if not measured."""
    gpu: float | None = None
    """Mean utilisation 0..1 of the service's devices; None if not measured."""
    age: float = 0.0
    """Seconds since the newest sample."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A number that a policy has from elsewhere; `at`: monotonic seconds when it was answered."""

    value: float
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolState:
    """The pool as a policy sees it."""

    ready: int = 0
    starting: int = 0
    draining: int = 0
    target: int = 0
    startup_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A policy's answer. `valid` False means "no opinion" (no or stale data): never scale down on it.

    `reason` is one sentence with the numbers in it; `facts` the same numbers by name.
    """

    target: int
    reason: str
    valid: bool = True
    code: str = ""
    facts: Mapping[str, float] = field(default_factory=dict)
    wake_at: float | None = None
    """When a policy's answer may change though nothing new is measured (monotonic seconds; None: never)."""
    state: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """JSON data a policy wants back as `PolicyInput.state` the next time."""
    base: int | None = None
    """Replicas below which the queue would grow without end; None: as `need`."""
    need: int | None = None
    """Replicas that the wait promised to callers needs when a new one would be ready; None: as `want`."""
    want: int | None = None
    """`need` and what is worth keeping warm, which a budget may take; None: as `target`."""
    value: tuple[float, ...] = ()
    """Requests a second that would have to wait without the 1st, 2nd ... replica."""
