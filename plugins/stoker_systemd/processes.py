"""What `/proc` tells about the processes of a unit."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def start_time(pid: int) -> int:
    """In clock ticks since boot; 0 for a process that is gone."""
    fields = _stat(pid)
    return int(fields[19]) if fields else 0


def measure(pids: Iterable[int]) -> tuple[float, int]:
    """CPU seconds and resident bytes of the living among them, their reaped children included."""
    found = [fields for fields in map(_stat, pids) if fields]
    ticks = sum(int(fields[place]) for fields in found for place in (11, 12, 13, 14))
    return ticks / TICKS, sum(int(fields[21]) for fields in found) * PAGE


def boot_id() -> str:
    """The identity of this boot of the kernel."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _stat(pid: int) -> list[str]:
    """The fields from the third on (the state); [] for a process that is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
