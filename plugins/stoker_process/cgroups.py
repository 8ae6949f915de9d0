"""Process trees held by cgroups: nothing a worker forks can leave its own.

Of v2 no controller is needed, so this also works where they are still on v1 (hybrid), and in a subtree that
was delegated to an ordinary user. Without v2 the freezer of v1 does the same, with more effort.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import anyio

from stoker_process import procfs
from stoker_process.exits import signal_pidfd
from stoker_process.hierarchies import Hierarchy, find, home_name, safe, write
from stoker_process.procfs import Stat
from stoker_process.worker import Measure, Worker, kill_process, still_running, until_gone

_LOOKS = 50
_SWEEPS = 10
_RETRY = 0.002


class CgroupTrees:
    """One directory per worker in a directory per instance, nested under the daemon's own cgroup.

    `home` is that instance directory. Make one with `CgroupTrees.open`.
    """

    def __init__(self, hierarchy: Hierarchy, home: Path, log: Callable[[str], None]) -> None:
        self.hierarchy = hierarchy
        self.home = home
        self._log = log

    @property
    def description(self) -> str:
        """In words."""
        return f"cgroup {'v2' if self.hierarchy.unified else 'v1'}: a directory per worker"

    @classmethod
    def open(cls, instance: str, log: Callable[[str], None], *, only_v1: bool = False) -> CgroupTrees | str:
        """The trees of this instance, or the reason why this machine or user cannot have them."""
        reasons = []
        for label in ("freezer", "pids") if only_v1 else ("", "freezer", "pids"):
            hierarchy = find(label)
            found = _home_in(hierarchy, home_name(instance)) if hierarchy else None
            if hierarchy and isinstance(found, Path):
                return cls(hierarchy, found, log)
            reasons.append(found)
        why = next((reason for reason in reasons if isinstance(reason, str)), "")
        return why or "no cgroup v2 hierarchy is mounted"

    def create(self, replica: str) -> Path:
        """Make a new directory for a worker. Raises OSError."""
        return make_directory(self.home, replica)

    def remove(self, directory: Path) -> None:
        """Remove a directory in which nothing was born."""
        rmdir(directory)
        rmdir(self.home)

    def encloses(self, pid: int) -> bool:
        """Whether a process, dead or alive, is in a worker's directory of this instance."""
        return self.directory_of(pid) is not None

    def directory_of(self, pid: int) -> Path | None:
        """The worker directory of this instance that a process is in, wherever the daemon then lived."""
        return self.hierarchy.worker_directory(pid, self.home.name)

    def kill(self, worker: Worker) -> None:
        """SIGKILL to every process of the tree."""
        if worker.pidfd is not None:
            signal_pidfd(worker.pidfd, signal.SIGKILL)
        if worker.cgroup is not None:
            worker.dying += _processes(worker.cgroup)
            kill_members(worker.cgroup)

    async def clear(self, worker: Worker) -> None:
        """Kill what is left in the worker's directory, wait until it is empty, remove it."""
        if worker.cgroup is not None:
            await self.empty(worker.cgroup, worker.dying)
            # A process leaves its cgroup shortly before its end.
            await until_gone(still_running(worker.dying), self._log)

    async def empty(self, directory: Path, dying: list[Stat] | None = None) -> None:
        """Kill all that is in a directory and remove it; whom that hits is added to `dying`."""
        while _populated(directory):
            members = _members(directory)
            if dying is not None:
                dying += _processes(directory)
            kill_members(directory)
            await until_gone(members, self._log)
            if not members:
                await anyio.sleep(_RETRY)  # the last one is past its exit but not yet out of the cgroup
        for _ in range(_SWEEPS):
            if _remove(directory):
                break
            await anyio.sleep(_RETRY)
        rmdir(self.home)

    def abandoned(self, used: Iterable[Path]) -> list[Path]:
        """Worker directories of this instance that belong to none of the workers in use."""
        taken = set(used)
        if not self.home.is_dir():
            return []
        return [path for path in self.home.iterdir() if path.is_dir() and path not in taken]

    def measure(self, workers: Iterable[Worker]) -> Mapping[int, Measure]:
        """CPU from the cgroup (the dead included) where it counts, memory as the sum over the living."""
        found = {}
        for worker in workers:
            if worker.cgroup is None:
                continue
            living = _processes(worker.cgroup)
            seconds = _cpu_seconds(worker.cgroup)
            if seconds is None:
                seconds = sum(stat.ticks for stat in living) / procfs.TICKS
            found[worker.pid] = Measure(seconds, sum(stat.resident for stat in living))
        return found


