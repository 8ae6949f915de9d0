"""What comes every hour at the same minute: jobs that other people's clocks start. Pure.

The hour is cut into bins. Each remembers how far the load rose in it above its level of the last ten minutes,
in the last two hours. What both saw is expected again, the higher of two that are alike; what came once is
chance. So twice an hour is learned as well, and every five minutes, each after two hours.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import Any

Memory = dict[str, Any]

PERIOD = 3600.0
BIN = 10.0
BINS = round(PERIOD / BIN)
EARLY = 3.0
"""Seconds that what is expected may come sooner or later."""
_STEADY = 600.0
_LOWEST = 0.05
"""Slots; a load that rises from nothing rises by this many times over."""


def fresh() -> Memory:
    """Nothing known."""
    return {
        "latest": [0.0] * BINS, "former": [0.0] * BINS, "bin": -1, "rise": 0.0, "ground": 0.0, "steady": -1.0,
        "again": [],
    }  # fmt: skip


def observe(memory: Memory, now: float, dt: float, age: float, *, level: float, load: float) -> None:
    """Take `dt` seconds up to `now` in: the mean demand and what it asked of the pool."""
    if memory["steady"] < 0:
        memory["steady"] = level
    part = 1 - math.exp(-dt / min(_STEADY, max(age, 30.0)))
    memory["steady"] += part * (level - memory["steady"])
    place = int(now / BIN)
    if place != memory["bin"]:
        _close(memory, place)
    memory["rise"] = max(memory["rise"], load / memory["ground"])


def expected(memory: Memory, since: float, until: float) -> float:
    """Slots that will be asked for between the two times, as far as the last two hours agree; else 0."""
    latest, former = memory["latest"], memory["former"]
    rise = 0.0
    for place in range(int((since - EARLY) / BIN), int((until + EARLY) / BIN) + 1):
        low, high = sorted((latest[place % BINS], former[place % BINS]))
        rise = max(rise, high if low > high / 2 else low)
    return rise * max(_LOWEST, float(memory["steady"]))


def next_time(memory: Memory, now: float, ahead: float) -> float | None:
    """When, at rest, the next thing comes into sight that is expected; None: nothing, or it is already."""
    if memory["steady"] < 0:
        return None
    again = memory["again"] if "again" in memory else _habits(memory["latest"], memory["former"])
    if not again:
        return None
    first = int((now + ahead + EARLY) / BIN) + 1
    turn, place = divmod(first, BINS)
    following = bisect_left(again, place)
    if following == len(again):
        turn, following = turn + 1, 0
    at: float = (turn * BINS + again[following]) * BIN - ahead - EARLY
    return at


def _habits(latest: Sequence[float], former: Sequence[float]) -> list[int]:
    """The bins, in order, in which something is expected that begins from nothing."""
    return [place for place in range(BINS) if _comes_again(latest[place], former[place])]


def _comes_again(latest: float, former: float) -> bool:
    return min(latest, former) * _LOWEST > _LOWEST


def _close(memory: Memory, place: int) -> None:
    """Keep what the bin saw that is over, and that those saw nothing in which nobody looked."""
    last = memory["bin"]
    if last >= 0:
        latest, former = list(memory["latest"]), list(memory["former"])
        # Kept from bin to bin: who asks each second must not look through the whole hour each time.
        again = list(memory["again"]) if "again" in memory else _habits(latest, former)
        for offset in range(min(place - last, 2 * BINS)):
            index = (last + offset) % BINS
            former[index], latest[index] = latest[index], 0.0 if offset else memory["rise"]
            known = _comes_again(latest[index], former[index])
            if known != (index in again):
                insort(again, index) if known else again.remove(index)
        memory.update(latest=latest, former=former, again=again)
    memory.update({"bin": place, "rise": 0.0, "ground": max(_LOWEST, memory["steady"])})
