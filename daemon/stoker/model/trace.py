"""A request as its caller's trace tells of it: what a router measures of its own hop."""

from __future__ import annotations

from dataclasses import dataclass

from stoker.model.service import ServiceKey


@dataclass(frozen=True, slots=True)
class FailedTry:
    """A try that came to nothing. `at`: monotonic seconds; `worker`: the replica."""

    at: float
    worker: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSpan:
    """One request that has ended. `trace`, `span` and `parent` (the caller's span, "" if the trace begins
    here) are ids in hexadecimal; `arrived`, `began` (its answer; 0: never) and `ended` monotonic seconds,
    `waited` seconds in the queue. `status` is that of its answer, 0 if its client gave it up; `worker` the
    replica that had it last, "" if none."""

    trace: str
    span: str
    parent: str
    service: ServiceKey
    arrived: float
    waited: float
    began: float
    ended: float
    status: int
    method: str
    path: str
    host: str
    client: str
    agent: str
    worker: str
    tries: int
    failed: tuple[FailedTry, ...] = ()


@dataclass(frozen=True, slots=True)
class SpanBatch:
    """Requests that were told together, and how many more had ended and were not told, because their reader
    did not read."""

    spans: tuple[RequestSpan, ...] = ()
    dropped: int = 0
