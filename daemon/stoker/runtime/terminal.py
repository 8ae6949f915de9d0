"""Whether the terminal that a daemon was started in is still there."""

from __future__ import annotations

import os
import select
import stat


def hung_up() -> bool:
    """Whether a standard stream of ours is a closed terminal: SIGHUP is then no wish for a reload."""
    for stream in (0, 1, 2):
        try:
            if not stat.S_ISCHR(os.fstat(stream).st_mode):
                continue
        except OSError:
            continue
        asked = select.poll()
        asked.register(stream, select.POLLHUP)
        if any(found & select.POLLHUP for _, found in asked.poll(0)):
            return True
    return False
