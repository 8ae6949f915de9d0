"""Waits for changes of files and in directories without waking up in between, by inotify.

watchfiles looks every `step` milliseconds whether its own thread has seen something: at the 20 ms that a
quick reload needs this measured 50 wake-ups a second and 0.4 % of a core for ever, most of what the whole
idle daemon may use. So inotify is asked directly, and watchfiles serves where it cannot answer (no
instances left, a network file system).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable

import anyio
import anyio.to_thread

# <sys/inotify.h>
IN_MODIFY, IN_ATTRIB, IN_CLOSE_WRITE, IN_MOVED_FROM, IN_MOVED_TO = 0x2, 0x4, 0x8, 0x40, 0x80
IN_CREATE, IN_DELETE, IN_DELETE_SELF, IN_MOVE_SELF, IN_ONLYDIR = 0x100, 0x200, 0x400, 0x800, 0x0100_0000
IN_ONESHOT = 0x8000_0000
INTERESTING = (
    IN_ATTRIB
    | IN_CLOSE_WRITE
    | IN_MOVED_FROM
    | IN_MOVED_TO
    | IN_CREATE
    | IN_DELETE
    | IN_DELETE_SELF
    | IN_MOVE_SELF
)


FIRST_WRITE = IN_MODIFY | IN_ONESHOT
"""A file is written to for the first time since it is watched."""


class PathWatch:
    """An inotify instance over some paths: by default directories, in which anything counts that changes what
    is read from them. Raises OSError when the kernel refuses one."""

    def __init__(self, paths: Iterable[str], mask: int = INTERESTING | IN_ONLYDIR) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        for path in paths:
            # One that vanished meanwhile is no error: whoever watches knows of that in another way.
            self._libc.inotify_add_watch(self._descriptor, os.fsencode(path), mask)

    async def changed(self) -> None:
        """Return when something has changed."""
        while True:
            await anyio.wait_readable(self._descriptor)
            try:
                if os.read(self._descriptor, 65536):
                    return
            except BlockingIOError:
                continue

    async def aclose(self) -> None:
        """Give the descriptor back. The kernel may take 30 ms for that: not here."""
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(os.close, self._descriptor)
