"""What plugins learn of processes, their children or not: from `/proc`, and of their end."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import anyio

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


def descendants(pid: int) -> list[int]:
    """The process and all below it, as far as they are there."""
    found, ahead = [], [pid]
    while ahead:
        one = ahead.pop()
        found.append(one)
        ahead += children(one)
    return found


def children(pid: int) -> list[int]:
    """The children of all threads of a process; [] for one that is gone."""
    found: list[int] = []
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with suppress(OSError):
                found += map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split())
    return found


def is_zombie(pid: int) -> bool:
    """Whether it has ended and nobody has taken note of it."""
    return _stat(pid)[:1] == ["Z"]


async def gone(pid: int, *, timeout: float | None = None) -> bool:
    """Wait until a process has ended, for at most `timeout` seconds; a child of ours is reaped. False if it
    has not, or is not known (0)."""
    if not pid:
        return False
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        with anyio.move_on_after(timeout) as scope:
            await anyio.wait_readable(descriptor)
    finally:
        os.close(descriptor)
    if scope.cancelled_caught:
        return False
    _reap(pid)
    return True


def _reap(pid: int) -> None:
    with suppress(ChildProcessError):  # an adopted one: it was started by an earlier daemon
        os.waitpid(pid, os.WNOHANG)


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
