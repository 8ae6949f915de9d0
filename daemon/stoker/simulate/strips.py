"""A run in a terminal: one line of bars each for replicas, load, queue and late requests. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from stoker.simulate.replay import Outcome

_BARS = "▁▂▃▄▅▆▇█"


def strips(outcome: Outcome, columns: int) -> list[str]:
    """Lines no wider than `columns` (at least 40): the highest value of each stretch of time as a bar, and
    the highest of all in figures. An empty stretch stays blank."""
    width = max(40, columns) - 26
    end = max(outcome.ended, 1.0)

    def place(at: float) -> int:
        return min(width - 1, int(at / end * width))

    trace, limit = outcome.case.trace, outcome.case.slo_wait
    late = [0.0] * width
    for at, wait in zip(trace.arrivals, outcome.waits, strict=True):
        late[place(at)] += wait > limit
    moments = outcome.moments
    rows = (
        ("replicas", _steps(outcome, width, place)),
        ("in flight", _peaks([(m.at, m.in_flight) for m in moments], width, place)),
        ("queued", _peaks([(m.at, m.queued) for m in moments], width, place)),
        ("late", late),
    )
    lines = [f"{name:>9} {_bars(values)} up to {max(values):g}" for name, values in rows]
    hours = f"{end / 3600:.1f} h" if end >= 3600 else f"{end / 60:.0f} min"
    return [*lines, " " * 10 + "0" + hours.rjust(width - 1)]


def _steps(outcome: Outcome, width: int, place: Callable[[float], int]) -> list[float]:
    """The most replicas of each stretch; a count stands until the next one."""
    found = [0.0] * width
    for (at, *counts), (until, *_) in pairwise(outcome.tally.timeline):
        for index in range(place(at), place(until) + 1):
            found[index] = max(found[index], float(sum(counts)))
    return found


def _peaks(values: Sequence[tuple[float, int]], width: int, place: Callable[[float], int]) -> list[float]:
    found = [0.0] * width
    for at, value in values:
        index = place(at)
        found[index] = max(found[index], float(value))
    return found


def _bars(values: Sequence[float]) -> str:
    most = max(values)
    return "".join(" " if not value else _BARS[round(value / most * (len(_BARS) - 1))] for value in values)
