"""What `/proc` tells about processes. Reads only; a process that is gone is None, never an error."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from stoker.model.replica import WorkerHandle

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
_MARK = b"STOKER_ID="
_KERNEL = 0x00200000
"""PF_KTHREAD."""


@dataclass(frozen=True, slots=True)
class Stat:
    """The fields of `/proc/PID/stat` that matter here.

    `start_time` and `ticks` are clock ticks; `ticks` includes the reaped children, so that the sum over a
    tree does not shrink when one of its processes ends. `resident` is in bytes. `executing` says that it
    is in the middle of an exec and has no environment yet, `kernel` that it never has one: it is a thread of
    the kernel's. `exit_status` is the raw wait status, meaningful for a zombie only.
    """

    pid: int
    state: str
    ppid: int
    pgrp: int
    session: int
    start_time: int
    ticks: int
    resident: int
    executing: bool
    exit_status: int
    kernel: bool = False

    @property
    def zombie(self) -> bool:
        """Whether it has ended and only its exit status is left."""
        return self.state in "ZX"


def read_stat(pid: int) -> Stat | None:
    """The present stat of that pid, None if there is no such process."""
    raw = _read(f"/proc/{pid}/stat")
    if raw is None:
        return None
    # The command name stands in parentheses and may itself contain any of them: split behind the last.
    fields = raw.rpartition(b")")[2].split()
    return Stat(
        pid=pid,
        state=fields[0].decode(),
        ppid=int(fields[1]),
        pgrp=int(fields[2]),
        session=int(fields[3]),
        start_time=int(fields[19]),
        ticks=sum(map(int, fields[11:15])),
        resident=int(fields[21]) * PAGE,
        executing=fields[48] == b"0" and fields[0] not in b"ZX",  # where its environment will end
        exit_status=int(fields[49]),
        kernel=bool(int(fields[6]) & _KERNEL),
    )


def all_pids() -> list[int]:
    """Every process that is visible now."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


class ProcessTable:
    """All processes at one moment, by pid, parent and session. Costs some 20 us a process."""

    def __init__(self) -> None:
        found = ((pid, read_stat(pid)) for pid in all_pids())
        self.stats = {pid: stat for pid, stat in found if stat is not None}
        self.children: dict[int, list[Stat]] = {}
        self.sessions: dict[int, list[Stat]] = {}
        self._marks: dict[int, str] = {}
        for stat in self.stats.values():
            self.children.setdefault(stat.ppid, []).append(stat)
            self.sessions.setdefault(stat.session, []).append(stat)

    def mark(self, pid: int) -> str:
        """`read_mark`, once for each process; "" if there is none."""
        if pid not in self._marks:
            known = self.stats.get(pid)
            self._marks[pid] = "" if known is not None and known.kernel else read_mark(pid) or ""
        return self._marks[pid]

    def descendants(self, roots: Iterable[Stat]) -> dict[int, Stat]:
        """The given processes and everything below them, by pid."""
        found = {stat.pid: stat for stat in roots}
        ahead = list(found)
        while ahead:
            for child in self.children.get(ahead.pop(), ()):
                if child.pid not in found:
                    found[child.pid] = child
                    ahead.append(child.pid)
        return found


def read_mark(pid: int) -> str | None:
    """The value of STOKER_ID the process was started with, "" if it has none or may not be read; None if
    that cannot be told now because it is in the middle of an exec."""
    for _ in range(3):  # an exec may begin or end between the two readings
        environ = _read(f"/proc/{pid}/environ")
        if environ != b"":
            break
        stat = read_stat(pid)
        if stat is not None and stat.executing:
            return None
    return _variable(environ or b"", _MARK)


def read_variable(pid: int, name: str) -> str:
    """The value of a variable the process was started with; "" if it has none or may not be read."""
    return _variable(_read(f"/proc/{pid}/environ") or b"", os.fsencode(f"{name}="))


def _variable(environ: bytes, beginning: bytes) -> str:
    if beginning in environ:
        for entry in environ.split(b"\0"):
            if entry.startswith(beginning):
                return os.fsdecode(entry[len(beginning) :])
    return ""


def children_of_main_thread() -> list[int]:
    """Children of this process's main thread: what it spawned, and every orphan that came to it."""
    own = os.getpid()
    raw = _read(f"/proc/self/task/{own}/children")
    if raw is not None:
        return [int(pid) for pid in raw.split()]
    return [stat.pid for stat in ProcessTable().children.get(own, ())]  # kernel without PROC_CHILDREN


def cgroup_paths(pid: int | str = "self") -> dict[str, str]:
    """Where a process is ("/a/b") in each cgroup hierarchy, by v1 controller, "" for v2; {} if it is gone."""
    found: dict[str, str] = {}
    for line in (_read(f"/proc/{pid}/cgroup") or b"").splitlines():
        _, controllers, path = os.fsdecode(line).split(":", 2)
        found |= dict.fromkeys(controllers.split(","), path)
    return found


@cache
def boot_id() -> str:
    """The identity of this boot of the kernel; "" where it cannot be read."""
    return (_read("/proc/sys/kernel/random/boot_id") or b"").decode().strip()


def same_process(handle: WorkerHandle) -> Stat | None:
    """The stat of the handle's process if it is still that very one, not a recycled pid."""
    if handle.boot_id and handle.boot_id != boot_id():
        return None
    stat = read_stat(handle.pid)
    return stat if stat is not None and stat.start_time == handle.start_time else None


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
