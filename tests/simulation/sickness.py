"""What befalls the devices of a simulated box, and what must follow from it, written down apart from the code
that decides on it.

The ward is told what was done to each device. From that alone it says when nothing new may be on one.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import anyio

from stoker.decide.health import PROBATION, Mark
from stoker.errors import StokerError
from stoker.model.device import Device, DeviceFault, FaultKind, Inventory
from stoker.model.event import DrainRequested, Event, StartRequested, StopSignalled, WorkerCondemned
from stoker.model.replica import WorkerHandle
from stoker.model.state import ObservedState
from stoker.runtime.device_gate import PATIENCE
from stoker.runtime.device_marks import DeviceMarks
from stoker_fake import FakeBox

KINDS: tuple[FaultKind, ...] = ("app", "app", "app", "device", "fatal", "link", "memory", "note")
WORDS = {
    "app": "Xid 31", "device": "Xid 95", "fatal": "Xid 79", "link": "Xid 74", "memory": "1 error",
    "note": "Xid 43",
}  # fmt: skip


@dataclass(slots=True)
class Chart:
    """One device. `bad_since`: nobody can use it; `sick_since`: it has had a fault of its own and was not
    cured; `watched_until`: it was cured lately. Seconds of virtual time."""

    bad_since: float | None = None
    sick_since: float | None = None
    watched_until: float = 0.0
    marked: bool = False
    app_faults: int = 0


class Ward:
    """The devices of one box, over all lives of its daemons."""

    def __init__(self, box: FakeBox) -> None:
        self._box = box
        self._charts = {device.uuid: Chart() for device in box.inventory.devices}
        self._serial = 0
        self._daemon = False
        self._unwritten = False
        self._silent_since: float | None = None
        self._leaving: list[WorkerHandle | None] = []
        """Who was told to leave for the sake of a device."""
        self.seen: Counter[str] = Counter()
        """What has come to pass, to know that it does."""

    # -- what is done to devices -----------------------------------------------------------------------

    def have(self, inventory: Inventory) -> None:
        """The box has these devices from now on."""
        now = anyio.current_time()
        if inventory.state == "ok":
            self._silent_since = None
        elif self._silent_since is None:
            self._silent_since = now
        there = {device.uuid: device for device in inventory.devices}
        for uuid, chart in self._charts.items():
            device = there.get(uuid)
            bad = device is None or device.health != "healthy" or bool(device.ailing)
            if bad and chart.bad_since is None:
                chart.bad_since = now
            if not bad and chart.bad_since is not None:
                chart.bad_since = None
                self._cured(chart)
        self._box.publish(inventory)

    def fault(self, device: Device, kind: FaultKind, pid: int | None) -> None:
        """The driver tells of a fault, once, to a daemon that lives and that it answers."""
        if not self._daemon or self._box.inventory.state != "ok" or device.health == "lost":
            return
        self._serial += 1
        chart = self._charts[device.uuid]
        if kind in ("device", "fatal") and chart.sick_since is None:
            chart.sick_since = anyio.current_time()
        if kind == "app":
            chart.app_faults += 1
        self.seen[kind] += 1
        told = DeviceFault(serial=self._serial, kind=kind, what=WORDS[kind], pid=pid)
        self._box.set_device(replace(device, faults=(*device.faults, told)[-8:]))

    def mark(self, marks: DeviceMarks, uuid: str, mark: Mark | None) -> None:
        """The operator says something of a device."""
        chart = self._charts[uuid]
        before = replace(chart)
        if mark is None:
            chart.marked = False
        elif mark == "released":
            self._cured(chart)
        try:
            marks.set(uuid, mark)
        except StokerError:  # refused, or it cannot be written down
            self._charts[uuid] = before
            return
        self.seen[str(mark)] += 1
        chart.marked = uuid in marks.marks

    def _cured(self, chart: Chart) -> None:
        if chart.sick_since is not None:
            chart.sick_since = None
            chart.watched_until = anyio.current_time() + PROBATION

    def disk_is_full(self) -> None:
        """What is learned in this life may be lost with it."""
        self._unwritten = True

    def begins(self) -> None:
        """A daemon's life: its source knows no fault of before."""
        self._daemon, self._unwritten = True, False
        devices = tuple(replace(device, faults=()) for device in self._box.inventory.devices)
        self._box.publish(replace(self._box.inventory, devices=devices))

    def ends(self) -> None:
        """A daemon died. What it had no time, or no room, to write down is not known to the next one."""
        self._daemon = False
        for chart in self._charts.values():
            if self._unwritten or chart.sick_since == anyio.current_time():
                chart.sick_since, chart.watched_until = None, 0.0

    # -- what must follow ------------------------------------------------------------------------------

    def check(self, event: Event, before: ObservedState) -> None:
        """Raise AssertionError if this event breaks a law of devices."""
        match event:
            case StartRequested():
                for given in event.reservations:
                    self._check_given(event.replica, given.uuid, before)
            case WorkerCondemned(fault="device-fault"):
                self.seen["condemned"] += 1
                worker = before.replicas[event.replica]
                charts = [self._charts[given.uuid] for given in worker.reservations]
                guilty = any(chart.app_faults for chart in charts) or not worker.alive
                assert guilty, f"{event.replica}: {event.reason}, of none"
            case DrainRequested() | StopSignalled() if event.reason.startswith("device "):
                worker = before.replicas[event.replica]
                # One that the daemon before had told to stop is told so again by the next.
                begins = worker.phase != "draining" and worker.handle not in self._leaving
                self._leaving.append(worker.handle)
                silent = self._silent_since is not None and self._silent_since < anyio.current_time()
                assert not (begins and silent), f"{event.replica} leaves while nothing is known"

    def _check_given(self, replica: str, uuid: str, before: ObservedState) -> None:
        now, chart = anyio.current_time(), self._charts[uuid]
        what = f"{replica} gets {uuid} at {now:g}"
        assert chart.bad_since is None or chart.bad_since >= now, f"{what}, bad since {chart.bad_since:g}"
        assert chart.sick_since is None or chart.sick_since >= now, f"{what}, sick since {chart.sick_since:g}"
        assert now >= chart.watched_until, f"{what}, which is to be watched until {chart.watched_until:g}"
        assert not chart.marked, f"{what}, which the operator has marked"
        for worker in self._box.lingers(uuid):
            assert worker.ends_at is not None
            gone = before.replicas.get(worker.request.replica)
            if gone is not None and gone.handle is not None and gone.handle.pid == worker.handle.pid:
                continue  # its end is not known yet: it holds what it had
            self.seen["lingering"] += 1
            late = now - worker.ends_at >= PATIENCE
            assert late, f"{what}, on which {worker.request.replica} is still shown"
