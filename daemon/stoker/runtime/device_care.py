"""All that stands between what the device sources tell and what the control loop sees of it: health, the
operator's marks, the gate, promises of memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from anyio.abc import TaskGroup

from stoker.model.device import Inventory
from stoker.model.event import Event, InventoryChanged, Notice, WorkerExited
from stoker.model.quantity import format_duration
from stoker.model.replica import Replica
from stoker.model.service import ServiceKey, ServiceSpec
from stoker.runtime.departures import Departures
from stoker.runtime.device_gate import DeviceGate
from stoker.runtime.device_health import DeviceHealth, boot_id
from stoker.runtime.device_marks import DeviceMarks
from stoker.runtime.device_promises import DevicePromises
from stoker.runtime.owners import Owners
from stoker.runtime.parts import Parts
from stoker.runtime.store import Store

HANDOVER = 20.0
"""Seconds for which the driver is let go when a device is to be reset: nobody may have it open then."""


class DeviceCare:
    """The care of one daemon; `attach` its parts before the first look at the devices."""

    def __init__(
        self,
        store: Store,
        *,
        tasks: TaskGroup,
        instance: str,
        replicas: Callable[[], Iterable[Replica]],
        lookup: Callable[[ServiceKey], ServiceSpec | None],
        post: Callable[[Event], None],
        owners: Owners | None = None,
    ) -> None:
        owners = owners or Owners(instance)
        departures = Departures(store, boot=boot_id())
        self.unnoted = departures.unnoted
        """Why the record of a worker that has ended has to stay, "" if it need not."""
        before = tuple(departures.recall())
        self._parts: Parts | None = None
        self._tasks = tasks
        self._replicas = replicas
        self._post = post
        self._lookup = lookup
        self.marks = DeviceMarks(store)
        self._health = DeviceHealth(
            store,
            tasks=tasks,
            replicas=replicas,
            publish=self._tell,
            post=post,
            boot=boot_id(),
            let_go=self._let_go,
            owners=owners,
        )
        self._gate = DeviceGate(
            tasks=tasks,
            identify=owners.identify,
            refresh=self._look,
            publish=self._tell,
            post=post,
            strict=self._strict,
            keep=departures.keep,
            judge=DevicePromises(tasks=tasks, refresh=self._look, post=post).look,
        )
        for departure in before:
            self._gate.depart(departure)
        self.marks.on_change(self._tell)
        self.marks.mercy(self._health.pardon, self._health.forgive)
        self._handed = self._released()
        """Released devices for which the driver has been let go."""

    def attach(self, parts: Parts) -> None:
        """The parts whose devices pass by `over`."""
        self._parts = parts

    def over(self, found: Inventory) -> Inventory:
        """The devices as they may be used."""
        return self._gate.over(self.marks.over(self._health.over(found)))

    def after_event(self, event: Event) -> None:
        """Listen to the control loop."""
        self._gate.after_event(event)
        self._health.after_event(event)
        if isinstance(event, WorkerExited | InventoryChanged):
            self._hand_over()

    def _released(self) -> set[str]:
        return {uuid for uuid, mark in self.marks.marks.items() if mark == "released"}

    def _hand_over(self) -> None:
        """Let the driver go, once, when the last worker has left a device that was released."""
        released = self._released()
        self._handed &= released
        parents = (
            {device.uuid: device.parent for device in self._parts.devices.devices} if self._parts else {}
        )
        given = {taken.uuid for replica in self._replicas() for taken in replica.reservations}
        held = {*given, *(parents.get(uuid) for uuid in given)}
        if free := released - self._handed - held:
            self._handed |= free
            self._post(Notice(message=f"{', '.join(sorted(free))}: nobody is on it; {self._let_go()}"))

    def _let_go(self) -> str:
        if self._parts is not None:
            self._tasks.start_soon(self._parts.let_go_devices, HANDOVER)
        seconds = format_duration(HANDOVER)
        return f"the driver is let go for {seconds}: `nvidia-smi --gpu-reset -i INDEX` works now"

    async def _look(self) -> None:
        if self._parts is not None:
            await self._parts.refresh_devices()

    def _tell(self) -> None:
        if self._parts is not None:
            self._parts.publish_devices()

    def _strict(self, service: ServiceKey) -> bool:
        spec = self._lookup(service)
        return spec is not None and spec.strict_pinning
