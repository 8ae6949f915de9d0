"""The directories of the daemon: may it write there, is there room."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from stoker.cli.doctor.finding import Finding, Place, fail, ok, warn
from stoker.model.quantity import format_bytes

SCARCE, GONE = 2**30, 50 * 2**20
"""Bytes free below which the logs of workers will soon be, or already are, in trouble."""


def check(place: Place) -> Iterator[Finding]:
    """State directory, directory of the socket, disk."""
    yield writable("state directory", Path(place.state_dir), "--state-dir or STOKER_STATE_DIR")
    yield writable("socket directory", Path(place.socket).parent, "--socket or STOKER_SOCKET")
    yield from exposed(Path(place.state_dir))
    there = nearest_existing(Path(place.state_dir))
    found = os.statvfs(there)
    yield room(str(there), found.f_bavail * found.f_frsize, found.f_favail, found.f_files)


def writable(name: str, directory: Path, option: str) -> Finding:
    """Whether files can be made in a directory, or the directory itself."""
    there = nearest_existing(directory)
    if not there.is_dir():
        return fail(name, f"{there} is no directory", f"choose another with {option}")
    if not os.access(there, os.W_OK | os.X_OK):
        text = f"no permission to write to {there}"
        return fail(name, text, f"run as its owner, or choose another with {option}")
    return ok(name, str(directory) if there == directory else f"{directory} (will be made)")


def exposed(directory: Path) -> Iterator[Finding]:
    """A warning if others may write to the state directory."""
    if directory.is_dir() and directory.stat().st_mode & stat.S_IWOTH:
        text = f"everybody may write to {directory}"
        yield warn("state directory", text, f"chmod o-w {directory}")


def room(where: str, free: int, free_files: int, files: int) -> Finding:
    """The verdict on free space. `files`: inodes, 0 where the file system has no fixed number. Pure."""
    remedy = f"make room on the file system of {where}; the logs of workers are below it"
    if files and free_files < 1000:
        return fail("disk", f"{free_files} files can still be made at {where}", remedy)
    text = f"{format_bytes(free)} free at {where}"
    if free < GONE:
        return fail("disk", text, remedy)
    return warn("disk", text, remedy) if free < SCARCE else ok("disk", text)


def nearest_existing(path: Path) -> Path:
    """The path itself, or the nearest of its parents that is there."""
    return next(parent for parent in (path, *path.parents) if parent.exists())
