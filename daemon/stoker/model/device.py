"""GPUs as values: what there is, how it is, who holds what."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

MEMORY_CLASSES = (4, 6, 8, 10, 11, 12, 16, 20, 24, 32, 40, 48, 64, 80, 94, 96, 141, 180, 192, 288)
"""Sizes under which GPUs are sold, in GiB. What a driver reports is a little less: firmware and ECC take
their part (an "80 GB" H100 has 79.6 GiB, a "16 GB" T4 has 15.0)."""

Health = Literal[
    "healthy", "suspect", "unreachable", "cordoned", "draining", "quarantined", "probation", "lost"
]
"""Only a healthy device is given to new workers. On a draining, quarantined or lost one no worker stays; on
the others those that run there go on (`cordoned`: by the operator's wish; `unreachable`: it does not answer,
all else that is said of it is of before)."""


def called(health: str) -> str:
    """The state of health as a sentence has it: "is on probation". Pure."""
    return "on probation" if health == "probation" else health


FaultKind = Literal["note", "app", "memory", "link", "device", "fatal"]
"""What a fault asks for. `note`: to be known, no more. `app`: the program's doing; its worker is to be
restarted. `memory`: an error that was contained; many of them make the device suspect. `link`: no longer
good for sets. `device`, `fatal`: nobody may stay on it; after `fatal` nobody can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFault:
    """One fault that a device source has learned of. `what` in words ("Xid 31, GPU memory page fault");
    `serial` grows, and tells it from all others since the source began; `pid` is the process it names."""

    serial: int
    kind: FaultKind
    what: str
    pid: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceProcess:
    """A process that NVML shows on a device; `memory` in bytes, None where the driver does not tell."""

    pid: int
    memory: int | None = None
    owner: str = ""
    """The replica whose worker it belongs to; "" for strangers, and as long as nobody has looked."""
    name: str = ""
    """What a stranger's process calls itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One allocatable GPU or MIG instance. Identity is `uuid`; `index` is for people only.

    Memory in bytes. `type_key` is the instance-type key, for example `gpu.h100.80g`.
    """

    uuid: str
    name: str
    index: int
    memory_total: int
    memory_used: int = 0
    health: Health = "healthy"
    health_reason: str = ""
    type_key: str = "gpu.any"
    bus_id: str = ""
    numa_node: int | None = None
    ordinal: int | None = None
    """Its number for CUDA when it counts in PCI order; None where it has none (MIG, lost)."""
    parent: str | None = None
    utilization: float | None = None
    """0..1, None where the device does not tell (MIG)."""
    processes: tuple[DeviceProcess, ...] = ()
    links: tuple[tuple[str, int], ...] = ()
    """(uuid of a peer, link score): higher is closer; 0 is unknown or across sockets."""
    withheld: str = ""
    """Why nothing new is given it just now though it is healthy (a worker that ended is still on it)."""
    health_since: float | None = None
    """Monotonic seconds since when it is in this state of health; None: as far back as is known."""
    faults: tuple[DeviceFault, ...] = ()
    """The latest faults, oldest first, as the source told them."""
    ailing: str = ""
    """What the driver says is wrong with it as long as it is so ("needs a reset"), "" for nothing."""
    unlinked: str = ""
    """Why it is not given together with others though it works alone, "" if it may be."""
    limits: str = ""
    """What holds a sharer to its memory: `mig`, `mps`, or "" for nothing but watching."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """All devices of the box. `state`: `ok`; `none` (no GPU or no driver: normal); `unreachable` (the
    driver should answer and does not: keep the last devices, place nothing new)."""

    state: Literal["ok", "none", "unreachable"] = "none"
    reason: str = "no device source has reported yet"
    devices: tuple[Device, ...] = ()
    driver: str = ""
    nameless: int = 0
    """GPUs that have not answered yet since they are looked at. A device that is missing may be one."""
    resting: bool = False
    """It is unreachable by our own doing, for a while."""

    def get(self, uuid: str) -> Device | None:
        """The device of that UUID, None if it is not there."""
        return next((device for device in self.devices if device.uuid == uuid), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """What a replica holds of one device. `share` 1.0 is exclusive; `memory` in bytes, None is all of it."""

    uuid: str
    share: float = 1.0
    memory: int | None = None
    ordinal: int | None = None
    """The number of the device for CUDA at the time of the start, None where it has none."""
    limits: str = ""
    """What holds the replica to its memory there: `mig`, `mps` or nothing."""
    numa_node: int | None = None
    """The node that the device is on, None where that is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """The answer to "where": reservations, or none of them and the `reason` why not. Always a reason."""

    reservations: tuple[Reservation, ...] = ()
    reason: str = ""
    placed: bool = field(default=True)


def memory_class(total: int) -> int | None:
    """The size in GiB under which a GPU with `total` bytes is sold; None for no known one (MIG). Pure."""
    gib = total / 2**30
    size = next((size for size in MEMORY_CLASSES if size >= gib), None)
    return size if size is not None and gib >= 0.92 * size else None
