"""Boxes of GPUs as state files of the fake: the name says what stands in the rack."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

State = dict[str, Any]

TOTALS_MIB = {
    "h100-sxm": 81559, "h100-pcie": 81559, "h100-nvl": 95830, "h200": 143771, "b200": 183359,
    "a100-40g": 40960, "a100-80g": 81920, "a100-80g-pcie": 81920, "a30": 24576, "a10": 23028, "a10g": 23028,
    "l4": 23034, "l40s": 46068, "v100-32g": 32768, "t4": 15360, "rtx4090": 24564, "rtx3090": 24576,
    "rtxa6000": 49140, "gtx1660s": 6144,
}  # fmt: skip
"""Memory in MiB by GPU, as the C side has it (src/presets.c)."""


def hgx(count: int = 8, gpu: str = "h100-sxm") -> State:
    """A board of NVSwitch-linked GPUs on two sockets."""
    buses = ["1B", "43", "52", "61", "9D", "C3", "D1", "DF"][:count]
    devices = []
    for i, bus in enumerate(buses):
        numa = i // 4
        device = _gpu(gpu, i, bus, numa=numa, path=f"n{numa}/rc{i}/br{i}/sw{i}")
        device |= {"cpus": "0-47,96-143" if numa == 0 else "48-95,144-191", "serial": f"165{i:010d}"}
        devices.append(device | {"nvlink": {"switch": True, "links": 18}, "fan": None})
    return {"driver_version": "580.159.04", "devices": devices}


def two_t4() -> State:
    """Two small cards without NVLink."""
    first = _gpu("t4", 0, "1E", path="n0/rc0/br0/sw0") | {"cpus": "0-15", "fan": None}
    second = _gpu("t4", 1, "3B", path="n0/rc1/br0/sw0") | {"cpus": "0-15", "fan": None}
    return {"driver_version": "550.163.01", "cuda_version": 12040, "devices": [first, second]}


def a100_in_seven() -> State:
    """One GPU cut by MIG into seven instances."""
    device = _gpu("a100-40g", 0, "07") | {"cpus": "0-15", "fan": None, "util_gpu": 0, "nvlink": None}
    instances = [
        {
            "index": k, "uuid": f"MIG-{_uuid(f'a100.mig{k}')}", "gi": 7 + k, "ci": 0, "profile": "1g.5gb",
            "slices": 1, "sm": 14, "memory_total": 4864 << 20, "memory_reserved": 0, "memory_used": 13 << 20,
        }
        for k in range(7)
    ]  # fmt: skip
    device["mig"] = {"mode": 1, "pending": 1, "instances": instances}
    return {"driver_version": "570.133.20", "cuda_version": 12080, "devices": [device]}


def four_unlike() -> State:
    """A workstation: the fastest card is not first on the bus, two are bridged, one drives a display."""
    devices = [
        _gpu("gtx1660s", 0, "01", path="n0/rc0/br0/sw0")
        | {"display": 1, "fan": 31, "memory_used": 350 << 20},
        _gpu("rtx3090", 1, "21", path="n0/rc1/br0/sw0") | {"fan": 30},
        _gpu("rtx3090", 2, "22", path="n0/rc1/br0/sw0") | {"fan": 30},
        _gpu("rtx4090", 3, "41", path="n0/rc2/br0/sw0") | {"fan": 0},
    ]
    one, other = devices[1], devices[2]
    one["nvlink"] = {"peers": {other["uuid"]: 4}}
    other["nvlink"] = {"peers": {one["uuid"]: 4}}
    devices[0]["processes"] = [{"pid": 2, "mem": 180 << 20, "type": "G", "name": "/usr/lib/xorg/Xorg"}]
    return {"driver_version": "575.64.03", "devices": devices}


PRESETS: dict[str, Callable[[], State]] = {
    "8xh100": hgx,
    "4xa100": lambda: hgx(4, "a100-80g"),
    "1xh100": lambda: hgx(1),
    "2xt4": two_t4,
    "a100-mig7": a100_in_seven,
    "mixed4": four_unlike,
    "none": lambda: {"devices": []},
    "nodriver": lambda: {"driver_loaded": False, "devices": []},
}


def _uuid(tag: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, f"fakenvml.{tag}"))


def _gpu(preset: str, minor: int, bus: str, *, numa: int = 0, path: str = "n0/rc0/br0/sw0") -> State:
    return {
        "preset": preset, "uuid": f"GPU-{_uuid(f'{preset}.{bus}')}", "bus": f"00000000:{bus}:00.0",
        "minor": minor, "numa_node": numa, "path": path,
    }  # fmt: skip
