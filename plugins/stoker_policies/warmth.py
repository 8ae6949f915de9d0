"""How long a replica that is not needed is worth keeping: learned from how soon it was needed again. Pure.

Level k is "the k-th replica". Each level remembers the gaps between its uses; the timeout is the one that
would have cost least over these gaps, where a restart costs as much as `worth` seconds of an idle replica
(the ski-rental problem). Nothing learned yet: a timeout of that worth, at most twice the best in hindsight.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Memory = dict[str, Any]

LONGEST = 3600.0
"""Seconds; a level that is needed more rarely is not kept for that."""
_GAPS = 40
_ENOUGH = 3
_SHORTEST = 2.0
"""A gap of a tick or two is the measurement's, not the load's."""


def fresh(now: float, present: int) -> Memory:
    """All replicas that are there count as used up to now."""
    levels = {"until": [now] * present, "gaps": [[]] * present, "timeouts": [None] * present}
    return {"needed": present, "worth": 0.0, **levels}


def use(memory: Memory, needed: int, before: float, now: float) -> None:
    """So many replicas are needed at `now`; the last look was at `before`."""
    last = memory["needed"]
    if needed == last:
        return
    new = max(0, needed - len(memory["until"]))
    until, gaps = memory["until"] + [None] * new, memory["gaps"] + [[]] * new
    timeouts = memory["timeouts"] + [None] * new
    for level in range(last, needed):
        left_at = until[level]
        if left_at is not None and now - left_at > _SHORTEST:
            gaps[level] = [*gaps[level], now - left_at][-_GAPS:]
            timeouts[level] = None
    for level in range(needed, last):
        until[level] = before
    memory.update(needed=needed, until=until, gaps=gaps, timeouts=timeouts)


def kept(
    memory: Memory, most: int, worth: float, now: float, *, least: float = 0.0
) -> tuple[int, float | None]:
    """Return how many replicas to have, up to `most`, and when the uppermost of those not needed may go.
    None goes earlier than `least` seconds after it was needed."""
    if memory["worth"] != worth:
        memory.update(worth=worth, timeouts=[None] * len(memory["until"]))
    needed = memory["needed"]
    for level in range(min(most, len(memory["until"])), needed, -1):
        left_at = memory["until"][level - 1]
        if left_at is not None:
            ends = left_at + max(least, _learned(memory, level - 1))
            if now <= ends:
                return level, ends
    return min(needed, most), None


def _learned(memory: Memory, index: int) -> float:
    """The level's timeout, worked out once for its gaps."""
    known = memory["timeouts"][index]
    if known is None:
        known = timeout(memory["gaps"][index], memory["worth"])
        timeouts = memory["timeouts"]
        memory["timeouts"] = [*timeouts[:index], known, *timeouts[index + 1 :]]
    found: float = known
    return found


def timeout(gaps: Sequence[float], worth: float) -> float:
    """Seconds a level is kept after its last use."""
    if len(gaps) < _ENOUGH:
        return min(worth, LONGEST)
    ordered, count = sorted(gaps), len(gaps) + 1
    best, chosen, waited = worth, 0.0, 0.0
    for i, gap in enumerate(ordered):
        if gap > LONGEST:
            break
        waited += gap
        cost = (waited + (count - i - 1) * (gap + worth)) / count
        if cost < best:
            best, chosen = cost, gap
    return min(LONGEST, chosen * 1.05 + 1)
