"""One service inside the fake router: who waits, who is being served, what was measured."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import anyio

from stoker.model.load import LoadSample
from stoker.model.service import ServiceKey


@dataclass(slots=True, eq=False)
class Flight:
    """One request inside one worker. `stirred`: something changed, look whether the worker still lives."""

    worker: str
    stirred: anyio.Event = field(default_factory=anyio.Event)


@dataclass(slots=True, eq=False)
class Turn:
    """A place in the queue. `flight` is set when the turn has come."""

    come: anyio.Event = field(default_factory=anyio.Event)
    flight: Flight | None = None


@dataclass(slots=True)
class Counts:
    """Sums since the last sample."""

    in_flight_seconds: float = 0.0
    queued_seconds: float = 0.0
    arrivals: int = 0
    completions: int = 0
    service_seconds: float = 0.0
    wait_seconds: float = 0.0


class Line:
    """Queue, flights and measurements of one service. Every change is told with its time."""

    def __init__(self, service: ServiceKey, now: float) -> None:
        self.service = service
        self.queue: deque[Turn] = deque()
        self.flights: list[Flight] = []
        self.demanded = float("-inf")
        self.told_rest = True
        self._since = self._touched = now
        self._counts = Counts()

    def arrive(self, now: float) -> None:
        """A request has come in."""
        self._advance(now)
        self._counts.arrivals += 1
        self.told_rest = False

    def wait(self, turn: Turn, now: float) -> None:
        """It joins the queue."""
        self._advance(now)
        self.queue.append(turn)

    def give_up(self, turn: Turn, now: float) -> None:
        """It has waited too long."""
        self._advance(now)
        self.queue.remove(turn)

    def serve_first(self, worker: str, now: float) -> None:
        """The first in the queue gets a slot of that worker."""
        self._advance(now)
        turn = self.queue.popleft()
        turn.flight = Flight(worker)
        self.flights.append(turn.flight)
        turn.come.set()

    def land(self, flight: Flight, now: float) -> None:
        """It has left its worker, answered or not."""
        self._advance(now)
        self.flights.remove(flight)

    def complete(self, *, served: float, waited: float) -> None:
        """Its answer is out."""
        self._counts.completions += 1
        self._counts.service_seconds += served
        self._counts.wait_seconds += waited

    def on(self, worker: str) -> int:
        """Requests inside that worker."""
        return sum(flight.worker == worker for flight in self.flights)

    def sample(self, now: float) -> LoadSample:
        """What was measured since the last sample; begins the next one."""
        self._advance(now)
        counts, start = self._counts, self._since
        self.told_rest = not (self.flights or self.queue or counts.arrivals or counts.completions)
        self._counts, self._since = Counts(), now
        return LoadSample(
            service=self.service,
            start=start,
            end=now,
            in_flight=len(self.flights),
            queued=len(self.queue),
            in_flight_seconds=counts.in_flight_seconds,
            queued_seconds=counts.queued_seconds,
            arrivals=counts.arrivals,
            completions=counts.completions,
            service_seconds=counts.service_seconds,
            wait_seconds=counts.wait_seconds,
            codes={"2xx": counts.completions} if counts.completions else {},
            workers={flight.worker: self.on(flight.worker) for flight in self.flights},
        )

    def _advance(self, now: float) -> None:
        """Bring the time integrals up to now."""
        self._counts.in_flight_seconds += len(self.flights) * (now - self._touched)
        self._counts.queued_seconds += len(self.queue) * (now - self._touched)
        self._touched = now
