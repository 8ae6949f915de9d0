"""Watches who is on the devices: workers must be on theirs alone, and a device is free again only when the
driver no longer shows the worker that left.

Driven by events alone: it looks when the devices change, and asks the driver anew when a worker on a GPU
has ended. Nothing here wakes a box at rest.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace

import anyio
from anyio.abc import TaskGroup

from stoker.decide.pinning import (
    Astray,
    Departure,
    Holder,
    answers,
    astray,
    balanced,
    is_hidden,
    lingers,
    settled,
    still_there,
    unseen,
    withhold,
)
from stoker.decide.promises import Excess, excesses
from stoker.model.device import Inventory
from stoker.model.event import (
    Event,
    InventoryChanged,
    Notice,
    SpawnFailed,
    StartRequested,
    WorkerAdopted,
    WorkerCondemned,
    WorkerExited,
    WorkerSpawned,
)
from stoker.model.service import ServiceKey

PATIENCE = 30.0
"""Seconds a device is kept for a worker that has ended but is still shown on it."""
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 2.0
"""Seconds between two questions to the driver while such a one is there."""

Identify = Callable[[Inventory, Mapping[int, str]], Inventory]


class DeviceGate:
    """`identify` tells to which worker each process belongs; `refresh` makes the device sources look anew,
    `publish` lays `over` over what they told last and tells the control loop. After `patience` seconds a
    device is given on whatever the driver shows. `strict`: whether workers of a service that are astray are
    stopped; `judge` is told at each look who takes more than was promised to it; `keep` is told who has ended
    and may still be on its devices, whenever that changes."""

    def __init__(
        self,
        *,
        tasks: TaskGroup,
        identify: Identify,
        refresh: Callable[[], Awaitable[None]],
        publish: Callable[[], None],
        post: Callable[[Event], None],
        patience: float = PATIENCE,
        strict: Callable[[ServiceKey], bool] = lambda service: False,
        judge: Callable[[Iterable[Excess]], None] = lambda found: None,
        keep: Callable[[Iterable[Departure]], None] = lambda departures: None,
    ) -> None:
        self._tasks = tasks
        self._identify = identify
        self._refresh = refresh
        self._publish = publish
        self._post = post
        self._patience = patience
        self._strict = strict
        self._judge = judge
        self._keep = keep
        self._found = Inventory()
        self._news = anyio.Event()
        """Set when the driver is heard of again."""
        self._holders: dict[str, Holder] = {}
        self._told: set[tuple[str, int, str]] = set()
        self._departures: dict[object, Departure] = {}

    def over(self, inventory: Inventory) -> Inventory:
        """The inventory with the owner of each process, and without the devices that are not free yet."""
        self._found = self._identify(inventory, self._workers())
        news, self._news = self._news, anyio.Event()
        news.set()
        return withhold(self._found, self._departures.values())

    def _workers(self) -> dict[int, str]:
        return {holder.pid: replica for replica, holder in self._holders.items() if holder.pid is not None}

    def after_event(self, event: Event) -> None:
        """Listen to the control loop."""
        match event:
            case StartRequested() | WorkerAdopted():
                if isinstance(event, WorkerAdopted):
                    self._stays(event.replica)
                beginner = Holder(
                    replica=event.replica,
                    service=event.service,
                    devices=tuple(given.uuid for given in event.reservations),
                    pid=event.handle.pid if isinstance(event, WorkerAdopted) else None,
                    promises=tuple(
                        (given.uuid, given.memory)
                        for given in event.reservations
                        if given.share < 1 and given.memory is not None
                    ),
                )
                self._holders[event.replica] = balanced(
                    beginner, settled(self._found, self._holders.values())
                )
            case WorkerSpawned() if event.replica in self._holders:
                known = self._holders[event.replica]
                self._holders[event.replica] = replace(known, pid=event.handle.pid)
            case WorkerExited():
                self._left(event.replica)
            case SpawnFailed():
                self._holders.pop(event.replica, None)
            case InventoryChanged():
                self._verify()

    def _verify(self) -> None:
        """Find out who is on the devices, and tell of each worker that is on a stranger's, once."""
        workers = self._workers()
        owners = {
            process.pid: process.owner or workers.get(process.pid, "")
            for device in self._found.devices
            for process in device.processes
        }
        for pid, replica in owners.items():
            if replica in self._holders:
                known = self._holders[replica]
                self._holders[replica] = replace(known, pids=known.pids | {pid})
        free = settled(self._found, self._holders.values())
        self._holders = {replica: balanced(holder, free) for replica, holder in self._holders.items()}
        for wrong in astray(self._found, self._holders, owners):
            key = (wrong.holder.replica, wrong.holder.pid or 0, wrong.device)
            if key not in self._told:
                self._told.add(key)
                self._tell(wrong)
        self._judge(excesses(self._found, self._holders, owners))

    def _tell(self, wrong: Astray) -> None:
        holder = wrong.holder
        if self._strict(holder.service):
            self._post(
                WorkerCondemned(
                    replica=holder.replica, service=holder.service, fault="astray", reason=str(wrong)
                )
            )
        else:
            self._post(Notice(message=str(wrong), severity="warning", service=holder.service))

    def _left(self, replica: str) -> None:
        """A worker has ended: its devices are kept until the driver was asked and shows it no more."""
        holder = self._holders.pop(replica, None)
        self._told = {key for key in self._told if key[0] != replica}
        if holder is None or not holder.devices:
            return
        pids = holder.pids | ({holder.pid} if holder.pid is not None else set())
        shown = (
            p for device in self._found.devices if device.uuid in holder.devices for p in device.processes
        )
        self.depart(
            Departure(
                replica=replica,
                service=holder.service,
                devices=holder.devices,
                pids=pids,
                strangers=frozenset(process.pid for process in shown if unseen(process)) - pids,
                unclaimed=holder.unclaimed,
            )
        )

    def depart(self, departure: Departure) -> None:
        """See a worker off: one that has ended, or one of the daemon before, as long as it is not adopted."""
        key = object()
        self._departures[key] = departure
        self._keep(self._departures.values())
        self._publish()
        self._tasks.start_soon(self._see_off, key, departure)

    def _stays(self, replica: str) -> None:
        """That worker lives, and holds its devices itself."""
        others = {key: one for key, one in self._departures.items() if one.replica != replica}
        if len(others) != len(self._departures):
            self._departures = others
            self._keep(others.values())
            self._publish()

    async def _see_off(self, key: object, departure: Departure) -> None:
        """Ask the driver until the worker is gone from its devices, or patience ends. As long as it does not
        answer for them nothing is known, and nothing is given on."""
        pause, ends_at = FIRST_PAUSE, math.inf
        while key in self._departures:
            news = self._news
            with anyio.move_on_after(self._patience) as looking:
                await self._refresh()
            if not answers(self._found, departure.devices):
                await news.wait()
                continue
            ends_at = min(ends_at, anyio.current_time() + self._patience)
            overdue = looking.cancelled_caught or anyio.current_time() >= ends_at
            departure = replace(departure, looked=not looking.cancelled_caught)
            shown, hidden = lingers(self._found, departure), is_hidden(self._found, departure)
            if overdue or not (shown or hidden):
                self._gone(key, self._overdue(departure) if overdue and not hidden else "")
            elif key in self._departures:
                self._departures[key] = departure
                self._publish()
                await anyio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    def _gone(self, key: object, trouble: str) -> None:
        """Nobody is on the devices any more, or must be taken for gone."""
        departure = self._departures.pop(key, None)
        self._keep(self._departures.values())
        if departure is not None and trouble:
            self._post(Notice(message=trouble, severity="warning", service=departure.service))
        self._publish()

    def _overdue(self, departure: Departure) -> str:
        where = ", ".join(departure.devices)
        pids = ", ".join(map(str, still_there(self._found, departure)))
        what = f"pid {pids} is still shown on {where}" if pids else lingers(self._found, departure)
        if not what:
            what = f"the driver does not answer for {where}"
        return f"{departure.replica} ended {self._patience:g} s ago, but {what}; it is given on all the same"
