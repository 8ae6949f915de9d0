"""Keeps what is held against each device, over the daemon's death too, and tells what follows from it.

Asks `decide.health` at every look at the devices, and by itself only when a case ends by time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import anyio
from anyio.abc import TaskGroup

from stoker.decide.health import IN_BED, Case, charted, kept, objection, pardon, revived, step
from stoker.errors import ConflictError
from stoker.model.device import Device, DeviceFault, Inventory
from stoker.model.event import (
    DeviceHealthChanged,
    Event,
    Notice,
    SpawnFailed,
    WorkerCondemned,
    WorkerExited,
)
from stoker.model.replica import Replica
from stoker.model.service import ServiceKey
from stoker.runtime.store import Store

OwnersOf = Callable[[Iterable[int], Mapping[int, str]], Mapping[int, str]]

NAME = "health"
"""Of the file in the state directory."""


class DeviceHealth:
    """`replicas` gives all replicas there are, `publish` has the devices told anew (through `over`); `boot`
    is the id of this boot; `let_go` lets the driver go for a moment, and says so, where a reset is due;
    `owners` tells the replica of a process."""

    def __init__(
        self,
        store: Store,
        *,
        tasks: TaskGroup,
        replicas: Callable[[], Iterable[Replica]],
        publish: Callable[[], None],
        post: Callable[[Event], None],
        boot: str,
        let_go: Callable[[], str] = lambda: "",
        owners: OwnersOf = lambda pids, workers: {},
    ) -> None:
        self._store = store
        self._tasks = tasks
        self._replicas = replicas
        self._publish = publish
        self._post = post
        self._boot = boot
        self._let_go = let_go
        self._owners = owners
        self._cases: Mapping[str, Case] | None = None
        """None until the first look: only then it is known what time it is."""
        self._seen: dict[str, int] = {}
        self._found = Inventory()
        self._alarm = anyio.CancelScope()
        self._alarm_at: float | None = None
        self._failed = False

    def over(self, inventory: Inventory) -> Inventory:
        """The inventory with what is held against its devices; tells and keeps what has changed."""
        now = anyio.current_time()
        cases = self._known(now)
        news = self._news(inventory)
        verdict = step(cases, inventory, news, now, users=self._users())
        known = {device.uuid: device for device in self._found.devices}
        before = (
            known.get(d.uuid, replace(d, health="healthy", health_reason="")) for d in inventory.devices
        )
        earlier = charted(replace(inventory, devices=tuple(before)), cases)
        self._found = inventory
        self._settle(verdict.cases)
        self._tell(earlier, charted(inventory, verdict.cases), news)
        if verdict.wake_at != self._alarm_at:
            self._wake(verdict.wake_at)
        return charted(inventory, verdict.cases)

    def pardon(self, uuid: str) -> bool:
        """End the quarantine of a device, or of all instances of it, by the operator's word, by way of
        probation; False if it is in none. Raises ConflictError if the driver still says that it is ill."""
        cases = self._known(anyio.current_time())
        ill = [
            device
            for device in self._found.devices
            if uuid in (device.uuid, device.parent) and device.health != "lost"
            if device.uuid in cases and cases[device.uuid].state in IN_BED
        ]
        if why := next((objection(device) for device in ill if objection(device)), ""):
            now = self._let_go()
            raise ConflictError(f"{uuid} cannot be used again yet: {why}" + (f"; {now}" if now else ""))
        for device in ill:
            self._absolve(device.uuid, cases[device.uuid])
        return bool(ill)

    def forgive(self, uuid: str) -> None:
        """Forget what made a device suspect, or unfit for sets, by the operator's word."""
        cases = self._known(anyio.current_time())
        for device in self._found.devices:
            case = cases.get(device.uuid)
            if uuid in (device.uuid, device.parent) and case is not None and case.state not in IN_BED:
                self._absolve(device.uuid, case)

    def after_event(self, event: Event) -> None:
        """Listen to the control loop: the last worker may have left a draining device."""
        ended = isinstance(event, WorkerExited | SpawnFailed)
        if ended and any(case.state == "draining" for case in (self._cases or {}).values()):
            self._publish()

    # -- parts -----------------------------------------------------------------------------------------

    def _known(self, now: float) -> Mapping[str, Case]:
        if self._cases is None:
            self._cases = revived(self._store.read(NAME), self._boot, now)
        return self._cases

    def _absolve(self, uuid: str, case: Case) -> None:
        now = anyio.current_time()
        cases = self._known(now)
        pardoned = {**cases, uuid: pardon(case, now)}
        self._tell(charted(self._found, cases), charted(self._found, pardoned), {})
        self._settle(pardoned)
        self._publish()

    def _users(self) -> dict[str, frozenset[ServiceKey]]:
        found: dict[str, frozenset[ServiceKey]] = {}
        for replica in self._replicas():
            for given in replica.reservations:
                found[given.uuid] = found.get(given.uuid, frozenset()) | {replica.service}
        return found

    def _news(self, inventory: Inventory) -> dict[str, tuple[DeviceFault, ...]]:
        news: dict[str, tuple[DeviceFault, ...]] = {}
        for device in inventory.devices:
            seen = self._seen.get(device.uuid, 0)
            if fresh := tuple(fault for fault in device.faults if fault.serial > seen):
                news[device.uuid] = fresh
                self._seen[device.uuid] = fresh[-1].serial
        return news

    def _settle(self, cases: Mapping[str, Case]) -> None:
        """Keep the cases. One that cannot be written is lost with this daemon, which is said once."""
        if cases == self._cases:
            return
        self._cases = cases
        try:
            self._store.write(NAME, kept(cases, self._boot))
            self._failed = False
        except OSError as error:
            if not self._failed:
                self._failed = True
                where = self._store.directory
                self._note(f"cannot record the health of the devices in {where}: {error.strerror}", "error")

    def _tell(self, before: Inventory, after: Inventory, news: Mapping[str, tuple[DeviceFault, ...]]) -> None:
        for old, device in zip(before.devices, after.devices, strict=True):
            for fault in news.get(device.uuid, ()):
                self._fault(device, fault)
            if device.health != old.health:
                self._post(
                    DeviceHealthChanged(
                        device=device.uuid,
                        before=old.health,
                        health=device.health,
                        reason=device.health_reason,
                    )
                )
            elif device.health_reason not in ("", old.health_reason):
                self._note(f"{_name(device)}: {device.health_reason}", "warning")
            if device.unlinked not in ("", old.unlinked):
                text = f"{_name(device)} is no longer given together with others: {device.unlinked}"
                self._note(text, "warning")

    def _fault(self, device: Device, fault: DeviceFault) -> None:
        """Say what the driver reported; where it is the program's doing, replace the worker. Which of several
        it was is known only if the driver has named a process."""
        mine = [
            replica
            for replica in self._replicas()
            if replica.alive and any(given.uuid == device.uuid for given in replica.reservations)
        ]
        text = f"{_name(device)}: {fault.what}"
        if fault.pid is not None:
            text += f" (process {fault.pid})"
            workers = {replica.handle.pid: replica.id for replica in mine if replica.handle}
            owner = self._owners([fault.pid], workers).get(fault.pid)
            mine = [replica for replica in mine if replica.id == owner]
        if fault.kind == "app" and len(mine) == 1:
            (worker,) = mine
            self._post(
                WorkerCondemned(
                    replica=worker.id, service=worker.service, fault="device-fault",
                    reason=f"{fault.what}, on {device.uuid}",
                )
            )  # fmt: skip
        elif fault.kind == "app" and mine:
            names = ", ".join(replica.id for replica in mine)
            text += f"; the driver does not say which of {names} it was, so their probes decide"
        self._note(text, "info" if fault.kind == "note" else "warning")

    def _note(self, message: str, severity: str) -> None:
        self._post(Notice(message=message, severity=severity))

    def _wake(self, at: float | None) -> None:
        """Look again at that time, whatever the driver says until then."""
        self._alarm.cancel()
        self._alarm_at = at
        if at is not None:
            self._alarm = anyio.CancelScope()
            self._tasks.start_soon(self._sound, self._alarm, at)

    async def _sound(self, alarm: anyio.CancelScope, at: float) -> None:
        with alarm:
            await anyio.sleep_until(at)
            self._alarm_at = None
            self._publish()


def _name(device: Device) -> str:
    return f"GPU {device.index} ({device.uuid})"


def boot_id() -> str:
    """The id of this boot; "" where the kernel does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
