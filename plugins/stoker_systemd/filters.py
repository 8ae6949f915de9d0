"""Whether the kernel keeps device files from a process: asked of its cgroup, since a unit's DeviceAllow= is
without effect where the kernel or systemd lack what it takes."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
_OPEN = "a *:* rwm"
"""What a group of cgroup v1 says that keeps nothing from anybody."""
_BPF = {"x86_64": 321, "aarch64": 280}
_PROG_QUERY, _CGROUP_DEVICE, _EFFECTIVE = 16, 6, 1


def filtered(pid: int, *, root: Path = ROOT) -> bool:
    """Whether the cgroup of this process filters which devices it may open; False where that is not known."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        groups = {names: path for _, names, path in (line.split(":", 2) for line in lines)}
        for names, path in groups.items():
            if "devices" in names.split(","):
                return _OPEN not in Path(f"{root}/devices{path}/devices.list").read_text().splitlines()
        unified = root / "unified" if (root / "unified").is_dir() else root
        return "" in groups and has_program(Path(f"{unified}{groups['']}"))
    except OSError:
        return False


def has_program(group: Path) -> bool:
    """Whether a program of the kernel decides on devices for that group of cgroup v2, or for one above it.
    Raises OSError."""
    number = _BPF.get(platform.machine())
    if number is None:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        query = struct.pack("=IIIIQI", descriptor, _CGROUP_DEVICE, _EFFECTIVE, 0, 0, 0).ljust(128, b"\0")
        buffer = ctypes.create_string_buffer(query, len(query))
        if libc.syscall(number, _PROG_QUERY, buffer, len(query)) != 0:
            return False
        (count,) = struct.unpack_from("=I", buffer, 24)
        return bool(count)
    finally:
        os.close(descriptor)
