"""Looks at one process for as long as it lives: its load, its draining workers, its end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

import anyio

from stoker.errors import RouterError
from stoker.model.load import LoadSample
from stoker.model.service import ServiceKey
from stoker.plugin.processes import gone
from stoker_haproxy.process import Unanswered
from stoker_haproxy.unit import Unit

STEP, HASTE = 0.1, 0.02
"""Seconds between two readings while there is load, and while a worker drains or leaves."""
EAGER, LOOKS = 0.002, 10
"""Seconds between two readings, so many of them, for a request that was announced to be counted."""
SAMPLE_EVERY = 1.0
"""Seconds between two samples."""
PATIENCE = 5.0
"""Seconds in which connections to a process that was replaced may still send a request."""
FIRST_BACKOFF, MAX_BACKOFF = 0.05, 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ears:
    """Whom watches tell."""

    sample_every: float
    sample: Callable[[Watch, LoadSample], None]
    demand: Callable[[ServiceKey], None]
    drained: Callable[[Watch, str], None]
    trouble: Callable[[ServiceKey, str], None]
    finished: Callable[[Watch], Awaitable[None]]
    replaced: Callable[[], None]
    """A process that ended has a successor."""


class Watch:
    """What is done for one unit. `leaving`: another has its address (or nobody); it ends when it has nothing
    left."""

    def __init__(self, unit: Unit, ears: Ears) -> None:
        self.unit = unit
        self._ears = ears
        self.leaving = False
        self._patience = 0.0
        self._left = 0.0
        self.asleep = False
        """At rest: nothing runs until it is stirred."""
        self._announced = 0
        """Readings that are still owed to a request."""

    async def leave(self, patience: float = PATIENCE) -> None:
        """Let it finish what it has; for at least `patience` seconds connections may bring more."""
        self.leaving, self._patience, self._left = True, patience, anyio.current_time()
        await self.unit.leave()

    async def measure(self) -> None:
        """Read while there is load; sleep while there is none. Returns when the unit is over."""
        unit = self.unit
        while not unit.over:
            try:
                reading = await unit.look()
            except Unanswered:
                await anyio.sleep(STEP)  # it ended, and will be started again
                continue
            for worker in unit.servers.drained(reading):
                self._ears.drained(self, worker)
            if reading.queued and not unit.servers.serving:
                self._announced = 0
                self._ears.demand(unit.identity.service)
            if self.leaving and reading.idle and reading.at - self._left >= self._patience:
                await self._ears.finished(self)
                return
            await self._report()
            await self._pause()

    async def _pause(self) -> None:
        unit = self.unit
        if self._announced:
            self._announced -= 1
            await anyio.sleep(EAGER)
            return
        unit.stirred = anyio.Event()
        with suppress(Unanswered):  # it ended, and will be started again
            if unit.servers.serving == 0 and unit.meter.last.idle:
                await unit.announce()
        with anyio.move_on_after(HASTE if unit.servers.ending or self.leaving else STEP):
            await unit.stirred.wait()

    def announced(self) -> None:
        """The process says that a request has come; it is a moment until that is counted."""
        self._announced = LOOKS
        self.unit.announcing = False
        self.unit.stir()

    async def _report(self) -> None:
        """Tell the load when it is time, and go to sleep where there is none."""
        unit = self.unit
        if unit.meter.last.at - unit.meter.since < self._ears.sample_every:
            return
        quiet = unit.meter.quiet
        self._ears.sample(self, unit.meter.take())
        try:
            await unit.remember()
            if not quiet or unit.servers.ending or self.leaving or not await unit.rest():
                return
        except Unanswered:
            return
        self.asleep = True
        await unit.stirred.wait()
        self.asleep = False
        if not unit.over:
            await self._wake()

    async def _wake(self) -> None:
        """The sample that begins now says what happens from now on; the rest before has one of its own."""
        unit = self.unit
        unit.meter.rested(anyio.current_time())
        self._ears.sample(self, unit.meter.take())

    async def guard(self) -> None:
        """Start it again when it ends without having been told to. Returns when the unit is over."""
        unit, backoff = self.unit, FIRST_BACKOFF
        while True:
            pid = unit.identity.pid
            await gone(pid)
            if unit.over:
                return
            if self.leaving:
                await self._ears.finished(self)
                return
            said = ""
            while not unit.over:
                try:
                    await unit.restart()
                    break
                except RouterError as error:
                    if str(error) != said:
                        said = str(error)
                        self._ears.trouble(unit.identity.service, said)
                    await anyio.sleep(backoff)
                    backoff = min(backoff * 2, MAX_BACKOFF)
            else:
                return
            backoff = FIRST_BACKOFF
            self._ears.replaced()
            ended = f"HAProxy (pid {pid}) ended; it runs again as pid {unit.identity.pid}"
            self._ears.trouble(unit.identity.service, ended)
