"""Exact load of one service: counters and time integrals, nothing sampled. Pure; `now` is passed in.

The integral of a count over time needs no clock ticks: subtract the time when the count goes up, add it when
it goes down, and `area + count * now` is the integral. Times are CLOCK_MONOTONIC seconds, comparable with
those of every other process of the box.

The books balance: arrivals = answers (all of `codes`) + in flight + queued.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

from stoker_router.recording import Recorder, Row

BOUNDS = (
    0.001, 0.0025, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75,
    1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0,
)  # fmt: skip
"""Upper bounds of the latency histogram in seconds; what is longer goes to "inf". Close together where models
answer (10 ms to 20 s), so that a percentile is worth its digits; up to ten minutes for long generations."""
ABORTED = 0
"""Stands in place of a status for a request whose client went away."""

_CLASSES = ("aborted", "1xx", "2xx", "3xx", "4xx", "5xx")


class Meter:
    """Load since `since`. Only answers that came from a worker are completions and have a latency; `codes`
    counts every answer, the router's own and requests that clients gave up included."""

    __slots__ = (
        "_before", "_codes", "_latency", "arrivals", "completions", "flight_area", "queue_area", "recorders",
        "service_seconds", "since", "wait_seconds",
    )  # fmt: skip

    def __init__(self, now: float) -> None:
        self.since = now
        self._before = 0
        self.flight_area = 0.0
        self.queue_area = 0.0
        self.recorders: list[Recorder] = []
        """Who wants to know each request; the program's list."""
        self._clear()

    def _clear(self) -> None:
        self.arrivals = self.completions = 0
        self.service_seconds = self.wait_seconds = 0.0
        self._codes = [0] * len(_CLASSES)
        self._latency = [0] * (len(BOUNDS) + 1)

    @property
    def total(self) -> int:
        """All arrivals there ever were."""
        return self._before + self.arrivals

    @property
    def unused(self) -> bool:
        """Nothing has happened since `since` but what `flight_area` and `queue_area` hold."""
        return not self.arrivals and not any(self._codes)

    def answered(self, status: int) -> None:
        """A request got an answer that is no worker's (or ABORTED)."""
        self._codes[status // 100] += 1

    def completed(self, status: int, total: float, waited: float) -> None:
        """A worker has answered to the end; `total` seconds since arrival, `waited` of them in the queue."""
        self.completions += 1
        self._codes[status // 100 if status < 600 else 5] += 1
        self.wait_seconds += waited
        self.service_seconds += total - waited
        self._latency[bisect_left(BOUNDS, total)] += 1

    def record(self, row: Row) -> None:
        """A request has ended; tell those who want to know."""
        for recorder in self.recorders:
            recorder.add(row)

    def take(self, now: float, in_flight: int, queued: int) -> dict[str, Any]:
        """Return all since the last `take` as fields of a LoadSample, and begin anew."""
        latency = {str(bound): n for bound, n in zip((*BOUNDS, "inf"), self._latency, strict=True) if n}
        sample = {
            "start": self.since,
            "end": now,
            "in_flight": in_flight,
            "queued": queued,
            "in_flight_seconds": max(0.0, self.flight_area + in_flight * now),
            "queued_seconds": max(0.0, self.queue_area + queued * now),
            "arrivals": self.arrivals,
            "completions": self.completions,
            "service_seconds": self.service_seconds,
            "wait_seconds": self.wait_seconds,
            "codes": {name: n for name, n in zip(_CLASSES, self._codes, strict=True) if n},
            "latency": latency,
        }
        self.since = now
        self._before += self.arrivals
        self.flight_area = -in_flight * now
        self.queue_area = -queued * now
        self._clear()
        return sample
