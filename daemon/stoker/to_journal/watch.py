"""Which logs grow, by inotify: nothing wakes up while none does."""

from __future__ import annotations

import ctypes
import os
import struct
from contextlib import suppress
from pathlib import Path

_MODIFY, _MOVED_TO, _CREATE, _ONLYDIR = 0x2, 0x80, 0x100, 0x0100_0000
_OVERFLOW, _IGNORED, _ISDIR = 0x4000, 0x8000, 0x4000_0000
_EVENT = struct.Struct("iIII")
_DEPTH = 2
"""Logs lie in LOGS/DEPLOYMENT/SERVICE."""


class LogWatch:
    """The logs below a directory, which need not exist yet. Raises OSError where inotify cannot be had."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor: int = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "inotify: " + os.strerror(ctypes.get_errno()))
        self._places: dict[int, str] = {}
        """By watch: the directory, relative to that of the logs."""
        logs.mkdir(mode=0o750, parents=True, exist_ok=True)
        self.grown: set[str] = set()
        """Names of logs, relative to the directory, in which there may be something new."""
        self._enter("")

    def fileno(self) -> int:
        """For `select`."""
        return self._descriptor

    def look(self) -> None:
        """Take in what has happened."""
        with suppress(BlockingIOError):
            while events := os.read(self._descriptor, 65536):
                self._take(events)

    def close(self) -> None:
        """Give it back."""
        os.close(self._descriptor)

    def _take(self, events: bytes) -> None:
        at = 0
        while at < len(events):
            number, mask, _, length = _EVENT.unpack_from(events, at)
            at += _EVENT.size
            name = os.fsdecode(events[at : at + length].rstrip(b"\0"))
            at += length
            if mask & _OVERFLOW:
                self._enter("")
            elif mask & _IGNORED:
                self._places.pop(number, None)
            elif mask & _ISDIR:
                self._enter(f"{self._places.get(number, '')}/{name}".lstrip("/"))
            elif name.endswith(".log") and _depth(place := self._places.get(number, "")) == _DEPTH:
                self.grown.add(f"{place}/{name}")

    def _enter(self, place: str) -> None:
        """Watch a directory and all below it. First the watch, then the look: nothing falls between."""
        depth = _depth(place)
        mask = _ONLYDIR | _CREATE | _MOVED_TO | (_MODIFY if depth == _DEPTH else 0)
        number = self._libc.inotify_add_watch(self._descriptor, os.fsencode(self._logs / place), mask)
        if number < 0:
            error = ctypes.get_errno()
            if (self._logs / place).is_dir():
                raise OSError(error, f"inotify: {os.strerror(error)}")
            return  # gone meanwhile
        self._places[number] = place
        with suppress(FileNotFoundError), os.scandir(self._logs / place) as entries:
            for entry in entries:
                inside = f"{place}/{entry.name}".lstrip("/")
                if depth < _DEPTH and entry.is_dir(follow_symlinks=False):
                    self._enter(inside)
                elif depth == _DEPTH and entry.name.endswith(".log"):
                    self.grown.add(inside)


def _depth(place: str) -> int:
    return len(Path(place).parts)
