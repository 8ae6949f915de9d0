"""Births that have begun before their order: for the replica that is about to follow one that failed."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stoker_process.cgroups import CgroupTrees
from stoker_process.spawner import Birth, Order, Parked, Spawner


@dataclass(slots=True)
class Spare:
    """A child that waits in its cgroup for what it is to become, until it is `used`."""

    parked: Parked
    cgroup: Path
    used: bool = False


class Spares:
    """At most one for each replica. Only where workers are born in cgroups of v2: elsewhere a birth takes
    other steps. `create` makes a cgroup for a replica, None if it cannot."""

    def __init__(
        self, spawner: Spawner, cgroups: CgroupTrees | None, create: Callable[[str], Path | None]
    ) -> None:
        self._spawner = spawner
        self._cgroups = cgroups if cgroups is not None and cgroups.hierarchy.unified else None
        self._create = create
        self._waiting: dict[str, Spare] = {}

    def make(self, replica: str) -> Spare | None:
        """Begin a birth for that replica, if it can be; to be taken or given up."""
        if self._cgroups is None or replica in self._waiting:
            return None
        cgroup = self._create(replica)
        if cgroup is None:
            return None
        directory = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        parked = self._spawner.park(directory)
        os.close(directory)
        if parked is None:
            self._cgroups.remove(cgroup)
            return None
        spare = self._waiting[replica] = Spare(parked, cgroup)
        return spare

    def take(self, replica: str) -> Spare | None:
        """That of the replica, if there is one; the caller's from now on."""
        return self._waiting.pop(replica, None)

    async def give_up(self, replica: str, spare: Spare) -> None:
        """Nobody took it in time."""
        if self._waiting.get(replica) is spare:
            del self._waiting[replica]
            await self.dismiss(spare)

    async def dismiss(self, spare: Spare) -> None:
        """One that was taken is not needed. Its cgroup goes with it, unless it is used."""
        if spare.used:
            return
        spare.used = True
        await self._spawner.dismiss(spare.parked)
        if self._cgroups is not None:
            await self._cgroups.empty(spare.cgroup)

    async def become(self, spare: Spare, order: Order, log: int) -> Birth | None:
        """Let it be what is ordered; None if it has ended meanwhile. Raises WorkerError."""
        spare.used = True
        return await self._spawner.order(spare.parked, order, log)

    async def aclose(self) -> None:
        """Give up all."""
        for replica, spare in list(self._waiting.items()):
            await self.give_up(replica, spare)
