"""Hold what Stoker tells of a box against other programs that read NVML."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from fakenvml.fakebox import GIB, FakeBox
from stoker.model.device import Inventory

READERS = Path(__file__).with_name("readers.py")


def occupy(box: FakeBox) -> None:
    """Put this process on every GPU, or on the first instance of it; readers leave out the dead."""
    for number, device in enumerate(box.read()["devices"]):
        instances = (device.get("mig") or {}).get("instances")
        where = {name: instances[0][name] for name in ("gi", "ci")} if instances else {}
        box.proc(number, os.getpid(), GIB, **where)


def disagreements(box: FakeBox, told: Inventory, python: str) -> dict[str, list[str]]:
    """Per reader in that Python what it shows otherwise than `told`: a device that only one of them has, a
    name, a size, processes. gpustat knows no instances, so of a GPU that is cut only its name is compared."""
    done = subprocess.run(
        [python, str(READERS)], env={**os.environ, **box.environ}, capture_output=True, text=True,
        timeout=120, check=True,
    )  # fmt: skip
    seen = json.loads(done.stdout)
    parents = {device.parent: device.name.partition(" MIG ")[0] for device in told.devices if device.parent}
    ours = {
        device.uuid: [device.name, device.memory_total // 2**20, sorted(p.pid for p in device.processes)]
        for device in told.devices
    }
    whole = {uuid: row for uuid, row in ours.items() if uuid.startswith("GPU-")}
    stat = {uuid: row for uuid, *row in seen["gpustat"]}
    cut = {uuid: stat.pop(uuid)[0] for uuid in parents if uuid in stat}
    found = {"nvitop": _differences(ours, {uuid: row for uuid, *row in seen["nvitop"]})}
    found["gpustat"] = _differences(whole, stat) + ([] if cut == parents else [f"{cut}, not {parents}"])
    return found


def _differences(ours: dict[str, list[Any]], theirs: dict[str, list[Any]]) -> list[str]:
    found = [f"{uuid} is only in one" for uuid in sorted(ours.keys() ^ theirs.keys())]
    for uuid in sorted(ours.keys() & theirs.keys()):
        mine = [None if other is None else own for own, other in zip(ours[uuid], theirs[uuid], strict=True)]
        if mine != theirs[uuid]:
            found.append(f"{uuid}: {ours[uuid]}, not {theirs[uuid]}")
    return found
