"""Who takes more of a shared device than it was promised. Pure.

On a whole device, and in a MIG instance, nobody is harmed; where the driver does not say how much a process
uses, nothing is known. What counts is the memory of a worker's whole process tree against its reservation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stoker.decide.pinning import Holder
from stoker.model.device import Inventory
from stoker.model.quantity import format_bytes

TOLERANCE, SLACK = 0.1, 256 * 2**20
"""What may be taken beyond the promise: a part of it, or the bytes that every process needs for itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Excess:
    """A worker beyond its promise; bytes."""

    holder: Holder
    device: str
    used: int
    promised: int

    def __str__(self) -> str:
        used, promised = format_bytes(self.used), format_bytes(self.promised)
        return f"{self.holder.replica} uses {used} of {self.device}, but {promised} was promised to it"


def excesses(
    inventory: Inventory, holders: Mapping[str, Holder], owners: Mapping[int, str]
) -> tuple[Excess, ...]:
    """Every worker that is beyond its promise by more than the tolerance. `owners`: replica by pid. Pure."""
    found = []
    for device in inventory.devices:
        if device.limits == "mig":
            continue
        used: dict[str, int] = {}
        for process in device.processes:
            replica = owners.get(process.pid, "")
            if replica in holders:
                used[replica] = used.get(replica, 0) + (process.memory or 0)
        for replica, amount in used.items():
            promised = dict(holders[replica].promises).get(device.uuid)
            if promised is not None and amount > promised + max(int(TOLERANCE * promised), SLACK):
                found.append(
                    Excess(holder=holders[replica], device=device.uuid, used=amount, promised=promised)
                )
    return tuple(found)
