"""Answers of which all can be used: they wait, for a short while, until what they tell is so."""

from __future__ import annotations

from collections.abc import Callable

import anyio

from stoker.api.facade import DaemonFacade, Snapshot
from stoker.model.device import Inventory
from stoker.model.service import ServiceKey

READING = 15.0
"""Seconds that an answer waits at most for a first configuration: what declares it may be slow to import."""
PATIENCE = 2.0
"""Seconds that it then waits at most for the devices to be seen and for addresses to be open."""
_UNSEEN = Inventory()


class Settling:
    """What was waited for in vain nobody waits for again."""

    def __init__(self, facade: DaemonFacade) -> None:
        self._facade = facade
        self._late: set[ServiceKey] = set()
        self._blind = False

    async def begun(self) -> None:
        """Return once a daemon that has just begun has judged its first configuration, before which it has
        no services, and has seen its devices."""
        await self._until(lambda now: not _beginning(now), READING)
        if not self._blind:
            await self._until(_seen, PATIENCE)
            self._blind = not _seen(self._facade.snapshot())

    async def settled(self) -> Snapshot:
        """The present state, where the router listens at the addresses that are told."""
        await self._until(lambda now: self._late.issuperset(now.opening), PATIENCE)
        now = self._facade.snapshot()
        self._late = set(now.opening)
        return now

    async def _until(self, so: Callable[[Snapshot], bool], patience: float) -> None:
        count = 0
        with anyio.move_on_after(patience):
            while not so(self._facade.snapshot()):
                count = await self._facade.changed(count)


def _beginning(now: Snapshot) -> bool:
    return now.config_state == "in-force" and not now.desired.generation


def _seen(now: Snapshot) -> bool:
    return now.observed.inventory != _UNSEEN
