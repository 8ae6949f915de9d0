"""Answers of which all can be used: they wait, for a short while, until what they tell is so."""

from __future__ import annotations

import anyio

from stoker.api.facade import DaemonFacade, Snapshot
from stoker.model.service import ServiceKey

PATIENCE = 2.0
"""Seconds that an answer waits at most."""


class Settling:
    """What was waited for in vain nobody waits for again."""

    def __init__(self, facade: DaemonFacade) -> None:
        self._facade = facade
        self._late: set[ServiceKey] = set()

    async def settled(self) -> Snapshot:
        """The present state, where a daemon that has just begun has judged its first configuration, before
        which it has no services, and the router listens at the addresses that are told."""
        count, now = 0, self._facade.snapshot()
        with anyio.move_on_after(PATIENCE):
            while _beginning(now) or not self._late.issuperset(now.opening):
                count = await self._facade.changed(count)
                now = self._facade.snapshot()
        self._late = set(now.opening)
        return now


def _beginning(now: Snapshot) -> bool:
    return now.config_state == "in-force" and not now.desired.generation