def make_directory(home: Path, replica: str) -> Path:
    """Make a directory for a worker below an instance's own, under a name that is not taken.

    Raises OSError.
    """
    attempt = 0
    while True:
        directory = home / (f"{safe(replica)}.{attempt}" if attempt else safe(replica))
        try:
            directory.mkdir()
        except FileExistsError:
            attempt += 1
        except FileNotFoundError:
            home.mkdir(exist_ok=True)
        else:
            return directory


def kill_members(directory: Path) -> None:
    """SIGKILL to everything in a cgroup: at one stroke since Linux 5.14; with v1 while it is frozen, so that
    none is born meanwhile; else one by one."""
    try:
        write(directory / "cgroup.kill", "1")
    except OSError:
        with _frozen(directory / "freezer.state"):
            for stat in _processes(directory):
                kill_process(stat.pid, stat.start_time)


@contextmanager
def _frozen(state: Path) -> Iterator[None]:
    """The members of a v1 freezer stand still meanwhile, as far as they let themselves be stopped."""
    if not state.exists():
        yield
        return
    write(state, "FROZEN")
    try:
        for _ in range(_LOOKS):
            if state.read_text(encoding="ascii") == "FROZEN\n":
                break
        yield
    finally:
        write(state, "THAWED")


def _populated(directory: Path) -> bool:
    try:
        events = os.open(directory / "cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return bool(_members(directory))  # v1, or gone
    try:
        return b"populated 1" in os.read(events, 4096)
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
        return False  # gone meanwhile
    finally:
        os.close(events)


def _members(directory: Path) -> list[int]:
    """Every process in a cgroup and below it (workers may make cgroups of their own)."""
    found: list[int] = []
    for path, _, _ in os.walk(directory):
        try:
            found += map(int, Path(path, "cgroup.procs").read_text(encoding="ascii").split())
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
                raise
    return found


def _processes(directory: Path) -> list[Stat]:
    return [stat for pid in _members(directory) if (stat := procfs.read_stat(pid))]


def _cpu_seconds(directory: Path) -> float | None:
    """What all members ever have used; None where the cgroup does not count it."""
    try:
        words = (directory / "cpu.stat").read_text(encoding="ascii").split(maxsplit=2)
    except OSError:
        return None
    return int(words[1]) / 1e6 if words[0] == "usage_usec" else None


def rmdir(directory: Path | str) -> bool:
    """Remove a cgroup. False if it is in use."""
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.ENOTEMPTY, errno.EACCES, errno.EPERM):
            raise
        return False
    return True


def _remove(directory: Path) -> bool:
    """Remove a cgroup and the ones below it. False if one is in use."""
    return rmdir(directory) or all(rmdir(path) for path, _, _ in os.walk(directory, topdown=False))


def _home_in(hierarchy: Hierarchy, name: str) -> Path | str:
    """Where the directory of an instance can be in that hierarchy, or why it cannot."""
    own = hierarchy.place()
    if own is None:
        return f"the daemon's own cgroup lies outside of what is mounted at {hierarchy.mount}"
    parent = parent_for_workers(own)
    home = parent / name
    try:
        home.mkdir(exist_ok=True)
    except OSError as error:
        return f"cannot create {home}: {error.strerror}"
    usable = os.access(parent / "cgroup.procs", os.W_OK) and (home / "cgroup.procs").exists()
    rmdir(home)  # made again with the first worker, unless one is in it
    return home if usable else f"may not move processes below {parent}"


def parent_for_workers(own: Path) -> Path:
    """The daemon's own cgroup; or the one above, if systemd has put the daemon into a group of its own within
    what it delegated (`DelegateSubgroup=`): only one without processes can hand controllers on."""
    return own.parent if _delegated(own.parent) and not _delegated(own) else own


def _delegated(directory: Path) -> bool:
    for name in ("user.delegate", "trusted.delegate"):
        try:
            if os.getxattr(directory, name) == b"1":
                return True
        except OSError:
            continue  # not set, or no such attributes on this kernel
    return False
