"""Process trees held by cgroup v2 directories: nothing a worker forks can leave its own.

No controller is needed and none is enabled, so this also works where they are still on v1 (hybrid), and
in a subtree that was delegated to an ordinary user.
"""

from __future__ import annotations

import errno
import os
import re
import signal
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import anyio

from stoker_process import procfs
from stoker_process.exits import signal_pidfd
from stoker_process.procfs import Stat
from stoker_process.worker import Measure, Worker, kill_process, still_running, until_gone

_SWEEPS = 10
_RETRY = 0.002


class CgroupTrees:
    """One directory per worker in a directory per instance, nested under the daemon's own cgroup.

    `home` is that instance directory. Make one with `CgroupTrees.open`.
    """

    description = "cgroup v2: a directory per worker"

    def __init__(self, mount: Path, root: str, home: Path, log: Callable[[str], None]) -> None:
        self._mount = mount
        self._root = root
        self.home = home
        self._log = log

    @classmethod
    def open(cls, instance: str, log: Callable[[str], None]) -> CgroupTrees | str:
        """The trees of this instance, or the reason why this machine or user cannot have them."""
        own = procfs.unified_cgroup()
        found = _mount()
        if own is None or found is None:
            return "no cgroup v2 hierarchy is mounted"
        mount, root = found
        if not _below(own, root):
            return f"the daemon's own cgroup {own} lies outside of what is mounted at {mount}"
        parent = mount / own.removeprefix(root).lstrip("/")
        home = parent / f"stoker-{_safe(instance)}"
        try:
            home.mkdir(exist_ok=True)
        except OSError as error:
            return f"cannot create {home}: {error.strerror}"
        usable = os.access(parent / "cgroup.procs", os.W_OK) and (home / "cgroup.events").exists()
        _rmdir(home)  # made again with the first worker, unless one is in it
        if not usable:
            return f"may not move processes below {parent}"
        return cls(mount, root, home, log)

    def create(self, replica: str) -> Path:
        """Make a new directory for a worker. Raises OSError."""
        attempt = 0
        while True:
            directory = self.home / (f"{_safe(replica)}.{attempt}" if attempt else _safe(replica))
            try:
                directory.mkdir()
            except FileExistsError:
                attempt += 1
                continue
            except FileNotFoundError:
                self.home.mkdir(exist_ok=True)
                continue
            return directory

    def remove(self, directory: Path) -> None:
        """Remove a directory in which nothing was born."""
        _rmdir(directory)
        _rmdir(self.home)

    def encloses(self, pid: int) -> bool:
        """Whether a process, dead or alive, is in a worker's directory of this instance."""
        return self.directory_of(pid) is not None

    def directory_of(self, pid: int) -> Path | None:
        """The worker directory of this instance that a process is in, wherever the daemon then lived."""
        path = procfs.unified_cgroup(pid)
        if path is None or not _below(path, self._root):
            return None
        whole = self._mount / path.removeprefix(self._root).lstrip("/")
        for directory in (whole, *whole.parents):
            if directory.parent.name == self.home.name:
                return directory
        return None

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
            await self.empty(worker.cgroup)
            # A process leaves its cgroup shortly before its end.
            await until_gone(still_running(worker.dying), self._log)

    async def empty(self, directory: Path) -> None:
        """Kill all that is in a directory and remove it."""
        while _populated(directory):
            members = _members(directory)
            kill_members(directory)
            await until_gone(members, self._log)
            if not members:
                await anyio.sleep(_RETRY)  # the last one is past its exit but not yet out of the cgroup
        for _ in range(_SWEEPS):
            if _remove(directory):
                break
            await anyio.sleep(_RETRY)
        _rmdir(self.home)

    def abandoned(self, used: Iterable[Path]) -> list[Path]:
        """Worker directories of this instance that belong to none of the workers in use."""
        taken = set(used)
        if not self.home.is_dir():
            return []
        return [path for path in self.home.iterdir() if path.is_dir() and path not in taken]

    def measure(self, workers: Iterable[Worker]) -> Mapping[int, Measure]:
        """CPU from the cgroup (the dead included), memory as the sum over the living."""
        found = {}
        for worker in workers:
            if worker.cgroup is None:
                continue
            memory = sum(stat.resident for stat in _processes(worker.cgroup))
            found[worker.pid] = Measure(_cpu_seconds(worker.cgroup), memory)
        return found


def kill_members(directory: Path) -> None:
    """SIGKILL to everything in a cgroup: at one stroke since Linux 5.14, else one by one."""
    try:
        _write(directory / "cgroup.kill", "1")
    except OSError:
        for stat in _processes(directory):
            kill_process(stat.pid, stat.start_time)


def _write(path: Path, text: str) -> None:
    # Not through a buffer: the kernel's answer to the write itself is what counts.
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _populated(directory: Path) -> bool:
    try:
        return "populated 1" in (directory / "cgroup.events").read_text(encoding="ascii")
    except FileNotFoundError:
        return False


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


def _cpu_seconds(directory: Path) -> float:
    try:
        first = (directory / "cpu.stat").read_text(encoding="ascii").split(maxsplit=2)
    except OSError:
        return 0.0
    return int(first[1]) / 1e6


def _rmdir(directory: Path | str) -> bool:
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
    return all(_rmdir(path) for path, _, _ in os.walk(directory, topdown=False))


def _mount() -> tuple[Path, str] | None:
    """Where cgroup v2 is mounted, and which part of the hierarchy that is."""
    with open("/proc/self/mountinfo", encoding="utf-8") as mounts:
        for line in mounts:
            fields = line.split()
            if fields[fields.index("-") + 1] == "cgroup2":
                return Path(fields[4]), fields[3]
    return None


def _below(path: str, root: str) -> bool:
    return root in ("/", path) or path.startswith(f"{root}/")


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "-", name)[:100]
