"""What somebody may do with the daemon: look, or operate. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

Role = Literal["view", "operate"]
"""`view` reads all that the API tells; `operate` changes what runs, and so may start any command."""
ROLES: tuple[Role, ...] = ("operate", "view")
LOOKING = frozenset({"GET", "HEAD"})
"""Methods that change nothing here. Whatever else there may come to be wants `operate`."""


def may(role: Role, method: str) -> bool:
    """Whether that role may send such a request."""
    return role == "operate" or method in LOOKING


class Allowance:
    """Tells whoever asks too fast to wait: a bucket for each peer, `burst` deep and filled at `rate` a
    second. `now` gives monotonic seconds."""

    def __init__(self, now: Callable[[], float], *, rate: float, burst: float, most: int = 1024) -> None:
        self._now = now
        self._rate = rate
        self._burst = burst
        self._most = most
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, peer: str) -> bool:
        """Whether that peer may ask once more."""
        now = self._now()
        left, at = self._buckets.pop(peer, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._rate)
        granted = left >= 1
        self._buckets[peer] = (left - 1 if granted else left, now)
        if len(self._buckets) > self._most:
            del self._buckets[next(iter(self._buckets))]  # whoever was silent for the longest time
        return granted
