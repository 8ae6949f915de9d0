"""From what the child reports to the inventory the daemon acts on. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from stoker.model.device import Device, DeviceProcess, Inventory
from stoker_nvidia.faults import advice, ailment, link_ailment
from stoker_nvidia.naming import type_key

_NO_PERMISSION, _NOT_LOADED, _NO_LIBRARY, _LOST, _MISMATCH, _UNKNOWN = 4, 9, 12, 15, 18, 999

_LIBRARY_ERRORS = {
    _NO_LIBRARY: "no NVIDIA driver library (libnvidia-ml.so.1) on this box",
    _NOT_LOADED: "the NVIDIA driver is not loaded",
    _NO_PERMISSION: "no permission to use the NVIDIA driver; in a container: give it the GPUs",
    _MISMATCH: "the NVIDIA driver and its library have different versions, as after an upgrade; "
    "reload the driver or reboot",
    _UNKNOWN: 'the NVIDIA driver answers "Unknown Error", as in a container whose GPUs were taken away; '
    "restart the container, or see the kernel log",
}
_DEVICE_ERRORS = {_LOST: "fell off the bus", _NO_PERMISSION: "no permission to use it"}
_EVERYWHERE = (_NO_PERMISSION, _MISMATCH, _UNKNOWN)
"""If every GPU answers with one of these, it is the driver that cannot be reached."""

MEMORY_STEP = 64 * 2**20
UTILIZATION_STEP = 0.05


def inventory_of(report: Mapping[str, Any], last: Inventory) -> Inventory:
    """The inventory that a report tells of. Pure.

    `last` is the one before: GPUs that it knows and that the report can no longer open are kept as lost,
    and if the whole driver fails, its devices are kept as they were. So are those of a GPU that does not
    answer, as unreachable.
    """
    if "error" in report:
        return _failed(report["error"], report["text"], last)
    gpus: list[Mapping[str, Any]] = report["gpus"]
    silent = [gpu for gpu in gpus if "hangs" in gpu]
    if silent and len(silent) == len(gpus):
        return unreachable("no GPU answers the NVIDIA driver", last)
    gpus = [gpu for gpu in gpus if "hangs" not in gpu]
    shut = {gpu["index"]: gpu for gpu in gpus if "error" in gpu}
    codes = {gpu["error"] for gpu in shut.values()}
    if shut and len(shut) == len(gpus) and codes <= set(_EVERYWHERE):
        first = next(iter(shut.values()))
        return _failed(first["error"], first["text"], last)
    devices = [device for gpu in gpus if "error" not in gpu for device in _devices(gpu)]
    links, ordinals = _links(report.get("links", ())), _ordinals(report["gpus"], shut)
    devices = [
        replace(device, links=links.get(device.uuid, ()), ordinal=ordinals.get(device.uuid))
        for device in devices
    ]
    kept, nameless = _kept(last, silent, {device.uuid for device in devices})
    missing = _missing(last, gpus, shut, kept)
    notes = _notes(gpus, shut, missing, nameless)
    devices = sorted([*devices, *kept, *missing], key=lambda device: device.index)
    if not devices and not nameless:
        return Inventory(
            state="none", reason=notes or "the NVIDIA driver shows no GPU", driver=_driver(report)
        )
    return Inventory(
        state="ok", reason=notes, devices=tuple(devices), driver=_driver(report), nameless=len(nameless)
    )


def bounded_by_mps(inventory: Inventory) -> Inventory:
    """The inventory of a box whose operator runs MPS: it bounds the memory of sharers, except of MIG
    instances, which have bounds of their own. Pure."""
    devices = (replace(device, limits=device.limits or "mps") for device in inventory.devices)
    return replace(inventory, devices=tuple(devices))


def unreachable(reason: str, last: Inventory) -> Inventory:
    """The driver should answer and does not: the devices stay as they were last seen. Pure."""
    return replace(last, state="unreachable", reason=reason, resting=False)


def allowed(inventory: Inventory, wanted: str | None) -> Inventory:
    """The inventory without the devices that a CUDA_VISIBLE_DEVICES of the daemon's own leaves out. Pure.

    `wanted`: UUIDs, their beginnings, or indices in PCI order; None allows all. As in CUDA, -1 ends the list
    and an empty one hides every GPU. A GPU that is named allows its MIG instances too.
    """
    if wanted is None or inventory.state == "none":
        return inventory
    entries: list[str] = []
    for entry in (text.strip() for text in wanted.split(",")):
        if not entry or entry == "-1":
            break
        entries.append(entry)
    devices = tuple(device for device in inventory.devices if any(_named(device, entry) for entry in entries))
    if devices or (entries and inventory.state == "unreachable"):
        return replace(inventory, devices=devices)
    said = f"the daemon's own CUDA_VISIBLE_DEVICES={wanted!r}"
    why = f"{said} names no GPU of this box" if entries else f"{said} hides every GPU"
    return replace(inventory, state="none", reason=why, devices=())


def differs(new: Inventory, old: Inventory | None) -> bool:
    """Whether the change from `old` is worth waking the control loop: anything but small moves of memory
    (64 MiB) and utilization (0.05). Pure."""
    if old is None or len(new.devices) != len(old.devices):
        return True
    if replace(new, devices=()) != replace(old, devices=()):
        return True
    return any(_moved(now, before) for now, before in zip(new.devices, old.devices, strict=True))


# --- parts ------------------------------------------------------------------------------------------------


def _failed(code: int, text: str, last: Inventory) -> Inventory:
    reason = _LIBRARY_ERRORS.get(code, f"the NVIDIA driver fails: {text} (NVML error {code})")
    if code in (_NO_LIBRARY, _NOT_LOADED) and not last.devices:
        return Inventory(state="none", reason=reason)
    return unreachable(reason, last)


def _devices(gpu: Mapping[str, Any]) -> list[Device]:
    """The device, or in its place the MIG instances it is cut into."""
    if "instances" not in gpu:
        return [_device(gpu, gpu, parent=None)]
    return [_device(instance, gpu, parent=gpu["uuid"]) for instance in gpu["instances"]]


def _device(part: Mapping[str, Any], gpu: Mapping[str, Any], *, parent: str | None) -> Device:
    vitals: Mapping[str, Any] = gpu.get("vitals") or {}
    recovery = vitals.get("recovery")
    return Device(
        uuid=part["uuid"],
        name=part["name"],
        index=gpu["index"],
        memory_total=part["memory_total"],
        memory_used=part["memory_used"],
        type_key=type_key(part["name"], part["memory_total"]),
        bus_id=gpu["bus_id"],
        numa_node=gpu["numa_node"],
        parent=parent,
        utilization=part.get("utilization"),
        processes=tuple(DeviceProcess(pid=pid, memory=memory) for pid, memory in part["processes"]),
        health_reason=advice(
            rows_pending=vitals.get("rows_pending", False), pages_pending=vitals.get("pages_pending", False)
        ),
        ailing=ailment(recovery, rows_failed=vitals.get("rows_failed", False)),
        unlinked=link_ailment(recovery),
        limits="mig" if parent else "",
    )


def _links(joints: Iterable[tuple[str, str, int]]) -> dict[str, tuple[tuple[str, int], ...]]:
    found: dict[str, tuple[tuple[str, int], ...]] = {}
    for one, other, score in joints:
        found[one] = (*found.get(one, ()), (other, score))
        found[other] = (*found.get(other, ()), (one, score))
    return found


def _ordinals(gpus: Iterable[Mapping[str, Any]], shut: Mapping[int, Any]) -> dict[str, int]:
    """The numbers of the GPUs for CUDA, which counts only those that work. Where one is in MIG mode it is not
    said how CUDA counts, so none has a number."""
    working = [gpu for gpu in gpus if gpu["index"] not in shut]
    if any("instances" in gpu for gpu in working):
        return {}
    return {gpu["uuid"]: number for number, gpu in enumerate(working) if "uuid" in gpu}


def _kept(
    last: Inventory, silent: Iterable[Mapping[str, Any]], shown: Collection[str]
) -> tuple[list[Device], list[int]]:
    """The devices of GPUs that do not answer, as they were last seen, and the indices of those of which
    nothing is known. One that does not even tell its UUID is the known one with the same index."""
    found: list[Device] = []
    nameless = []
    for gpu in silent:
        uuid = gpu.get("uuid")
        same = [
            device
            for device in last.devices
            if (uuid in (device.uuid, device.parent) if uuid else device.index == gpu["index"])
            and device.uuid not in shown
            and device.health != "lost"
        ]
        if not same:
            nameless.append(gpu["index"])
        found += [replace(d, health="unreachable", health_reason="it does not answer") for d in same]
    return found, nameless


def _missing(
    last: Inventory, gpus: Iterable[Mapping[str, Any]], shut: Mapping[int, Any], kept: Iterable[Device]
) -> list[Device]:
    """The devices that are known and cannot be used, as lost. A GPU whose MIG mode was switched is not.

    A GPU that cannot be opened mostly does not tell its UUID. It is then the missing one with the same
    index: only GPUs behind one that was taken out move up.
    """
    opened = {gpu["uuid"]: gpu for gpu in gpus if "error" not in gpu}
    shown = {uuid for gpu in opened.values() for uuid in (gpu["uuid"], *_instance_uuids(gpu))}
    shown |= {device.uuid for device in kept}
    gone = [d for d in last.devices if d.uuid not in shown and d.parent not in opened]
    strangers = {gpu["uuid"]: gpu for gpu in shut.values() if "uuid" in gpu}
    for device in gone:
        strangers.pop(device.uuid, None)
    return [
        *(_lost(device, shut.get(device.index)) for device in gone),
        *(
            _lost(
                Device(uuid=uuid, name=gpu.get("name", "NVIDIA GPU"), index=gpu["index"], memory_total=0), gpu
            )
            for uuid, gpu in strangers.items()
        ),
    ]


def _lost(device: Device, error: Mapping[str, Any] | None) -> Device:
    why = _device_error(error) if error else "the driver no longer lists it"
    gone = replace(device, utilization=None, processes=(), memory_used=0, ordinal=None)
    return replace(gone, health="lost", health_reason=why)


def _instance_uuids(gpu: Mapping[str, Any]) -> list[str]:
    return [instance["uuid"] for instance in gpu.get("instances", ())]


def _device_error(gpu: Mapping[str, Any]) -> str:
    return _DEVICE_ERRORS.get(gpu["error"], f"{gpu['text']} (NVML error {gpu['error']})")


def _notes(
    gpus: Iterable[Mapping[str, Any]],
    shut: Mapping[int, Any],
    lost: Iterable[Device],
    nameless: Iterable[int],
) -> str:
    """What the list of devices does not show."""
    known = {device.index for device in lost}
    notes = [f"GPU {i} cannot be opened: {_device_error(gpu)}" for i, gpu in shut.items() if i not in known]
    notes += [
        f"GPU {gpu['index']} is in MIG mode and has no instances"
        for gpu in gpus
        if "instances" in gpu and not gpu["instances"]
    ]
    notes += [f"GPU {index} has not answered yet" for index in nameless]
    return "; ".join(notes)


def _named(device: Device, entry: str) -> bool:
    if entry.isdigit():
        return device.index == int(entry)
    return device.uuid.startswith(entry) or (device.parent or "").startswith(entry)


def _moved(now: Device, before: Device) -> bool:
    if _still(now) != _still(before):
        return True
    if abs(now.memory_used - before.memory_used) > MEMORY_STEP:
        return True
    if {process.pid for process in now.processes} != {process.pid for process in before.processes}:
        return True
    if now.utilization is None or before.utilization is None:
        return now.utilization is not before.utilization
    return abs(now.utilization - before.utilization) > UTILIZATION_STEP


def _still(device: Device) -> Device:
    return replace(device, memory_used=0, utilization=None, processes=())


def _driver(report: Mapping[str, Any]) -> str:
    return report.get("driver") or ""
