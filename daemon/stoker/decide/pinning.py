"""Who is where by the driver's word: workers on devices that are not theirs, and those that have ended but
are still on theirs. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from stoker.model.device import Device, DeviceProcess, Inventory
from stoker.model.quantity import format_bytes
from stoker.model.service import ServiceKey

SLACK = 256 * 2**20
"""Bytes that no process accounts for and that may be more after a worker's end than before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A replica with a living worker. `devices` are the UUIDs it was given, none for a service without GPU;
    `pid` is its main process, None until it was spawned."""

    replica: str
    service: ServiceKey
    devices: tuple[str, ...] = ()
    pid: int | None = None
    promises: tuple[tuple[str, int], ...] = ()
    """Bytes promised to it of devices that it shares."""
    pids: frozenset[int] = frozenset()
    """All processes of it that have been seen on devices."""
    unclaimed: tuple[tuple[str, int], ...] = ()
    """Bytes in use of its devices that no process accounted for, at the last look at which that was known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Astray:
    """A process of a worker on a device that the worker was not given."""

    holder: Holder
    pid: int
    device: str

    def __str__(self) -> str:
        own = ", ".join(self.holder.devices) or "it has none"
        process = "" if self.pid == self.holder.pid else f" (its process {self.pid})"
        return f"{self.holder.replica}{process} runs on {self.device}, which is not its own ({own})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Departure:
    """A worker that has ended. `pids` are all processes known of it; `looked`: the driver was asked after
    its end, so what it shows is no memory of before. `strangers` were on its devices before its end: any
    other process there that is nobody's, and that cannot be seen from here, is taken for one of its own (a
    child that was born late, or a worker whose pid its daemon had no time to write down)."""

    replica: str
    service: ServiceKey
    devices: tuple[str, ...]
    pids: frozenset[int]
    strangers: frozenset[int] = frozenset()
    unclaimed: tuple[tuple[str, int], ...] = ()
    """As of its holder."""
    looked: bool = False


def astray(
    inventory: Inventory, holders: Mapping[str, Holder], owners: Mapping[int, str]
) -> tuple[Astray, ...]:
    """Every process of a worker that the driver shows where it should not be. `owners`: replica by pid;
    strangers' processes are not in it. Pure."""
    return tuple(
        Astray(holder=holders[owners[process.pid]], pid=process.pid, device=device.uuid)
        for device in inventory.devices
        for process in device.processes
        if owners.get(process.pid) in holders
        and not {device.uuid, device.parent} & {*holders[owners[process.pid]].devices}
    )


def named(inventory: Inventory, owners: Mapping[int, str], names: Mapping[int, str]) -> Inventory:
    """The inventory with the replica of each process, and with the name of each that has none. Pure."""

    def told(process: DeviceProcess) -> DeviceProcess:
        pid = process.pid
        return replace(process, owner=owners.get(pid, ""), name=names.get(pid, ""))

    devices = (
        replace(device, processes=tuple(map(told, device.processes))) if device.processes else device
        for device in inventory.devices
    )
    return replace(inventory, devices=tuple(devices))


def still_there(inventory: Inventory, departure: Departure) -> tuple[int, ...]:
    """The pids of a departed worker that the driver still shows on its devices. Pure."""
    return tuple(
        sorted(
            process.pid
            for device in inventory.devices
            if device.uuid in departure.devices
            for process in device.processes
            if process.pid in departure.pids or (unseen(process) and process.pid not in departure.strangers)
        )
    )


def unclaimed(inventory: Inventory) -> dict[str, int]:
    """Bytes in use that no process accounts for, by device; of one whose processes do not all tell it is not
    known. Pure."""
    found = {}
    for device in inventory.devices:
        memory = [process.memory for process in device.processes]
        if device.health == "healthy" and None not in memory:
            found[device.uuid] = max(0, device.memory_used - sum(filter(None, memory)))
    return found


def settled(inventory: Inventory, holders: Iterable[Holder]) -> dict[str, int]:
    """The same, without devices from which a holder has vanished that was on them: it has just ended, and its
    memory may not be back. Pure."""
    found = unclaimed(inventory)
    shown = {device.uuid: {process.pid for process in device.processes} for device in inventory.devices}
    for holder in holders:
        for uuid in holder.devices:
            if holder.pids and not holder.pids & shown.get(uuid, set()):
                found.pop(uuid, None)
    return found


def balanced(holder: Holder, free: Mapping[str, int]) -> Holder:
    """The holder with what is known now (`settled`) of its devices. Pure."""
    known = {**dict(holder.unclaimed), **{uuid: free[uuid] for uuid in holder.devices if uuid in free}}
    return replace(holder, unclaimed=tuple(known.items()))


def not_returned(inventory: Inventory, departure: Departure) -> int:
    """Bytes of its devices that nobody claims and that were claimed before it ended; 0 if that cannot be
    told. Pure."""
    now = unclaimed(inventory)
    more = (now.get(uuid, 0) - before for uuid, before in departure.unclaimed)
    return max((size for size in more if size > SLACK), default=0)


def lingers(inventory: Inventory, departure: Departure) -> str:
    """What is still to be seen of a departed worker, in words; "" for nothing. Pure."""
    pids, size = still_there(inventory, departure), not_returned(inventory, departure)
    if pids:
        return f"pid {', '.join(map(str, pids))} is still on it"
    return f"{format_bytes(size)} of its memory is not free again" if size else ""


def unseen(process: DeviceProcess) -> bool:
    """Whether it is of no worker, and not to be seen from here: gone, or of another pid namespace. Pure."""
    return not process.owner and not process.name


def is_hidden(inventory: Inventory, departure: Departure) -> bool:
    """Whether one of its devices is not there now: it may come back, and the worker with it. Pure."""
    found = (inventory.get(uuid) for uuid in departure.devices)
    return any(device is None or device.health == "lost" for device in found)


def answers(inventory: Inventory, devices: Iterable[str]) -> bool:
    """Whether what is told of these devices is of now; of one that is not there all is known. Pure."""
    found = (inventory.get(uuid) for uuid in devices)
    return inventory.state == "ok" and all(d is None or d.health != "unreachable" for d in found)


def withhold(inventory: Inventory, departures: Iterable[Departure]) -> Inventory:
    """The inventory without free devices on which a worker that has ended may still be. Pure."""
    why: dict[str, str] = {}
    for departure in departures:
        rest = lingers(inventory, departure)
        if rest:
            text = f"{departure.replica} has ended, but {rest}"
        elif not departure.looked:
            text = f"{departure.replica} has just ended; the driver is being asked"
        else:
            continue
        why.update(dict.fromkeys(departure.devices, text))
    if not why:
        return inventory
    return replace(inventory, devices=tuple(_withheld(device, why) for device in inventory.devices))


def _withheld(device: Device, why: Mapping[str, str]) -> Device:
    return replace(device, withheld=why[device.uuid]) if device.uuid in why else device
