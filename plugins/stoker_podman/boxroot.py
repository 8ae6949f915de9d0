"""What a container without an image sees: the files of the box, read-only, and its own directory.

The root itself is an empty directory of ours with the same links as the box's; everything else is mounted.
Left out is what belongs to a running system: devices, sockets, other programs' temporary files.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stoker_podman.spec import bind

NO_COPY = "notmpcopyup"
"""podman would copy what the root has there: nothing, but by way of the box's /tmp, where it may not write"""
OWN = frozenset({"dev", "proc", "run", "sys", "tmp", "lost+found"})
"""Top directories that a container has of its own."""


def make_root(path: Path) -> None:
    """Make the empty root, with the links (/bin -> usr/bin) of the box's."""
    path.mkdir(mode=0o755, parents=True, exist_ok=True)
    for entry in os.scandir("/"):
        if entry.is_symlink() and not os.path.lexists(path / entry.name):
            os.symlink(os.readlink(entry.path), path / entry.name)


def box_mounts(working_dir: str) -> Sequence[dict[str, Any]]:
    """The box's directories read-only, a /tmp of its own, and over them the working directory."""
    found = [
        bind(entry.path, entry.path, "ro")
        for entry in sorted(os.scandir("/"), key=lambda entry: entry.name)
        if entry.name not in OWN and entry.is_dir() and not entry.is_symlink()
    ]
    options = ["mode=1777", "nosuid", NO_COPY]
    found.append({"type": "tmpfs", "source": "tmpfs", "destination": "/tmp", "options": options})
    if working_dir != "/":
        found.append(bind(working_dir, working_dir, "rw"))
    return found
