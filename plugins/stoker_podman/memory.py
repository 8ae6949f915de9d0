"""Whether the kernel has killed a process of a container for want of memory.

The engine tells it only of a container's first process, which here is the init and not the command.
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


def account(pid: int, root: Path = ROOT) -> Path | None:
    """The file in which the kernel counts that for the cgroup of a process; None where there is none."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return root / "memory" / path.lstrip("/") / "memory.oom_control"
        if number == "0" and (root / "cgroup.controllers").exists():
            return root / path.lstrip("/") / "memory.events"
    return None


def killed(counts: Path | None) -> bool:
    """To be asked at once when a worker has ended: the engine soon removes its cgroup."""
    try:
        lines = counts.read_text(encoding="ascii").splitlines() if counts is not None else []
    except OSError:
        return False
    return any(line.split()[:1] == ["oom_kill"] and line.split()[1] != "0" for line in lines)
