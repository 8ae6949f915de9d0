"""What HAProxy's counters say, and the load between two readings of them. Pure.

Counts are HAProxy's own and exact. How long requests were in flight and in the queue is not among them: it
comes from readings a tenth of a second apart, by trapezoids.
"""

from __future__ import annotations

import csv
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from stoker.model.load import LoadSample
from stoker.model.service import ServiceKey
from stoker_haproxy.lines import Ended

PLUG = "plug"
_CLASSES = ("other", "1xx", "2xx", "3xx", "4xx", "5xx")
_NAMES = ("aborted", *_CLASSES[1:])
BOUNDS = (
    0.001, 0.0025, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75,
    1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0,
)  # fmt: skip
"""Upper bounds of the latency histogram in seconds; what is longer goes to infinity."""


@dataclass(frozen=True, slots=True)
class Server:
    """One worker's row. `faults`: answers of its own with a status from 500 on; `limit`: its slots."""

    busy: int
    queued: int
    faults: int
    status: str
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """The counters at one moment. `codes`: as `_CLASSES`; `answers`: of workers, but for `Server.faults`."""

    at: float
    arrivals: int = 0
    codes: tuple[int, ...] = (0,) * len(_CLASSES)
    answers: int = 0
    aborted: int = 0
    """Requests that their clients gave up; HAProxy counts each among the codes as well."""
    queued: int = 0
    servers: Mapping[str, Server] = field(default_factory=dict)

    @property
    def in_flight(self) -> int:
        """Requests inside workers."""
        return sum(server.busy for server in self.servers.values())

    @property
    def idle(self) -> bool:
        """Whether no request is here."""
        return not (self.in_flight or self.queued)


def read(text: str, at: float) -> Reading:
    """The answer to `show stat` for the frontend and the pool. Raises ValueError or KeyError for another."""
    lines = [line for line in text.splitlines() if line.strip()]
    header = lines[0].removeprefix("# ")
    rows = list(csv.DictReader([header, *(line for line in lines if not line.startswith("#"))]))
    front = next(row for row in rows if row["pxname"] == "front")
    pool = {row["svname"]: row for row in rows if row["pxname"] == "pool"}
    backend = pool.pop("BACKEND")
    pool.pop(PLUG, None)
    servers = {
        name: Server(
            busy=int(row["scur"]),
            queued=int(row["qcur"]),
            faults=int(row["hrsp_5xx"] or 0),
            status=row["status"],
            limit=int(row["slim"] or 0) or None,
        )
        for name, row in pool.items()
    }
    return Reading(
        at=at,
        arrivals=int(front["req_tot"]),
        codes=tuple(int(front[f"hrsp_{name}"] or 0) for name in _CLASSES),
        answers=sum(int(backend[f"hrsp_{name}"] or 0) for name in _CLASSES[1:5]),
        aborted=int(backend["cli_abrt"] or 0),
        queued=int(backend["qcur"]) + sum(server.queued for server in servers.values()),
        servers=servers,
    )


