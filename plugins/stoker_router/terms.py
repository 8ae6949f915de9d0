"""What a service that has rules about its requests notes of one."""

from __future__ import annotations

from math import inf

from stoker_router.access import Trail


class Terms:
    """`priority`: served before others with a lower one. `room`: bytes of the body that may still come.
    `trail`: what goes into the access log."""

    __slots__ = ("priority", "room", "trail")

    def __init__(self) -> None:
        self.priority = 0
        self.room = inf
        self.trail: Trail | None = None


PLAIN = Terms()
"""Shared by all requests of services without rules, and never changed."""
