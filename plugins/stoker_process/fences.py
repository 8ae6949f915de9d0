"""Limits of whole process trees, held by cgroup controllers: memory, cores, processes.

With v2 they are set on the directory that holds the tree; where the controllers are on v1, on directories
beside it, one for each. What cannot be held is said, once, and the worker runs without that limit.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import anyio

from stoker.model.quantity import format_bytes
from stoker.model.service import Limits
from stoker_process.cgroups import CgroupTrees, make_directory, parent_for_workers, rmdir
from stoker_process.hierarchies import Hierarchy, hierarchies, home_name, write

PERIOD = 100_000
"""Microseconds over which the cores of a worker are counted."""
_SWEEPS = 10
_RETRY = 0.002


class UnheldError(Exception):
    """A limit that this machine or user cannot hold; the text says why and what would help."""


@dataclass(frozen=True, slots=True)
class Fence:
    """What holds one worker: the names of the limits that are held, and the directories made for them, which
    the worker has to enter before it begins."""

    held: frozenset[str] = frozenset()
    directories: tuple[Path, ...] = ()


class Fences:
    """Builds them. `trees` is what holds the trees, None if no cgroup does."""

    def __init__(self, instance: str, trees: CgroupTrees | None, log: Callable[[str], None]) -> None:
        self._home = home_name(instance)
        self._trees = trees
        self._log = log
        self._said: set[str] = set()
        self._hierarchies: list[Hierarchy] | None = None

    def build(self, service: str, replica: str, limits: Limits, tree: Path | None) -> Fence:
        """The fence of a worker whose tree is (to be) held by the directory `tree`."""
        wanted = {"memory": limits.memory, "cpu": limits.cpu, "pids": limits.pids}
        made: dict[Hierarchy, Path] = {}
        if tree is not None and self._trees is not None:
            made[self._trees.hierarchy] = tree
        held = set()
        for name, value in wanted.items():
            if value is None:
                continue
            try:
                self._hold(name, value, replica, made)
            except (OSError, UnheldError) as error:
                reason = error.strerror or str(error) if isinstance(error, OSError) else str(error)
                self._say(f"limits.{name} of {service} is not held{_INSTEAD.get(name, '')}: {reason}")
            else:
                held.add(name)
        return Fence(frozenset(held), tuple(path for path in made.values() if path != tree))

    def found(self, pid: int) -> tuple[Path, ...]:
        """The directories of a worker of an earlier daemon, beside the one that holds its tree."""
        beside = (one for one in self._all() if self._trees is None or one != self._trees.hierarchy)
        places = (one.worker_directory(pid, self._home) for one in beside)
        return tuple(place for place in places if place is not None)

    def abandoned(self, used: Iterable[Path]) -> list[Path]:
        """Directories of this instance that no worker uses, beside those that hold trees."""
        taken, found = set(used), []
        for one in self._all():
            own = one.place()
            home = parent_for_workers(own) / self._home if own else None
            if home and home.is_dir() and (self._trees is None or home != self._trees.home):
                found += [path for path in home.iterdir() if path.is_dir() and path not in taken]
        return found

    def _hold(self, name: str, value: float, replica: str, made: dict[Hierarchy, Path]) -> None:
        """Set one limit. Raises UnheldError, OSError."""
        trees = self._trees
        unified = trees is not None and trees.hierarchy.unified
        if trees is not None and unified and trees.hierarchy in made and _offers(trees.home.parent, name):
            _hand_on(name, trees.home)
            _set(made[trees.hierarchy], _UNIFIED[name](value))
            return
        hierarchy = next((one for one in self._all() if name in one.label.split(",")), None)
        own = hierarchy.place() if hierarchy else None
        if hierarchy is None or own is None:
            where = f" to {trees.home.parent}" if trees is not None and unified else " here"
            raise UnheldError(
                f"the {name} controller of cgroups is not delegated{where}; run the daemon as a systemd "
                "unit with Delegate=yes, or use `backend: systemd`"
            )
        if hierarchy not in made:
            home = own / self._home
            try:
                made[hierarchy] = make_directory(home, replica)
            except OSError as error:
                raise UnheldError(f"cannot create {home}: {error.strerror}; only root may do that") from error
        _set(made[hierarchy], _OLD[name](value))

    def _all(self) -> list[Hierarchy]:
        if self._hierarchies is None:
            self._hierarchies = hierarchies()
        return self._hierarchies

    def _say(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._log(text)


async def dismantle(directories: Iterable[Path]) -> None:
    """Remove directories whose worker is gone. One that does not go now is left to the next daemon."""
    for directory in directories:
        for _ in range(_SWEEPS):
            if rmdir(directory):
                break
            await anyio.sleep(_RETRY)  # the last one is past its exit but not yet out of the cgroup
        rmdir(directory.parent)


def out_of_memory(directories: Iterable[Path]) -> str:
    """How a worker in these directories ran out of memory, in words; "" if it did not."""
    for directory in directories:
        for events, limit in _OOM:
            if _count(directory / events, "oom_kill"):
                return f"out of memory: used up its limit of {_size(directory / limit)}"
    return ""


_OOM = (("memory.events", "memory.max"), ("memory.oom_control", "memory.limit_in_bytes"))
"""What tells of processes that were killed for want of memory, and of the limit: of v2, of v1."""


def _offers(parent: Path, controller: str) -> bool:
    try:
        return controller in (parent / "cgroup.controllers").read_text(encoding="ascii").split()
    except OSError:
        return False


def _hand_on(controller: str, home: Path) -> None:
    """Give a controller of v2 to the workers' directories. Raises UnheldError, OSError."""
    home.mkdir(exist_ok=True)
    for directory in (home.parent, home):
        control = directory / "cgroup.subtree_control"
        if controller in control.read_text(encoding="ascii").split():
            continue
        if _has_processes(directory):
            # Not even to be tried: for some controllers the kernel would do it, and then allow nobody below.
            raise UnheldError(
                f"{directory} has processes of its own, so it cannot hand {controller} on; put the daemon "
                "into a group below it with DelegateSubgroup=daemon (systemd 254), or use `backend: systemd`"
            )
        write(control, f"+{controller}")