class Meter:
    """The load of one process since the last sample. `told`: the counters of the last sample, which a daemon
    that takes over begins from."""

    def __init__(self, service: ServiceKey, first: Reading) -> None:
        self._service = service
        self.told = self.last = first
        self._faults = 0
        self._in_flight = self._queued = 0.0
        self._ended: list[Ended] = []
        self._waiting: deque[tuple[float, int]] = deque()
        """Readings while there was a queue: when, and how many had arrived."""

    @property
    def since(self) -> float:
        """When the last sample ended."""
        return self.told.at

    def feed(self, reading: Reading) -> None:
        """Take a newer reading."""
        span = max(0.0, reading.at - self.last.at) / 2
        self._in_flight += span * (self.last.in_flight + reading.in_flight)
        self._queued += span * (self.last.queued + reading.queued)
        before = self.last.servers
        self._faults += sum(
            server.faults - (before[name].faults if name in before else 0)
            for name, server in reading.servers.items()
        )
        if reading.queued:
            self._waiting.append((reading.at, reading.arrivals))
        else:
            self._waiting.clear()
        self.last = reading

    def rested(self, until: float) -> None:
        """Nothing has happened since the last reading."""
        self.last = replace(self.last, at=until)

    def ended(self, one: Ended) -> None:
        """A request has ended, as it was logged."""
        self._ended.append(one)

    @property
    def quiet(self) -> bool:
        """Whether nothing at all has happened since the last sample."""
        nothing = not (self._in_flight or self._queued or self._ended)
        return (
            nothing
            and self.last.idle
            and self.last.arrivals == self.told.arrivals
            and self.last.codes == self.told.codes
        )

    def take(self) -> LoadSample:
        """The sample up to the last reading; the next one begins there."""
        last, told = self.last, self.told
        aborted = last.aborted - told.aborted
        completions = max(0, last.answers - told.answers - aborted) + self._faults
        served, waited = _means(self._ended)
        sample = LoadSample(
            service=self._service,
            start=told.at,
            end=last.at,
            in_flight=last.in_flight,
            queued=last.queued,
            in_flight_seconds=self._in_flight,
            queued_seconds=self._queued,
            arrivals=last.arrivals - told.arrivals,
            completions=completions,
            service_seconds=self._in_flight if served is None else served * completions,
            wait_seconds=self._queued if waited is None else waited * completions,
            oldest_wait=self._oldest(),
            codes=_codes([now - before for now, before in zip(last.codes, told.codes, strict=True)], aborted),
            latency=_histogram(self._ended),
            workers={worker_of(name): server.busy for name, server in last.servers.items()},
        )
        self.told = last
        self._faults = 0
        self._in_flight = self._queued = 0.0
        self._ended.clear()
        return sample

    def _oldest(self) -> float:
        """The first in a FIFO queue of n is the one after which n-1 others have arrived."""
        if not self.last.queued or not self._waiting:
            return 0.0
        number = self.last.arrivals - self.last.queued + 1
        while len(self._waiting) > 1 and self._waiting[0][1] < number:
            self._waiting.popleft()
        return self.last.at - self._waiting[0][0]


def _codes(counts: Sequence[int], aborted: int) -> Mapping[str, int]:
    """Answers by class. HAProxy notes a request that was given up as 4xx if nothing of an answer had come."""
    found = dict(zip(_NAMES, counts, strict=True))
    for name in ("4xx", "2xx", "5xx"):
        moved = min(found[name], aborted)
        found[name] -= moved
        found["aborted"] += moved
        aborted -= moved
    return {name: count for name, count in found.items() if count > 0}


def _means(ended: Sequence[Ended]) -> tuple[float | None, float | None]:
    """Mean seconds in a worker and in the queue of those that a worker answered; None if nothing is known."""
    answered = [one for one in ended if one.answered]
    weight = sum(one.weight for one in answered)
    if not weight:
        return None, None
    waited = sum(one.waited * one.weight for one in answered) / weight
    total = sum(one.total * one.weight for one in answered) / weight
    return max(0.0, total - waited), waited


def _histogram(ended: Sequence[Ended]) -> Mapping[float, int]:
    counts: Counter[float] = Counter()
    for one in ended:
        if one.answered:
            counts[next((bound for bound in BOUNDS if one.total <= bound), float("inf"))] += one.weight
    return dict(counts)


def worker_of(server: str) -> str:
    """The worker that a server of that name stands for."""
    return server.partition(":")[0]


def remember(reading: Reading) -> str:
    """The counters of a reading as a value that the process keeps for the next daemon."""
    counts = (reading.arrivals, reading.answers, reading.aborted, *reading.codes)
    return ".".join(map(str, (int(reading.at * 1000), *counts)))


def recall(text: str) -> Reading | None:
    """That reading, without its servers; None for what is none."""
    try:
        at, arrivals, answers, aborted, *codes = (int(number) for number in text.split("."))
    except ValueError:
        return None
    if len(codes) != len(_CLASSES):
        return None
    return Reading(at / 1000, arrivals, tuple(codes), answers, aborted)
