"""Which cgroup hierarchies this machine has, and where in them a process is."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stoker_process import procfs


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One mounted hierarchy. `root` is the part of it that is mounted at `mount`; `label` names its
    controllers: "" for v2, "memory" or "cpu,cpuacct" for one of v1."""

    label: str
    mount: Path
    root: str

    @property
    def unified(self) -> bool:
        """Whether it is the one of cgroup v2."""
        return not self.label

    def place(self, pid: int | str = "self") -> Path | None:
        """The directory a process is in, also a zombie; None if it is gone, or outside of what is mounted."""
        path = procfs.cgroup_paths(pid).get(self.label.split(",")[0])
        if path is None or not (self.root in ("/", path) or path.startswith(f"{self.root}/")):
            return None
        return self.mount / path.removeprefix(self.root).lstrip("/")

    def worker_directory(self, pid: int, home: str) -> Path | None:
        """The directory of that worker which a process belongs to, by the name of the instance's directory
        above it, wherever the daemon then lived."""
        whole = self.place(pid)
        for directory in (whole, *whole.parents) if whole else ():
            if directory.parent.name == home:
                return directory
        return None


def hierarchies() -> list[Hierarchy]:
    """All that are mounted; v2 first."""
    with open("/proc/self/mountinfo", encoding="utf-8") as mounts:
        found = list(_parse(mounts))
    return sorted(found, key=lambda one: not one.unified)


def find(controller: str) -> Hierarchy | None:
    """The hierarchy of a v1 controller, of v2 for ""; None if it is not mounted."""
    for one in hierarchies():
        if controller in one.label.split(","):
            return one
    return None


def home_name(instance: str) -> str:
    """The directory of an instance, in any hierarchy."""
    return f"stoker-{safe(instance)}"


def safe(name: str) -> str:
    """A text as part of a directory's name."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", name)[:100]


def write(path: Path, text: str) -> None:
    """Write to a file of the kernel's. Not through a buffer: its answer to the write itself is what counts.

    Raises OSError.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _parse(mounts: Iterator[str]) -> Iterator[Hierarchy]:
    """Hierarchies in lines of mountinfo. The controllers of v1 stand among the options of the super block."""
    for line in mounts:
        fields = line.split()
        kind, options = fields[fields.index("-") + 1], fields[-1]
        if kind == "cgroup2":
            yield Hierarchy("", Path(fields[4]), fields[3])
        elif kind == "cgroup":
            words = [word for word in options.split(",") if word in _CONTROLLERS]
            if words:
                yield Hierarchy(",".join(words), Path(fields[4]), fields[3])


_CONTROLLERS = frozenset({"cpu", "cpuacct", "freezer", "memory", "pids"})
"""Those of v1 that are of use here. A mount that joins others with them is found by these."""