def _has_processes(directory: Path) -> bool:
    """Whether a cgroup has processes itself. The root of all may, and hand controllers on nevertheless."""
    if not (directory / "cgroup.type").exists():
        return False
    return bool((directory / "cgroup.procs").read_text(encoding="ascii").strip())


def _set(directory: Path, values: Iterable[tuple[str, str, bool]]) -> None:
    """Write files of a cgroup: name, text, and whether it must be there. Raises OSError."""
    for name, text, needed in values:
        try:
            write(directory / name, text)
        except OSError:
            if needed:
                raise


_Values = list[tuple[str, str, bool]]


def _quota(cores: float) -> int:
    return max(1000, round(cores * PERIOD))


_UNIFIED: dict[str, Callable[[float], _Values]] = {
    # Without swap, so that a limit is one; the tree as a whole, because half a worker is no worker.
    "memory": lambda value: [
        ("memory.max", f"{value:.0f}", True),
        ("memory.swap.max", "0", False),
        ("memory.oom.group", "1", False),
    ],
    "cpu": lambda value: [("cpu.max", f"{_quota(value)} {PERIOD}", True)],
    "pids": lambda value: [("pids.max", f"{value:.0f}", True)],
}
_OLD: dict[str, Callable[[float], _Values]] = {
    "memory": lambda value: [
        ("memory.limit_in_bytes", f"{value:.0f}", True),
        ("memory.memsw.limit_in_bytes", f"{value:.0f}", False),
    ],
    "cpu": lambda value: [
        ("cpu.cfs_period_us", str(PERIOD), True),
        ("cpu.cfs_quota_us", str(_quota(value)), True),
    ],
    "pids": lambda value: [("pids.max", f"{value:.0f}", True)],
}
_INSTEAD = {"pids": " for the replica, only for all processes of its user together"}


def _count(file: Path, name: str) -> int:
    try:
        lines = file.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(value) for key, value in (line.split() for line in lines) if key == name), 0)


def _size(file: Path) -> str:
    text = file.read_text(encoding="ascii").strip() if os.path.exists(file) else ""
    return format_bytes(int(text)) if text.isdecimal() else "memory"
