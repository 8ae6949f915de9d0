"""The faults of each GPU as they are learned of, report by report."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from stoker.model.device import Device, DeviceFault, FaultKind, Inventory
from stoker_nvidia.faults import kind_of, words_of

KEPT = 8
"""Faults that a device carries; older ones were told long ago."""


class FaultChart:
    """Remembers what reports have told of faults, by the UUID of the GPU or of the MIG instance."""

    def __init__(self) -> None:
        self._faults: dict[str, deque[DeviceFault]] = {}
        self._errors: dict[str, int] = {}
        """Uncorrected memory errors since the last reset, by GPU."""
        self._serial = 0

    def read(self, report: Mapping[str, Any]) -> None:
        """Take in one report of the child."""
        gpus = {gpu["uuid"]: gpu for gpu in report.get("gpus", ()) if "uuid" in gpu}
        for event in report.get("events", ()):
            gpu = gpus.get(event["uuid"], {})
            recovery = (gpu.get("vitals") or {}).get("recovery")
            kind = kind_of(event["xid"], recovery)
            for uuid in _concerned(event, gpu, kind):
                self._add(uuid, kind, words_of(event["xid"]), event.get("pid"))
        for uuid, gpu in gpus.items():
            self._count_errors(uuid, gpu)

    def of(self, uuid: str) -> tuple[DeviceFault, ...]:
        """The faults that are kept of a device, oldest first."""
        return tuple(self._faults.get(uuid, ()))

    def over(self, inventory: Inventory) -> Inventory:
        """The inventory with each device's faults."""
        if not self._faults:
            return inventory
        return replace(inventory, devices=tuple(self._charted(device) for device in inventory.devices))

    def _charted(self, device: Device) -> Device:
        found = self.of(device.uuid)
        return replace(device, faults=found) if found else device

    def _count_errors(self, uuid: str, gpu: Mapping[str, Any]) -> None:
        """Errors that were there before the first look are history; a counter that fell was reset."""
        now = (gpu.get("vitals") or {}).get("ecc")
        if now is None:
            return
        before = self._errors.get(uuid, now)
        self._errors[uuid] = now
        if now > before:
            what = f"{now - before} uncorrected memory error{'s' if now > before + 1 else ''}"
            for each in _parts(uuid, gpu):
                self._add(each, "memory", what)

    def _add(self, uuid: str, kind: FaultKind, what: str, pid: int | None = None) -> None:
        self._serial += 1
        kept = self._faults.setdefault(uuid, deque(maxlen=KEPT))
        kept.append(DeviceFault(serial=self._serial, kind=kind, what=what, pid=pid))


def _concerned(event: Mapping[str, Any], gpu: Mapping[str, Any], kind: FaultKind) -> Iterator[str]:
    """The devices that an Xid is about: an instance where it is named and the fault stays inside it, else
    the GPU or all its instances."""
    gi, ci = event["part"]
    if gi is None or kind not in ("note", "app"):
        yield from _parts(event["uuid"], gpu)
        return
    for instance in gpu.get("instances", ()):
        if instance["part"][0] == gi and ci in (None, instance["part"][1]):
            yield instance["uuid"]


def _parts(uuid: str, gpu: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(instance["uuid"] for instance in gpu.get("instances", ())) or (uuid,)
