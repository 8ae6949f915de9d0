"""What CUDA would make of the box: for test workers that "use" the GPU they were pinned to."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from fakenvml.fakebox import FakeBox
from fakenvml.presets import TOTALS_MIB, State

Found = tuple[dict[str, Any], dict[str, Any] | None]
"""A device, and the MIG instance of it or None."""

_NO_LIMIT = 2**64 - 1


def visible(state: State, wanted: str | None) -> list[Found]:
    """The devices that CUDA enumerates for this CUDA_VISIBLE_DEVICES (None: not set).

    Indices follow PCI order. CUDA stops at the first entry it cannot resolve; a UUID prefix is enough if it
    is unique; a repeated device hides everything; of MIG instances only one is used.
    """
    devices = [d for d in state["devices"] if not d.get("removed") and not d.get("lost")]
    devices.sort(key=lambda device: device["bus"])
    if wanted is None:
        return [(device, None) for device in devices]
    entries = [entry.strip() for entry in wanted.split(",")]
    kind = next((prefix for prefix in ("GPU-", "MIG-") if entries[0].startswith(prefix)), "")
    if kind == "MIG-":
        hits = _instances(devices, entries[0])
        return hits if len(hits) == 1 else []
    found: list[Found] = []
    for entry in entries:
        hits = _gpus(devices, entry, kind)
        if len(hits) != 1:
            break
        if any(device is hits[0][0] for device, _ in found):
            return []
        found += hits
    return found


def _gpus(devices: list[dict[str, Any]], entry: str, kind: str) -> list[Found]:
    if kind:
        return [(d, None) for d in devices if entry.startswith(kind) and d["uuid"].startswith(entry)]
    return [(devices[int(entry)], None)] if entry.isdigit() and int(entry) < len(devices) else []


def _instances(devices: list[dict[str, Any]], entry: str) -> list[Found]:
    cut = [(d, m) for d in devices for m in (d.get("mig") or {}).get("instances") or []]
    return [(device, instance) for device, instance in cut if instance["uuid"].startswith(entry)]


def limit_of(path: str, uuid: str, cgroup: str) -> int | None:
    """The hard limit last set through nvmlDeviceSetMemoryLimits_v1 for this cgroup (None: none)."""
    hard = None
    with contextlib.suppress(FileNotFoundError):
        for line in Path(f"{os.path.abspath(path)}.limits").read_text().splitlines():
            device, _, limit, name = line.split(" ", 3)
            if device == uuid and name == cgroup:
                hard = None if int(limit) == _NO_LIMIT else int(limit)
    return hard


def cuda_alloc(path: str, size: int, ordinal: int = 0, *, pid: int = 0, cgroup: str | None = None) -> str:
    """In place of cudaMalloc: take `size` bytes on the device that this process's own
    CUDA_VISIBLE_DEVICES selects, and return its UUID. Raises MemoryError and RuntimeError as CUDA would."""
    box, pid = FakeBox(path), pid or os.getpid()
    with box.edit() as state:
        found = visible(state, os.environ.get("CUDA_VISIBLE_DEVICES"))
        if ordinal >= len(found):
            raise RuntimeError("no CUDA-capable device is detected")
        device, instance = found[ordinal]
        processes = device.setdefault("processes", [])
        here = [p for p in processes if instance is None or p.get("gi") == instance["gi"]]
        part = instance or device
        total = part.get("memory_total") or TOTALS_MIB[device["preset"]] << 20
        if _used(here) + part.get("memory_used", 0) + size > total:
            raise MemoryError("CUDA out of memory")
        limit = limit_of(path, device["uuid"], cgroup) if cgroup and instance is None else None
        if limit is not None and _used([p for p in here if p.get("cgroup") == cgroup]) + size > limit:
            raise MemoryError("CUDA out of memory (cgroup limit)")
        mine = next((p for p in here if p["pid"] == pid), None)
        if mine is None:
            mine = {"pid": pid, "mem": 0, "type": "C", "reap": True}
            mine |= {"gi": instance["gi"], "ci": instance["ci"]} if instance else {}
            mine |= {"cgroup": cgroup} if cgroup else {}
            processes.append(mine)
        mine["mem"] += size
        return part["uuid"]


def _used(processes: list[dict[str, Any]]) -> int:
    return sum(process.get("mem") or 0 for process in processes)
