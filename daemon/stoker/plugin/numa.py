"""Which cores are near a NUMA node, of those that workers may use at all."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

NODES = Path("/sys/devices/system/node")


def near(node: int, allowed: Collection[int], *, nodes: Path = NODES) -> tuple[int, ...]:
    """The allowed cores of that node; empty where there is nothing to set: they are all of the allowed ones,
    none of them, or the kernel does not tell."""
    try:
        cores = cores_of((nodes / f"node{node}" / "cpulist").read_text())
    except (OSError, ValueError):
        return ()
    found = tuple(sorted(cores & set(allowed)))
    return found if len(found) < len(allowed) else ()


def cores_of(text: str) -> frozenset[int]:
    """The kernel's way to write a set: `0-3,8,10-11`. Raises ValueError."""
    found: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def cores_near(node: int | None) -> tuple[int, ...]:
    """Those of this process."""
    return () if node is None else near(node, os.sched_getaffinity(0))
