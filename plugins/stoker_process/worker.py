"""A live worker as the driver holds it, and waiting for processes to end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import anyio

from stoker.model.load import Usage
from stoker_process import procfs
from stoker_process.exits import signal_pidfd
from stoker_process.procfs import Stat
from stoker_process.records import Record

PATIENCE = 10.0
"""Seconds after SIGKILL before it is said that a process does not go."""


@dataclass(slots=True)
class Worker:
    """One worker. `pidfd` is None if it ended before it could be taken over; `child`: we spawned it."""

    record: Record
    pidfd: int | None
    child: bool
    dying: list[Stat] = field(default_factory=list)
    """Processes that `kill` has met; until they are gone the tree is not."""
    measured: Measure | None = None
    measured_at: float = 0.0

    @property
    def pid(self) -> int:
        """The main process, leader of the session."""
        return self.record.pid

    @property
    def mark(self) -> str:
        """Its STOKER_ID."""
        return self.record.mark

    def owns(self, mark: str | None) -> bool:
        """Whether a process with that mark is of this worker's tree."""
        return bool(mark) and mark == self.mark

    @property
    def cgroup(self) -> Path | None:
        """The directory that holds its tree, None without one."""
        return Path(self.record.cgroup) if self.record.cgroup else None

    def use(self, measure: Measure, now: float) -> Usage:
        """The mean use since the previous measure; at the first one since the worker's start."""
        if self.measured is not None:
            seconds, elapsed = measure.cpu_seconds - self.measured.cpu_seconds, now - self.measured_at
        else:
            age = time.clock_gettime(time.CLOCK_BOOTTIME) - self.record.start_time / procfs.TICKS
            seconds, elapsed = measure.cpu_seconds, age
        self.measured, self.measured_at = measure, now
        return Usage(cpu=max(0.0, seconds) / elapsed if elapsed > 0 else 0.0, memory=measure.memory, at=now)


@dataclass(frozen=True, slots=True)
class Measure:
    """What a tree has used: CPU seconds in all its life, resident bytes now."""

    cpu_seconds: float
    memory: int


class Trees(Protocol):
    """A way to hold on to a worker's whole process tree."""

    def kill(self, worker: Worker) -> None:
        """SIGKILL to every process of the tree."""
        ...

    async def clear(self, worker: Worker) -> None:
        """The main process has ended: kill what it left behind, return when all of it is gone."""
        ...

    def measure(self, workers: Iterable[Worker]) -> Mapping[int, Measure]:
        """What the trees use, by pid of the main process. May be called in a thread."""
        ...


def kill_process(pid: int, start_time: int) -> None:
    """SIGKILL to that very process, not to one that has got its pid since."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        stat = procfs.read_stat(pid)
        if stat is not None and stat.start_time == start_time:
            signal_pidfd(pidfd, signal.SIGKILL)
    finally:
        os.close(pidfd)


def end_marked(mark: str) -> None:
    """SIGKILL to every process that was started with this mark."""
    for pid in procfs.all_pids():
        stat = procfs.read_stat(pid) if procfs.read_mark(pid) == mark else None
        if stat is not None:
            kill_process(pid, stat.start_time)


def still_running(processes: Iterable[Stat]) -> list[int]:
    """The pids of those that have not ended; recycled pids are told apart."""
    now = ((then, procfs.read_stat(then.pid)) for then in processes)
    return [stat.pid for then, stat in now if stat and stat.start_time == then.start_time and not stat.zombie]


async def until_gone(pids: Iterable[int], log: Callable[[str], None]) -> None:
    """Return when none of these processes runs any more; say so when that takes long."""
    left = list(pids)
    with anyio.move_on_after(PATIENCE):
        while left:
            await _until_exit(left[0])
            left.pop(0)
    if left:
        # Uninterruptible: in a driver's call. Its device is not free, so there is nothing to do but wait.
        log(f"{PATIENCE:.0f} s after SIGKILL these processes still run; waiting for them: {left}")
    for pid in left:
        await _until_exit(pid)


async def _until_exit(pid: int) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        await anyio.wait_readable(pidfd)
    finally:
        os.close(pidfd)
