"""The catalogue of instance types: names for what a replica needs. Pure.

`NAME.N` is NAME N times: `gpu.l4.2` has two L4. A GPU type asks for the GPU alone: how much of a
machine's cores and memory comes with it is a cloud's business, on a box of one's own it is said in
`resources`. The names and sizes of the CPU types are BentoCloud's. `gpu.mig.PROFILE` is a MIG instance, and
`gpu.MODEL.SIZEg` a model with that much memory, as `stoker gpus` names what is there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from stoker.model.quantity import parse_bytes
from stoker.model.service import Resources

_GI = parse_bytes("1Gi")
_GPUS = (
    "k80", "p4", "p100", "v100", "t4", "a10", "a10g", "a30", "a40", "l4", "l40", "l40s", "a100", "a100.40g",
    "a100.80g", "h100", "h100.80g", "h100.94g", "h100.nvl", "h100.pcie", "h200", "h200.nvl", "b200", "gb200",
    "b300", "rtx4090", "rtx5090", "rtx6000ada", "rtxpro6000blackwell",
)  # fmt: skip
"""As the device sources name them."""
_MIG = re.compile(r"gpu\.(mig\.(?:\d+c\.)?\d+g\.\d+gb(?:\+[a-z.]+)?)(?:\.1)?")
_CPU = re.compile(r"cpu\.([1-9]\d{1,2})")
_SIZED = re.compile(r"(gpu\.[a-z0-9]+)\.(\d{1,3}g)(?:\.([1-9]\d?))?")
_ALIASES = {"gpu.rtxpro6000": "rtxpro6000blackwell"}
_CPU_SIZES = {1: 2, 2: 2, 3: 6, 4: 8, 5: 10, 6: 12, 7: 14, 8: 16}
"""Virtual CPUs (halves of a core) and their GiB."""
_CPU_NAMES = {"small": 1, "medium": 2, "large": 4}
MAX_DEVICES = 64


def _cpu(size: int) -> Resources:
    return Resources(cpu=size / 2, memory=_CPU_SIZES[size] * _GI)


CATALOGUE: Mapping[str, Resources] = {
    **{f"cpu.{size}": _cpu(size) for size in _CPU_SIZES},
    **{f"cpu.{name}": _cpu(size) for name, size in _CPU_NAMES.items()},
    **{f"gpu.{model}": Resources(gpu=1.0, gpu_type=model) for model in _GPUS},
    **{name: Resources(gpu=1.0, gpu_type=model) for name, model in _ALIASES.items()},
    "gpu.any": Resources(gpu=1.0),
}


def find_type(name: str, own: Mapping[str, Resources]) -> Resources | None:
    """What an instance type stands for; `own` are the file's, which beat the built-in ones. None: no such."""
    catalogue = {**CATALOGUE, **own}
    if name in catalogue:
        return catalogue[name]
    profile = _MIG.fullmatch(name)
    if profile is not None:
        return Resources(gpu=1.0, gpu_type=profile[1])
    larger = _CPU.fullmatch(name)
    if larger is not None:
        return Resources(cpu=int(larger[1]) / 2, memory=int(larger[1]) * 2 * _GI)
    sized = _SIZED.fullmatch(name)
    if sized is not None and sized[1] in CATALOGUE and CATALOGUE[sized[1]].gpu_type is not None:
        return _times(
            Resources(gpu=1.0, gpu_type=f"{CATALOGUE[sized[1]].gpu_type}.{sized[2]}"), int(sized[3] or 1)
        )
    base, _, count = name.rpartition(".")
    if base not in catalogue or not count.isascii() or not count.isdecimal() or len(count) > 2:
        return None
    return _times(catalogue[base], int(count)) if 1 <= int(count) <= MAX_DEVICES else None


def _times(one: Resources, count: int) -> Resources | None:
    """`count` of these together; None where that makes no sense (shares of a GPU, CPU types)."""
    if one.gpu < 1:
        return None
    return Resources(
        gpu=one.gpu * count,
        gpu_type=one.gpu_type,
        gpu_memory=one.gpu_memory,
        cpu=one.cpu * count if one.cpu is not None else None,
        memory=one.memory * count if one.memory is not None else None,
    )
