"""Holds sharers of a device to the memory they were promised: says it, waits, then drains the one that took
too much, never its neighbour."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

import anyio
from anyio.abc import TaskGroup

from stoker.decide.promises import Excess
from stoker.model.event import Event, Notice, WorkerCondemned
from stoker.model.quantity import format_duration

GRACE = 15.0
"""Seconds a worker gets to give back what it took beyond its promise."""


class DevicePromises:
    """`refresh` has the devices looked at anew, which ends in a call of `look`."""

    def __init__(
        self,
        *,
        tasks: TaskGroup,
        refresh: Callable[[], Awaitable[None]],
        post: Callable[[Event], None],
        grace: float = GRACE,
    ) -> None:
        self._tasks = tasks
        self._refresh = refresh
        self._post = post
        self._grace = grace
        self._now: dict[tuple[str, int | None], Excess] = {}
        self._warned: set[tuple[str, int | None]] = set()

    def look(self, excesses: Iterable[Excess]) -> None:
        """Take in who is beyond its promise now: warn of each that was not before."""
        self._now = {(excess.holder.replica, excess.holder.pid): excess for excess in excesses}
        for worker in self._now.keys() - self._warned:
            self._warned.add(worker)
            self._tasks.start_soon(self._hold_to_it, worker, self._now[worker])

    async def _hold_to_it(self, worker: tuple[str, int | None], excess: Excess) -> None:
        holder = excess.holder
        left = f"it is replaced in {format_duration(self._grace)} unless it gives that back"
        self._post(Notice(message=f"{excess}; {left}", severity="warning", service=holder.service))
        await anyio.sleep(self._grace)
        with anyio.move_on_after(self._grace):
            await self._refresh()
        still = self._now.get(worker)
        self._warned.discard(worker)
        if still is None:
            message = f"{holder.replica} is within its promise of {excess.device} again"
            self._post(Notice(message=message, service=holder.service))
            return
        self._post(
            WorkerCondemned(
                replica=holder.replica, service=holder.service, fault="memory", reason=str(still), gently=True
            )
        )
