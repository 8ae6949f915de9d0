"""When a worker that failed is started again. Pure.

The first failure after a stable run is answered at once: most are accidents. Failures in a row wait
`backoff`, doubled each time up to `max_backoff`, with a tenth of jitter so that replicas that fail
together do not come back together. With the defaults: now, 1 s, 2 s, 4 s, 8 s (crash loop), 16 s ... 60 s.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from stoker.model.service import Restart

STABLE = 10.0
"""Seconds in service after which a run counts as stable, if it has not just waited longer than that."""
JITTER = 0.1
LOOP_PAUSE = 1.0
"""Seconds between starts in a crash loop, even where `backoff` is 0."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an end leads to: `failures` in a row with it, seconds to wait, whether it is a crash loop."""

    failures: int
    delay: float
    crash_loop: bool = False


def after_exit(restart: Restart, failures: int, *, served: float, key: str) -> Verdict:
    """Judge the end of a worker that was meant to run on. Pure.

    `failures`: in a row before this one. `served`: seconds since it became ready, 0 if it never did.
    `key` makes the jitter: the same replica always gets the same.
    """
    if served >= max(STABLE, _pause(restart, failures)):
        failures = 0
    count = failures + 1
    crash_loop = count >= restart.crash_loop
    delay = _pause(restart, count) * _jitter(key, count)
    if crash_loop:
        delay = max(delay, LOOP_PAUSE)
    return Verdict(count, delay, crash_loop)


def after_permanent_failure(restart: Restart, failures: int) -> Verdict:
    """Judge a start that cannot succeed as things stand (no such command): try again, but slowly. Pure."""
    count = failures + 1
    delay = max(restart.max_backoff, LOOP_PAUSE)
    return Verdict(count, delay, count >= restart.crash_loop)


def _pause(restart: Restart, failures: int) -> float:
    """Seconds to wait after that many failures in a row, before jitter."""
    if failures <= 1:
        return 0.0
    doublings = min(failures - 2, 64)
    return min(restart.backoff * 2.0**doublings, restart.max_backoff)


def _jitter(key: str, count: int) -> float:
    """A factor of 0.9 to 1.1 that depends on nothing but the replica and the failure."""
    digest = hashlib.sha256(f"{key}:{count}".encode()).digest()
    return 1.0 - JITTER + 2 * JITTER * int.from_bytes(digest[:4], "big") / 0xFFFFFFFF
