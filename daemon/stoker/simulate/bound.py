"""What a load would cost with perfect foreknowledge: the yardstick for every policy. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heapreplace

from stoker.simulate.trace import Trace


def clairvoyant(
    trace: Trace, *, slots: int | None, slo_wait: float, startup: float, min_replicas: int = 1
) -> float:
    """Return the replica-seconds of a schedule in which no request waits longer than `slo_wait`.

    Each request goes to the first replica that can begin it in time; replicas start just in time (the
    start-up is paid, nobody waits for it) and end over gaps longer than a start-up. It is feasible, so the
    true optimum is at most this; a policy that lets requests wait longer may cost less.
    """
    busy = _first_fit(trace, slots or len(trace) + 1, slo_wait)
    end = max((at + seconds for at, seconds in zip(trace.arrivals, trace.services, strict=True)), default=0.0)
    total = min_replicas * end
    for intervals in busy[min_replicas:]:
        total += startup + _paid(intervals, startup)
    return total


def _first_fit(trace: Trace, slots: int, slo_wait: float) -> list[list[list[float]]]:
    """Per replica its busy intervals, in order and merged."""
    free: list[list[float]] = []
    busy: list[list[list[float]]] = []
    for arrival, seconds in zip(trace.arrivals, trace.services, strict=True):
        for replica, ends in enumerate(free):
            if ends[0] <= arrival + slo_wait:
                begin = max(arrival, ends[0])
                heapreplace(ends, begin + seconds)
                _occupy(busy[replica], begin, begin + seconds)
                break
        else:
            ends = [arrival + seconds, *[arrival] * (min(slots, len(trace)) - 1)]
            heapify(ends)
            free.append(ends)
            busy.append([[arrival, arrival + seconds]])
    return busy


def _occupy(intervals: list[list[float]], begin: float, end: float) -> None:
    last = intervals[-1]
    if begin <= last[1]:
        last[1] = max(last[1], end)
    else:
        intervals.append([begin, end])


def _paid(intervals: Sequence[Sequence[float]], startup: float) -> float:
    """Seconds of one replica after its first start: gaps are kept over, or a start-up is paid."""
    total, last = 0.0, intervals[0][0]
    for begin, end in intervals:
        total += min(begin - last, startup) + end - begin
        last = end
    return total
