"""The machine that is not there: its workers and devices, shared by the fake parts and the scenario.

It outlives a fake driver as a real box outlives a daemon, so that adoption can be simulated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import anyio

from stoker.model.device import Device, DeviceProcess, Inventory
from stoker.model.replica import ExitStatus, WorkerHandle
from stoker.model.service import ServiceKey
from stoker.plugin.ports import StartRequest
from stoker_fake.script import Script

TERM, KILL = 15, 9


@dataclass(slots=True)
class FakeWorker:
    """One fake process. Its end follows from its script and from what was done to it."""

    request: StartRequest
    handle: WorkerHandle
    script: Script
    spawned: float
    ends_at: float | None = None
    status: ExitStatus = field(default_factory=ExitStatus)
    lost: str = ""
    lingering: float = 0.0
    """Seconds for which it is still shown on its devices after its end."""
    changed: anyio.Event = field(default_factory=anyio.Event)

    def alive(self, now: float) -> bool:
        """Whether the process runs."""
        return self.ends_at is None or now < self.ends_at

    def listens(self, now: float) -> bool:
        """Whether it has got so far that it could answer."""
        return self.script.ready_after is not None and now >= self.spawned + self.script.ready_after

    def hangs(self, now: float) -> bool:
        """Whether it has stopped answering."""
        return self.script.hang_after is not None and now >= self.spawned + self.script.hang_after

    def shown(self, now: float) -> bool:
        """Whether the driver shows it on its devices."""
        return self.ends_at is None or now < self.ends_at + self.lingering

    def end_at(self, at: float, status: ExitStatus) -> None:
        """Let it end then, unless it ends before."""
        if self.ends_at is None or at < self.ends_at:
            self.ends_at, self.status = at, status
        self.tell()

    def tell(self) -> None:
        """Wake whoever waits for it."""
        changed, self.changed = self.changed, anyio.Event()
        changed.set()


class FakeBox:
    """Workers, devices and the scripts that new workers follow."""

    def __init__(self, inventory: Inventory | None = None) -> None:
        self.workers: dict[int, FakeWorker] = {}
        self.inventory = inventory or Inventory(reason="this box has no devices")
        self.lingering: float | None = None
        """Seconds for which the next workers are still shown on their devices after their end; None: no
        processes are shown at all."""
        self.started: list[StartRequest] = []
        self._scripts: dict[ServiceKey, list[Script]] = {}
        self._listeners: list[Callable[[], None]] = []
        self._pid = 1000

    # -- for scenarios ---------------------------------------------------------------------------------

    def behave(self, service: ServiceKey, *scripts: Script) -> None:
        """The next start of the service follows the first script, and so on; the last one stays."""
        self._scripts[service] = list(scripts)

    def living(self, service: ServiceKey | None = None) -> list[FakeWorker]:
        """The workers that run now, oldest first."""
        now = anyio.current_time()
        found = [worker for worker in self.workers.values() if worker.alive(now)]
        return [worker for worker in found if service in (None, worker.request.service)]

    def worker(self, replica: str) -> FakeWorker:
        """The living worker of a replica. Raises KeyError."""
        for worker in self.living():
            if worker.request.replica == replica:
                return worker
        raise KeyError(replica)

    def end(
        self, replica: str, *, code: int | None = None, signal: int | None = None, detail: str = ""
    ) -> None:
        """Let a worker end now, by itself or by a stranger's hand."""
        self.worker(replica).end_at(anyio.current_time(), ExitStatus(code=code, signal=signal, detail=detail))
        self._tell()

    def lose(self, replica: str, reason: str) -> None:
        """Make the driver unable to say whether this worker lives."""
        worker = self.worker(replica)
        worker.lost = reason
        worker.tell()

    def publish(self, inventory: Inventory) -> None:
        """Change the devices."""
        self.inventory = inventory
        self._tell()

    def set_device(self, device: Device) -> None:
        """Change one device of an inventory that answers."""
        others = [known for known in self.inventory.devices if known.uuid != device.uuid]
        devices = tuple(sorted([*others, device], key=lambda known: known.index))
        self.publish(replace(self.inventory, devices=devices))

    def lingers(self, uuid: str) -> list[FakeWorker]:
        """The workers that have ended and are still shown on that device."""
        now = anyio.current_time()
        return [worker for worker in self._shown(uuid) if not worker.alive(now)]

    def _shown(self, uuid: str) -> list[FakeWorker]:
        now = anyio.current_time()
        return [
            worker
            for worker in self.workers.values()
            if worker.shown(now) and any(given.uuid == uuid for given in worker.request.reservations)
        ]

    # -- for the fake parts ----------------------------------------------------------------------------

    def devices(self) -> Inventory:
        """The devices with the processes that are on them."""
        if self.lingering is None:
            return self.inventory
        devices = (
            replace(
                device,
                processes=tuple(DeviceProcess(pid=worker.handle.pid) for worker in self._shown(device.uuid)),
            )
            for device in self.inventory.devices
        )
        return replace(self.inventory, devices=tuple(devices))

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` when a device changed or a worker was touched."""
        self._listeners.append(listener)

    def script_for(self, request: StartRequest) -> Script:
        """The script of the next worker: the scenario's, else what its command says."""
        scripts = self._scripts.get(request.service)
        if not scripts:
            return Script.parse(request.argv)
        return scripts.pop(0) if len(scripts) > 1 else scripts[0]

    def spawn(self, request: StartRequest, script: Script) -> FakeWorker:
        """Bring a worker to life now."""
        now = anyio.current_time()
        self.workers = {pid: worker for pid, worker in self.workers.items() if worker.shown(now)}
        self._pid += 1
        handle = WorkerHandle(driver="fake", pid=self._pid, start_time=int(now), boot_id="fake")
        worker = FakeWorker(request=request, handle=handle, script=script, spawned=now)
        worker.lingering = self.lingering or 0.0
        if script.exit_after is not None:
            worker.end_at(
                now + script.exit_after, ExitStatus(code=script.exit_code, detail=script.exit_detail)
            )
        self.workers[handle.pid] = worker
        self.started.append(request)
        return worker

    def signal(self, pid: int, signum: int) -> None:
        """Deliver a signal. A worker that is gone is no error."""
        worker, now = self.workers.get(pid), anyio.current_time()
        if worker is None or not worker.alive(now):
            return
        if signum == KILL:
            worker.end_at(now, ExitStatus(signal=KILL))
        elif worker.script.stop_after is not None:
            worker.end_at(now + worker.script.stop_after, ExitStatus(code=0))
        self._tell()

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()
