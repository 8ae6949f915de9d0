"""What each device of the box has left, and what stands against giving it to a service. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from stoker.decide.device_types import fitness
from stoker.model.device import Device, Inventory, Reservation, called, memory_class
from stoker.model.quantity import format_bytes
from stoker.model.replica import Replica
from stoker.model.service import Resources

CROWDED = 0.10
"""Part of a device's memory that strangers may use before another device is preferred."""
RESERVE = 0.04
"""Part of a device's memory that driver, display and idle contexts may use without being counted."""
EPSILON = 1e-6
"""Of shares: what may be lost in adding them up."""


@dataclass(frozen=True, slots=True)
class View:
    """One device and what is taken of it. `foreign`: bytes in use by processes that are not ours."""

    device: Device
    holders: tuple[tuple[Replica, Reservation], ...]
    foreign: int
    committed: int
    share_left: float = 1.0
    split: bool = False
    """It is divided into MIG instances."""
    plain_beside: bool = True
    """The box has GPUs that are no MIG instances."""

    @property
    def memory_left(self) -> int:
        return self.device.memory_total - self.foreign - self.committed

    @property
    def crowded(self) -> bool:
        return self.foreign > CROWDED * self.device.memory_total

    @property
    def held_by(self) -> str:
        return ", ".join(sorted({replica.id for replica, _ in self.holders}))


def views(inventory: Inventory, replicas: Iterable[Replica]) -> list[View]:
    """Every device, in order of index, with what these replicas hold of it."""
    held: dict[str, list[tuple[Replica, Reservation]]] = {}
    for replica in replicas:
        for reservation in replica.reservations:
            held.setdefault(reservation.uuid, []).append((replica, reservation))
    parents = {device.parent for device in inventory.devices}
    plain = None in parents
    return [
        _view(device, tuple(held.get(device.uuid, ())), split=device.uuid in parents, plain_beside=plain)
        for device in sorted(inventory.devices, key=lambda device: (device.index, device.uuid))
    ]


def _view(
    device: Device, held: tuple[tuple[Replica, Reservation], ...], *, split: bool, plain_beside: bool
) -> View:
    """Split the memory in use into ours and foreign.

    A worker of which a process is on the device accounts for what that uses. Of one that is not seen there
    (its work may be in a child that nobody has looked for yet) memory in use is taken for its own, up to
    what it was promised.
    """
    committed = ours = 0
    left = 1.0
    for replica, reservation in held:
        promised = device.memory_total if reservation.memory is None else reservation.memory
        seen = _used_by(replica, device)
        committed += promised if not seen or promised > seen else seen
        ours += promised if seen is None else seen
        left -= reservation.share
    foreign = max(0, device.memory_used - ours)
    return View(device, held, foreign, committed, left, split=split, plain_beside=plain_beside)


def _used_by(replica: Replica, device: Device) -> int | None:
    """Bytes that its processes use there; None if there are none, though it has a worker."""
    if replica.handle is None:
        return 0
    if not device.processes:
        return None
    mine = [p for p in device.processes if p.owner == replica.id or p.pid == replica.handle.pid]
    return sum(process.memory or 0 for process in mine) if mine else None


def against(view: View, need: Resources) -> str:
    """Why this device cannot be given, "" if it can. Starts with a verb: "is lost (...)"."""
    why = unfit(view, need)
    if why:
        return why
    if view.device.withheld:
        return f"is not free yet ({view.device.withheld})"
    return _against_holders(view, need) or _against_memory(view, need)


def unfit(view: View, need: Resources) -> str:
    """Why this device is none for the service, whoever holds it, "" if it is one."""
    device = view.device
    if device.health != "healthy":
        return f"is {called(device.health)}" + (f" ({device.health_reason})" if device.health_reason else "")
    if view.split:
        return "is split into MIG instances"
    if need.devices and not named(device, need.devices):
        return "is not among the devices asked for"
    if need.exclude and named(device, need.exclude, parts=True):
        return "is excluded by the service"
    if fitness(need, device.type_key, device.memory_total) is None:
        return f"is {device.type_key}"
    return _against_mig(view, need)


def named(device: Device, names: Collection[str], *, parts: bool = False) -> bool:
    """Whether one of the names means it: its index, or the beginning of its UUID; with `parts` also that of
    the GPU it is a part of."""
    uuids = (device.uuid, device.parent if parts and device.parent else device.uuid)
    return any(
        (name.isdecimal() and (parts or device.parent is None) and int(name) == device.index)
        or (not name.isdecimal() and any(uuid.startswith(name) for uuid in uuids))
        for name in names
    )


def _against_mig(view: View, need: Resources) -> str:
    device = view.device
    if need.gpu > 1 and device.unlinked:
        return f"is not fit for a set ({device.unlinked})"
    if device.parent is None:
        return ""
    if need.gpu > 1:
        return "is of kind MIG, of which a process can use only one"
    wanted = need.devices or "mig" in (need.gpu_type or "").lower().split(".")
    if not wanted and view.plain_beside:
        return "is of kind MIG, which the service does not ask for"
    return ""


def _against_holders(view: View, need: Resources) -> str:
    if not view.holders:
        return ""
    if need.gpu >= 1 or (view.share_left <= 0 and any(held.share >= 1 for _, held in view.holders)):
        return f"is held by {view.held_by}"
    if need.gpu > view.share_left + EPSILON:
        return f"has a share of {max(0.0, view.share_left):.2g} left (held by {view.held_by})"
    return ""


def _against_memory(view: View, need: Resources) -> str:
    device, wanted = view.device, promise(need, view.device)
    if wanted is None:
        return ""
    exact = need.gpu_memory is not None and not nominal(need, device)
    overlooked = 0 if exact else min(view.foreign, int(RESERVE * device.memory_total))
    if wanted <= view.memory_left + overlooked:
        return ""
    parts = [f"{format_bytes(view.foreign)} in use by other processes"] if view.foreign else []
    if view.committed:
        parts.append(f"{format_bytes(view.committed)} promised to {view.held_by}")
    left = format_bytes(max(0, view.memory_left))
    return f"has {left} of memory" + (f" left ({', '.join(parts)})" if parts else "")


def nominal(need: Resources, device: Device) -> bool:
    """Whether the size asked for is the one under which the device is sold ("80Gi" of an H100)."""
    size = memory_class(device.memory_total)
    return size is not None and need.gpu_memory == size * 2**30


def promise(need: Resources, device: Device) -> int | None:
    """Bytes to set aside on this device; None if a whole GPU was asked for without a size."""
    if need.gpu_memory is not None:
        return min(need.gpu_memory, device.memory_total) if nominal(need, device) else need.gpu_memory
    return int(need.gpu * device.memory_total) if need.gpu < 1 else None


def capacities(need: Resources, inventory: Inventory, replicas: Iterable[Replica]) -> dict[str, float]:
    """How many replicas each device could hold were no other service there; a device of a larger set holds a
    part of one. Devices that can hold none are left out. Pure."""
    found: dict[str, float] = {}
    for view in views(inventory, replicas):
        alone = replace(view, holders=(), committed=0, share_left=1.0)
        if need.gpu <= 0 or unfit(view, need) or _against_memory(alone, need):
            continue
        found[view.device.uuid] = 1 / need.gpu if need.gpu >= 1 else _shares_of(alone, need)
    return found


def _shares_of(empty: View, need: Resources) -> float:
    promised = promise(need, empty.device) or 1
    by_memory = max(1, (empty.device.memory_total - empty.foreign) // promised)
    return float(min(math.floor(1 / need.gpu + EPSILON), by_memory))
