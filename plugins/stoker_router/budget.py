"""How many requests may be sent a third time and more. Pure; `now` is passed in.

The first retry of a request is free: it at most doubles the load, and the death of a worker with everything
that it has must cost nothing. Those after it are what makes a storm when all workers fail.
"""

from __future__ import annotations

PER_ARRIVAL = 0.2
PER_SECOND = 10.0
MOST = 100.0
"""Retries that can be saved up."""


class RetryBudget:
    """Retries beyond the first: a fifth of all arrivals, and ten a second."""

    __slots__ = ("_at", "_saved", "_seen")

    def __init__(self, now: float) -> None:
        self._saved = MOST
        self._at = now
        self._seen = 0

    def spend(self, now: float, arrivals: int) -> bool:
        """Take one; False if there is none. `arrivals` counts all there ever were."""
        earned = (now - self._at) * PER_SECOND + (arrivals - self._seen) * PER_ARRIVAL
        self._saved = min(MOST, self._saved + earned)
        self._at, self._seen = now, arrivals
        if self._saved < 1:
            return False
        self._saved -= 1
        return True
